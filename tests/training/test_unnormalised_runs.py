"""Runs of Transformers without layer normalisation that begin without warm-up, and the commands on what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nmt_async.cli.main import run as command
from training_runs import assert_same_state, replayed, run_small, saved_state, small_options

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.quantity import Quantity
from nmt_async.reading import read_json_lines
from nmt_async.sync.schedule import Progress
from nmt_async.training.run_folder import read_options

BARE: dict[str, Any] = {
    "norm": "none", "enc_depth": 3, "dec_depth": 3, "learn_rate": 0.01, "lr_warmup": "0",
    "lr_decay_start": Quantity(20, "updates"),
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "sync": {"sync_mode": "sync", "accumulate": 2},
    "async": {"sync_mode": "async"},
    "hybrid": {"sync_mode": "hybrid", "accumulate": 3},
    "hybrid adam": {"sync_mode": "hybrid", "accumulate": 3, "optimizer": "adam"},
}
VIRTUAL: dict[str, Any] = {"cluster": "simulated", "profile": "uneven"}


@pytest.mark.parametrize("mode", MODES)
def test_it_learns_without_warm_up_in_every_mode_and_replays(small_data: Path, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "run"
    assert run_small(small_data, out, stop_after="16", valid_freq="4", **BARE, **MODES[mode]).warnings == []
    found = [line["cross_entropy"] for line in read_json_lines(out / "metrics.jsonl") if line["kind"] == "valid"]
    assert found[-1] < found[0]
    assert torch.equal(replayed(out, small_data), saved_state(out)["parameters"])


def test_a_run_begins_with_what_init_names(small_data: Path, tmp_path: Path) -> None:
    for init in (None, "t-fixup", "glorot"):
        out = tmp_path / str(init)
        run_small(small_data, out, init=init, seed=5, stop_after="1", **{**BARE, **VIRTUAL, "learn_rate": 1e-30})
        loaded = load_model(out)
        expected = build_model(loaded.configuration, 5, init or "t-fixup")
        layout = FlatLayout(expected)
        # Zero moves by the rate, and nothing else moves.
        torch.testing.assert_close(layout.gather(loaded.model), layout.gather(expected), rtol=0, atol=1e-29)


def test_a_run_that_goes_on_is_bit_equal_to_one_that_did_not_stop(small_data: Path, tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    settings = {**BARE, **VIRTUAL, **MODES["sync"]}
    run_small(small_data, straight, stop_after="6", **settings)
    run_small(small_data, broken, stop_after="3", **settings)
    run_small(small_data, broken, stop_after="6", **settings)
    assert_same_state(straight, broken)
    assert command(["replay", str(broken)]) == 0
    assert read_options(broken).lr_decay == "inv-sqrt", "its start is not forgotten"
    with pytest.raises(UserError, match="--init"):
        run_small(small_data, broken, stop_after="9", init="glorot", **settings)


@pytest.fixture(scope="module")
def begun(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    run_small(small_data, folder, stop_after="60", save_freq="30", keep_last=2, **BARE, **VIRTUAL)
    return folder


def test_its_model_is_averaged_translated_with_and_scored(
    begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean, source, checkpoints = tmp_path / "mean", tmp_path / "source", sorted((begun / "checkpoints").glob("step-*"))
    assert command(["average", *map(str, checkpoints), "--out", str(mean)]) == 0
    assert load_model(mean).configuration == load_model(begun).configuration
    source.write_text("The dog sleeps.\nA cat sees the old house.\n")
    capsys.readouterr()
    for others in (["--precision", "float32"], ["--precision", "int8"], ["--beam-size", "1"], ["--engine", "auto"]):
        assert command(["translate", str(mean), "-i", str(source), *others]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
    assert command(["score", str(mean), "--source", str(source), "--target", str(source)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_run_that_begins_with_its_model_has_no_norms_and_needs_no_init(
    begun: Path, small_data: Path, tmp_path: Path
) -> None:
    unsaid = dict.fromkeys(("dim_emb", "heads", "dim_ffn", "enc_depth", "dec_depth"))
    run_small(small_data, tmp_path / "run", init_from=begun, learn_rate=1e-30, stop_after="1", **unsaid, **VIRTUAL)
    before, after = load_model(begun), load_model(tmp_path / "run")
    assert after.configuration == before.configuration
    layout = FlatLayout(before.model)
    assert torch.equal(layout.gather(before.model), layout.gather(after.model))


@pytest.mark.parametrize(("words", "message"), [
    ("--norm none --decoder-autoreg ssru", "--norm none does not go with --decoder-autoreg ssru"),
    ("--norm post --init t-fixup", "--init t-fixup is for models without layer normalisation, and --norm is post"),
    ("--init t-fixup", "and --norm is pre; give --norm none"),
    ("--init t-fixup --init-from RUN", "--init means nothing with --init-from; leave it out"),
    ("--init orthogonal", "--init: 'orthogonal' is not known; choose one of glorot, t-fixup."),
    ("--lr-decay-start 0", "--lr-decay-start: 0 is nowhere to fall from"),
    ("--lr-decay linear --lr-decay-start 9", "--lr-decay-start means nothing with --lr-decay linear"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_sentence(
    begun: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    typed = [str(begun) if word == "RUN" else word for word in words.split()]
    out = tmp_path / "run"
    assert command(["train", str(small_data), "--out", str(out), "--stop-after", "9", *typed]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_no_warm_up_needs_a_start_of_the_decay_or_another_decay(tmp_path: Path) -> None:
    for fitting in ({"lr_decay_start": Quantity(9, "updates")}, {"lr_decay": "none"}, {"lr_decay": "linear"}):
        options = small_options(tmp_path, lr_warmup="0", stop_after="99", **fitting)
        assert options.schedule(options.stop_after).rate(Progress(1)) == pytest.approx(options.learn_rate, rel=0.02)
    with pytest.raises(
        UserError, match=r"--lr-warmup 0 does not fit --lr-decay inv-sqrt, .* say with --lr-decay-start"
    ):
        small_options(tmp_path, lr_warmup="0")
