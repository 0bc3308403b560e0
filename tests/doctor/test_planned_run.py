"""Whether a planned run fits: limits are real ones, and so is the computing."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import PATIENCE, children_named, kill_child, small_options, until

from nmt_async.doctor.finding import Finding
from nmt_async.doctor.plan import plan_findings
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.activation_memory import longest_batches
from nmt_async.training.options import TrainOptions
from nmt_async.training.run_folder import settled


@contextlib.contextmanager
def limited(which: int, amount: int) -> Iterator[None]:
    """A limit for this process and the children that it starts meanwhile."""
    before = resource.getrlimit(which)
    resource.setrlimit(which, (amount, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(which, before)


def findings(options: TrainOptions, data: Path, trial: bool = False) -> dict[str, Finding]:
    return {finding.check: finding for finding in plan_findings(settled(options), PreparedData.open(data), trial)}


def test_a_small_run_fits(small_data: Path, tmp_path: Path) -> None:
    found = findings(small_options(tmp_path / "run", valid_translate=True), small_data, trial=True)
    assert list(found) == [
        "disk", "shared memory", "longest training batch", "longest validation batch", "memory",
    ]  # fmt: skip
    assert {finding.verdict for finding in found.values()} == {"fine"}
    assert not (tmp_path / "run").exists()


def test_a_disk_without_room_for_the_checkpoints_is_wrong(small_data: Path, tmp_path: Path) -> None:
    wrong = findings(small_options(tmp_path / "run", keep_last=10**9), small_data)["disk"]
    assert wrong.verdict == "wrong"
    assert "needed for checkpoints" in wrong.found
    assert "fewer --keep-last" in wrong.advice


def test_a_place_that_cannot_be_written_is_wrong(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = findings(small_options(tmp_path / "file" / "run"), small_data)["disk"]
    assert wrong.verdict == "wrong"
    assert "cannot be written (not a directory)" in wrong.found


def test_shared_memory_beyond_a_limit_is_wrong(small_data: Path, tmp_path: Path) -> None:
    with limited(resource.RLIMIT_FSIZE, 10_000):
        wrong = findings(small_options(tmp_path / "run"), small_data)["shared memory"]
    assert wrong.verdict == "wrong"
    assert "cannot be had (file too large)" in wrong.found


def test_a_model_beyond_the_machine_is_wrong_and_is_not_tried(small_data: Path, tmp_path: Path) -> None:
    found = findings(small_options(tmp_path / "run", dim_emb=2**16, dim_ffn=2**20), small_data, trial=True)
    assert found["memory"].verdict == "wrong"
    assert "longest training batch" not in found


def within(limit: int, data: Path, run: Path) -> None:
    """Prints what does not fit into ``limit`` bytes of data for each process; called in one of its own."""
    options = small_options(run, workers=1, dim_emb=512, dim_ffn=2**15)
    with limited(resource.RLIMIT_DATA, limit):
        found = findings(options, data, trial=True)
    print(json.dumps({check: [finding.found, finding.advice] for check, finding in found.items()
                      if finding.verdict == "wrong"}))  # fmt: skip


def test_batches_that_do_not_fit_are_wrong_and_end_their_child_alone(small_data: Path, tmp_path: Path) -> None:
    # A process that has loaded torch has 200 MB of data; the model's parameters are 270 MB.
    code = "import sys, pathlib, test_planned_run as t; t.within(420_000_000, *map(pathlib.Path, sys.argv[1:]))"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_data), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wrong = json.loads(done.stdout)
    assert list(wrong) == ["longest training batch", "longest validation batch"]
    for found, _ in wrong.values():
        assert "allocate memory" in found
    assert "--mini-batch-words (now 300)" in wrong["longest training batch"][1]
    assert "--valid-beam-size (now 4)" in wrong["longest validation batch"][1]


@pytest.mark.parametrize(
    ("check", "before"),
    [("longest training batch", "shared memory"), ("longest validation batch", "longest training batch")],
)
def test_a_child_that_is_killed_is_wrong(small_data: Path, tmp_path: Path, check: str, before: str) -> None:
    name = check.replace("longest", "trial of").removesuffix(" batch")

    def kill() -> None:
        until(lambda: children_named(name), name)
        kill_child(name)

    killer = threading.Thread(target=kill)
    data = PreparedData.open(small_data)
    for finding in plan_findings(settled(small_options(tmp_path / "run")), data, trial=True):
        if finding.check == before:
            killer.start()
        if finding.check == check:
            break
    killer.join(timeout=PATIENCE)
    assert finding.verdict == "wrong"
    assert "killed by signal 9; out of memory?" in finding.found


class Lengths:
    """As much of a store as has lengths."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths)


class Pairs:
    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self.source, self.target = (Lengths([pair[side] for pair in pairs]) for side in (0, 1))


@given(
    pairs=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=60),
    budget=st.integers(1, 200),
    parts=st.integers(1, 3),
)
def test_no_batch_is_longer_than_the_longest(pairs: list[tuple[int, int]], budget: int, parts: int) -> None:
    data = Pairs(pairs)
    plan = BatchPlan(data.source.lengths, data.target.lengths, budget, seed=1, parts=parts).epoch(1)
    longest = longest_batches(plan, data)  # type: ignore[arg-type]

    def tokens(rows: np.ndarray) -> int:
        return len(rows) * int(data.source.lengths[rows].max() + data.target.lengths[rows].max())

    every = [part for number in range(len(plan)) for part in plan.parts(number)]
    assert max(map(tokens, longest)) == max(map(tokens, every))
    assert {tuple(rows) for rows in longest} <= {tuple(rows) for rows in every}
