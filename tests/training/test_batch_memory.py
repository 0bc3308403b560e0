"""Batches of as many pairs as have room in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nmt_async.cli.main import run as command
from training_runs import assert_same_state, replayed, run_small, saved_state, small_options, typed

from nmt_async.checkpoints.model_folder import layout_of
from nmt_async.errors import UserError
from nmt_async.model.build import build_unfilled
from nmt_async.model.kernels import Arithmetic
from nmt_async.study.setting import named
from nmt_async.text.plan import BatchPlan, BatchRoom
from nmt_async.text.prepared import PreparedData
from nmt_async.training.activation_memory import activation_bytes, batch_room
from nmt_async.training.batch_memory import with_fitted_batches
from nmt_async.training.options import FITTED, TrainOptions, amount_of_memory
from nmt_async.training.parts import model_configuration, training_plan
from nmt_async.training.run_folder import read_options, settled
from nmt_async.training.stated_memory import VECTOR_BYTES, bytes_by_device, vectors_of

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=200)
OF_PAIR = st.tuples(*(st.integers(0, 50) for _ in range(6)))


@given(LENGTHS, OF_PAIR, st.integers(1, 40_000), st.integers(1, 3))
def test_batches_hold_as_many_as_have_room(
    lengths: list[tuple[int, int]], of_pair: tuple[int, int, int, int, int, int], most: int, window: int
) -> None:
    room = BatchRoom(most, of_pair)
    source, target = (np.array(side) for side in zip(*lengths, strict=True))
    plan = BatchPlan(source, target, room, seed=3, window=window * 100).epoch(1)
    batches = [plan[number] for number in range(len(plan))]
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = np.array([source[batch].max()]), np.array([target[batch].max()])
        assert len(batch) == 1 or len(batch) * int(room.bytes(*longest)[0]) <= most


def test_a_batch_ends_only_where_the_next_pair_has_no_room() -> None:
    room = BatchRoom(100, (0, 1, 1, 0, 0, 0))
    source, target = np.array([2, 3, 5, 5, 20, 60]), np.array([3, 3, 5, 5, 20, 60])
    assert room.pairs(source, target) == 4  # five would take 5 x 40
    assert room.pairs(source[4:], target[4:]) == 1  # two would take 2 x 120
    assert room.pairs(source[5:], target[5:]) == 1  # too large, and by itself


def test_on_gpus_room_is_left_for_the_part_of_each_and_for_its_workers(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PreparedData.open(small_data)
    options = settled(small_options(tmp_path / "run", workers=3, mini_batch_words=2048))
    monkeypatch.setattr(TrainOptions, "device_list", lambda _self: ["cuda:0", "cuda:1", "cuda:1"])
    layout = layout_of(model_configuration(options, data))
    need = vectors_of(options, layout, validation=True)
    owned, gradients = bytes_by_device(need, options, layout), VECTOR_BYTES * layout.size * need.gradients
    free = {"cuda:0": 700 << 20, "cuda:1": 1000 << 20}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[str(device)], 0))
    fitted = with_fitted_batches(replace(options, batch_memory=FITTED), data, lambda _: None)
    left = (free["cuda:1"] - owned["cuda:1"]) / 2 - gradients  # it has more, but two workers
    assert fitted.batch_memory == int(0.7 * left) >> 20


@pytest.mark.parametrize("kernels", ["fused", "torch"])
@pytest.mark.parametrize("changes", [{}, {"decoder_autoreg": "ssru"}, {"model": "rnn", "dim_rnn": 24}])
def test_the_room_is_what_activations_take(
    small_data: Path, tmp_path: Path, changes: dict[str, Any], kernels: str
) -> None:
    options = small_options(tmp_path, **changes) if "model" not in changes else None
    if options is None:
        options = small_options(tmp_path, **changes, heads=None, dim_ffn=None)
    configuration = model_configuration(options, PreparedData.open(small_data))
    arithmetic = Arithmetic(kernels)
    room = batch_room(configuration, arithmetic, 10**9)
    assert room is not None
    model = build_unfilled(configuration).train()
    for rows, lengths in ((2, (20, 24)), (7, (40, 12)), (30, (9, 9))):
        stated = activation_bytes(model, arithmetic, rows, lengths)
        found = rows * int(room.bytes(*(np.array([length]) for length in lengths))[0])
        rest = 10**9 - room.most  # what a batch of any size takes
        assert found + rest == pytest.approx(stated, rel=0.05, abs=2 * rest)
        assert stated <= 1.02 * (found + rest)  # a batch that has room takes no more


def test_a_run_with_them_is_resumed_and_replayed(small_data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"mini_batch_words": 2048, "batch_memory": 3, "workers": 1, "save_freq": "3"}
    run_small(small_data, tmp_path / "whole", **settings, stop_after="8")
    run_small(small_data, tmp_path / "parts", **settings, stop_after="5")
    run_small(small_data, tmp_path / "parts", **settings, stop_after="8")
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert bool((replayed(tmp_path / "whole", small_data) == saved_state(tmp_path / "whole")["parameters"]).all())
    plan = training_plan(read_options(tmp_path / "whole"), PreparedData.open(small_data))
    assert isinstance(plan.budget, BatchRoom)
    rows = {len(plan.epoch(1)[number]) for number in range(len(plan.epoch(1)))}
    assert len(rows) > 3  # more where they are short


def test_other_arithmetic_would_make_other_batches(small_data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"mini_batch_words": 2048, "batch_memory": 4, "kernels": "fused"}
    run_small(small_data, tmp_path / "run", **settings, stop_after="2")
    sentence = "batches depend on what workers compute with; give --kernels fused --precision float32 to go on"
    with pytest.raises(UserError, match=sentence):
        run_small(small_data, tmp_path / "run", **{**settings, "kernels": "torch"}, stop_after="4")
    run_small(small_data, tmp_path / "run", **{**settings, "kernels": "auto"}, stop_after="4")


def test_auto_takes_what_is_free_once(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, said = PreparedData.open(small_data), list[str]()
    options = replace(small_options(tmp_path / "run", workers=2), batch_memory=FITTED, mini_batch_words=2048)
    monkeypatch.setattr("nmt_async.training.batch_memory.available_memory", lambda: 2 << 30)
    fitted = with_fitted_batches(options, data, said.append).batch_memory
    assert fitted is not None
    assert 0.6 * 1024 * 0.7 < fitted < 1024 * 0.7
    assert said == [f"--batch-memory auto: {fitted} MiB for the batches of each worker."]
    monkeypatch.setattr("nmt_async.training.batch_memory.available_memory", lambda: 1 << 20)
    with pytest.raises(UserError, match="nothing is left beside the parameters"):
        with_fitted_batches(options, data, said.append)
    run_small(small_data, tmp_path / "run", mini_batch_words=2048, batch_memory=5, stop_after="1")
    assert with_fitted_batches(options, data, said.append).batch_memory == 5
    assert len(said) == 1


@pytest.mark.parametrize(
    ("text", "expected"), [("900", 900), ("900MB", 900), ("2GB", 2048), ("2 GiB", 2048), ("3G", 3072)]
)
def test_amounts(text: str, expected: int) -> None:
    assert amount_of_memory(text) == expected
    assert amount_of_memory(str(amount_of_memory(text))) == expected
    assert amount_of_memory("auto") is FITTED


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--batch-memory", "much"], "--batch-memory: 'much' is no amount of memory; give auto, or MiB"),
        (["--batch-memory", "0"], "--batch-memory: '0' is no amount of memory"),
        (["--batch-memory", "1"], "--batch-memory 1: not one pair has room in so many MiB; give more."),
        (["--batch-memory", "9", "--mini-batch-words", "300"], "--mini-batch-words means nothing"),
        (["--batch-memory", "9", "--nodes", "2", "--cluster", "simulated"], "--batch-memory means nothing"),
        (["--batch-memory", "auto", "--workers", "auto"], "depend on each other; give one of them a number"),
    ],
)
def test_mistakes(
    small_data: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = typed(tmp_path / "run", mini_batch_words=2048, dim_ffn=2**15 if "1" in words else 32)
    assert command(["train", str(small_data), *arguments, *words]) == 2
    text = capsys.readouterr().err
    assert sentence in text
    assert text.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_runs_of_a_study_have_an_amount() -> None:
    with pytest.raises(UserError, match="batch-memory auto may be another amount in each run; give an amount"):
        named({"batch-memory": "auto"}, "study.yaml")
