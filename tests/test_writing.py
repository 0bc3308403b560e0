from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nmt_async.writing import built_whole


def test_the_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with built_whole(tmp_path / "deep" / "data") as folder:
        (folder / "file").write_text("content")
        assert not (tmp_path / "deep" / "data").exists()
    assert (tmp_path / "deep" / "data" / "file").read_text() == "content"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with built_whole(tmp_path / "data") as folder:
            (folder / "file").write_text("content")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_folder_that_was_to_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").touch()

    def fail() -> None:
        with built_whole(tmp_path / "data", replace=True):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert (tmp_path / "data" / "old").exists()
    with built_whole(tmp_path / "data", replace=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_something_in_it_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old").touch()
    with pytest.raises(OSError, match="not empty"), built_whole(tmp_path / "data"):
        pass
    assert (tmp_path / "data" / "old").exists()


def test_what_a_killed_process_left_is_removed_but_not_what_a_living_one_builds(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom nmt_async.writing import built_whole\n"
        "with built_whole(Path(sys.argv[1])) as folder:\n    print(folder.name, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        left = tmp_path / process.stdout.readline().strip()
        with built_whole(tmp_path / "data"):
            assert left.is_dir()
        (tmp_path / "data").rmdir()
        process.send_signal(signal.SIGKILL)
    assert left.is_dir()
    with built_whole(tmp_path / "data"):
        assert not left.exists()
