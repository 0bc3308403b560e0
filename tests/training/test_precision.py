"""Runs whose workers multiply matrices in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nmt_async.cli.main import run as command
from training_runs import run_small, saved_state

from nmt_async.errors import UserError
from nmt_async.model.kernels import not_in_bfloat16
from nmt_async.reading import read_json_lines
from nmt_async.training.journal_file import read_sittings
from nmt_async.training.trainer import train

NO_BFLOAT16 = not_in_bfloat16(torch.device("cpu"))
pytestmark = pytest.mark.numeric
in_bfloat16 = pytest.mark.skipif(NO_BFLOAT16 is not None, reason=f"no bfloat16 here: {NO_BFLOAT16}")


@in_bfloat16
@pytest.mark.parametrize("kernels", ["fused", "torch"])
def test_a_run_changes_its_precision_and_is_replayed_bit_for_bit(
    small_data: Path, tmp_path: Path, kernels: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"workers": 2, "accumulate": 2, "save_freq": "4", "kernels": kernels, "cpu_threads": 1}
    run_small(small_data, tmp_path / "run", **settings, precision="bfloat16", stop_after="4")
    run_small(small_data, tmp_path / "run", **settings, stop_after="8")
    sittings = read_sittings(tmp_path / "run")
    assert [(sitting.kernels, sitting.precision) for sitting in sittings] == [
        (kernels, "bfloat16"), (kernels, "float32"),
    ]  # fmt: skip
    assert {tensor.dtype for name, tensor in saved_state(tmp_path / "run").items() if "moment" in name} == {
        torch.float32
    }
    for until in ("4", "8"):
        assert command(["replay", str(tmp_path / "run"), "--until", until]) == 0, capsys.readouterr().out


@in_bfloat16
def test_it_computes_other_numbers_than_float32(small_data: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        run_small(small_data, out, workers=1, accumulate=1, stop_after="1", disp_freq="1", precision=precision)
        losses[precision] = read_json_lines(out / "metrics.jsonl")[0]["loss"]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2.0**-8)


def test_a_processor_without_it_is_named_before_anything_is_written(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    sentence = r"--precision bfloat16: this processor has no instructions for it \(AVX512-BF16 or AMX\); leave it out\."
    with pytest.raises(UserError, match=sentence):
        train(small_data, out=tmp_path / "run", precision="bfloat16")
    assert not (tmp_path / "run").exists()


@in_bfloat16
def test_what_is_never_trained_in_it_is_refused(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for further in ([], ["--dry-run"]):
        out = ["--out", str(tmp_path / "run")]
        words = ["train", str(small_data), *out, "--model", "rnn", "--precision", "bfloat16", *further]
        assert command(words) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        assert "--precision bfloat16: only Transformers are trained in it; leave it out." in text
    assert not (tmp_path / "run").exists()
