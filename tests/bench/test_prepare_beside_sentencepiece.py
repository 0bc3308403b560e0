"""The measurement of prepare, with its real processes and little text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nmt_async.cli.main import run

from nmt_async.bench.options import ENCODER, FIRST_BATCH, PREPARE, PrepareBenchOptions
from nmt_async.bench.preparation import measure_preparation
from nmt_async.errors import RunFailure, UserError


def test_prepare_and_sentencepiece_take_turns_and_then_a_batch_is_read(tmp_path: Path) -> None:
    told: list[int] = []
    options = PrepareBenchOptions(pairs=400, rounds=2, threads=2, temporary=tmp_path)
    turns = measure_preparation(options, told.append)
    assert [turn.contender for turn in turns] == [ENCODER, PREPARE, ENCODER, PREPARE, FIRST_BATCH]
    assert told == [1, 2, 3, 4, 5]
    assert options.turns == 5
    assert all(turn.seconds > 0 and turn.cpu_seconds > 0 and turn.memory > 1 << 20 for turn in turns)
    assert [turn.batch_seconds is None for turn in turns] == [True] * 4 + [False]
    assert list(tmp_path.iterdir()) == []


def test_figures_are_printed_as_a_table_or_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["bench", "prepare", "--pairs", "100", "--rounds", "1"]
    assert run([*typed, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["pairs"] == 100
    own, made = said["turns"][:2]
    assert said["ratios"] == [own["seconds"] / made["seconds"]]
    assert said["cpu_ratios"] == [own["cpu_seconds"] / made["cpu_seconds"]]
    assert run(typed) == 0
    assert {ENCODER, PREPARE, "first"} <= set(capsys.readouterr().out.split())


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rounds: 0 is too small"):
        PrepareBenchOptions(rounds=0)
    with pytest.raises(UserError, match="--temporary: there is no folder"):
        PrepareBenchOptions(temporary=tmp_path / "absent")
    with pytest.raises(UserError, match="--vocab-size 200,000 is more than this text allows"):
        measure_preparation(PrepareBenchOptions(pairs=9, vocab_size=200_000, temporary=tmp_path), [].append)
    with pytest.raises(RunFailure, match="no text can be generated in /proc"):
        measure_preparation(PrepareBenchOptions(pairs=9, temporary=Path("/proc")), [].append)
    assert list(tmp_path.iterdir()) == []
