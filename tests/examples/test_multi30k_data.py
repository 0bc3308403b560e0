"""The data step of the Multi30k example, run as a user runs it."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from nmt_async.errors import UserError

SCRIPT = Path(__file__).parents[2] / "examples" / "multi30k" / "data.py"
NAMES = ("train.en", "train.de", "valid.en", "valid.de", "test2016.en", "test2016.de")


def run(out: Path, data: Path | str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"NMT_ASYNC_DATA": str(data)}
    command = [sys.executable, str(SCRIPT), "--out", str(out)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def script() -> ModuleType:
    specification = spec_from_file_location("multi30k_data", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def wrong_data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "multi30k"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(b"A sentence that nobody measured.\n"))
    return folder.parent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a web server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", folder
        running.shutdown()


def assert_refused(done: subprocess.CompletedProcess[str], out: Path, *expected: str) -> None:
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for words in expected:
        assert words in done.stderr
    assert not list(out.iterdir())


def test_text_with_another_hash_is_refused_and_not_kept(tmp_path: Path, wrong_data: Path) -> None:
    assert_refused(run(tmp_path / "out", wrong_data), tmp_path / "out", "train.en.gz", "SHA-256")


def test_damaged_file_is_named(tmp_path: Path, wrong_data: Path) -> None:
    damaged = wrong_data / "multi30k" / "train.en.gz"
    damaged.write_bytes(damaged.read_bytes()[:-6])
    assert_refused(run(tmp_path / "out", wrong_data), tmp_path / "out", "train.en.gz", "damaged")


def test_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    done = run(tmp_path / "out", tmp_path / "nowhere")
    assert_refused(done, tmp_path / "out", str(tmp_path / "nowhere"), "NMT_ASYNC_DATA")


def test_download_is_checked_like_a_local_file(
    tmp_path: Path, script: ModuleType, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = server
    text = "Zwei Männer.\n".encode()
    (served / "val.de.gz").write_bytes(gzip.compress(text))
    with pytest.raises(UserError, match="SHA-256"):
        script.fetch("valid.de", tmp_path, None, address)
    assert not (tmp_path / "valid.de").exists()
    monkeypatch.setitem(script.SHA256, "valid.de", script.hashlib.sha256(text).hexdigest())
    script.fetch("valid.de", tmp_path, None, address)
    assert (tmp_path / "valid.de").read_bytes() == text
    assert script.is_there(tmp_path / "valid.de")


def test_failed_download_is_one_sentence(tmp_path: Path, script: ModuleType, server: tuple[str, Path]) -> None:
    with pytest.raises(UserError, match=r"test_2016_flickr\.en\.gz could not be downloaded \(File not found\)"):
        script.fetch("test2016.en", tmp_path, None, server[0])
    with pytest.raises(UserError, match="could not be downloaded"):
        script.fetch("test2016.en", tmp_path, None, "http://127.0.0.1:9")


@pytest.mark.skipif("NMT_ASYNC_DATA" not in os.environ, reason="NMT_ASYNC_DATA names no folder with Multi30k")
def test_real_files_pass_and_a_second_run_keeps_them(tmp_path: Path) -> None:
    for _ in range(2):
        done = run(tmp_path, os.environ["NMT_ASYNC_DATA"])
        assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    assert len((tmp_path / "test2016.de").read_text("utf-8").splitlines()) == 1000
