"""Which devices are meant, and which are taken where nobody names any.

There is no GPU where these tests were written: their number, which torch would tell, is replaced, and nothing is
computed on them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from nmt_async.cli.main import run
from training_runs import run_small, small_options, typed

from nmt_async.devices import MissingDevice, all_gpus, check_here, devices_named
from nmt_async.errors import UserError
from nmt_async.training.options import TrainOptions
from nmt_async.training.run_folder import read_options, settled
from nmt_async.translate.files import devices_of
from nmt_async.translate.options import DecodingOptions, TranslateOptions
from nmt_async.translate.translator import default_devices, use_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Makes torch count so many."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("text", "found"),
    [("0,1", ["cuda:0", "cuda:1"]), ("cuda:1 cuda:0", ["cuda:1", "cuda:0"]), ("cuda", ["cuda:0"]), ("cpu", ["cpu"]),
     ("0, 0,1", ["cuda:0", "cuda:0", "cuda:1"])],
)  # fmt: skip
def test_devices_are_named_as_people_name_them(text: str, found: list[str]) -> None:
    assert devices_named(text, "--devices") == found


@pytest.mark.parametrize("text", ["", ",", "tpu", "cuda:-1", "1.5", "cuda:x", "٣"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--devices"):
        devices_named(text, "--devices")


def test_a_device_that_is_not_here_is_told_with_those_that_are(gpus) -> None:
    gpus(2)
    check_here(["cpu", "cuda:0", "cuda:1"], "--devices")
    with pytest.raises(MissingDevice, match="--devices cuda:2: torch finds only 2, counted from 0 here; give"):
        check_here(["cuda:2"], "--devices")
    gpus(0)
    with pytest.raises(MissingDevice, match="--devices cuda:0: torch finds no CUDA device here"):
        check_here(["cuda:0"], "--devices")


@pytest.mark.parametrize(("count", "expected"), [(0, ["cpu"]), (1, ["cuda:0"]), (3, ["cuda:0", "cuda:1", "cuda:2"])])
def test_all_gpus_are_taken_else_the_cpu(gpus, tmp_path: Path, count: int, expected: list[str]) -> None:
    gpus(count)
    assert all_gpus() == expected
    options = TrainOptions(out=tmp_path / "run")
    assert list(dict.fromkeys(options.device_list())) == expected
    assert devices_of(TranslateOptions()) == expected
    assert str(use_device(DecodingOptions())) == expected[0]
    if count:
        assert len(options.device_list()) == count
        assert settled(options).devices == ",".join(expected)
    assert options.devices_reason() == ("all GPUs found" if count else "no GPU found")


def test_what_only_the_cpu_can_do_is_done_there(gpus) -> None:
    gpus(2)
    assert devices_of(TranslateOptions(precision="int8")) == ["cpu"]
    assert default_devices(engine="ctranslate2") == ["cpu"]  # CTranslate2 counts GPUs itself, and sees none


def test_a_simulated_cluster_takes_one_device_and_refuses_more(gpus, tmp_path: Path) -> None:
    gpus(2)
    virtual = TrainOptions(out=tmp_path / "run", cluster="simulated", workers=4)
    assert virtual.device_list() == ["cuda:0"] * 4
    assert virtual.devices_reason() == "the first GPU found"
    assert TrainOptions(cluster="simulated", workers=2, devices="1").device_list() == ["cuda:1"] * 2
    with pytest.raises(UserError, match="--devices 0,1: a simulated cluster computes on one device; give --devices"):
        TrainOptions(cluster="simulated", workers=2, devices="0,1").device_list()


def test_who_names_devices_gets_them_in_that_order(gpus, tmp_path: Path) -> None:
    gpus(2)
    options = settled(TrainOptions(out=tmp_path / "run", devices="0,0,1", workers=3))
    assert options.device_list() == ["cuda:0", "cuda:0", "cuda:1"]
    assert options.devices_reason() == ""


def test_a_dumped_configuration_leaves_devices_open(capsys: pytest.CaptureFixture[str], gpus) -> None:
    gpus(2)
    for words in (
        ["train", "data"],
        ["translate", "model"],
        ["doctor", "data"],
        ["compare", "data", "--budget", "1Mt"],
    ):
        assert run([*words, "--dump-config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["devices"] is None


def test_help_tells_the_default_and_asks_no_driver(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked() -> int:
        raise AssertionError("torch was asked for GPUs")

    monkeypatch.setattr(torch.cuda, "device_count", asked)
    for command in ("train", "translate", "doctor", "compare"):
        assert run([command, "--help"]) == 0
        said = " ".join("".join(" " if sign in "│\n" else sign for sign in capsys.readouterr().out).split())
        assert "(default: all GPUs there are, else the CPU)" in said


def test_a_run_tells_first_where_it_computes_and_why(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], gpus
) -> None:
    gpus(0)
    words = typed(tmp_path / "run", workers=1, stop_after=1)
    assert run(["train", str(small_data), *words, "--no-valid-translate"]) == 0
    assert "1 worker on cpu (no GPU found)" in capsys.readouterr().err.splitlines()[0]
    assert run(["train", str(small_data), *words, "--dry-run"]) == 0
    assert re.search(r"workers +1 on cpu \(no GPU found\), 1 thread each", capsys.readouterr().out)


def test_a_run_goes_on_where_the_machine_has_other_devices(small_data: Path, tmp_path: Path, gpus) -> None:
    """As many workers as before, dealt to the devices that are here now."""
    gpus(0)
    run_small(small_data, tmp_path / "run", workers=2, stop_after="1", cluster="simulated")
    assert read_options(tmp_path / "run").devices == "cpu"
    gpus(3)
    assert settled(small_options(tmp_path / "run", workers=None, cluster="simulated")).device_list() == ["cuda:0"] * 2
