"""Whether a planned run fits: limits are real ones, and so is the computing."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import PATIENCE, small_options, until

from nmt_async.doctor.finding import Finding
from nmt_async.doctor.fitting import plan_findings
from nmt_async.doctor.longest import longest_batches
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
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


def own_data() -> int:
    """Bytes of data that this process has."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines["VmData"].split()[0])


def test_batches_that_do_not_fit_are_wrong_and_end_their_child_alone(small_data: Path, tmp_path: Path) -> None:
    options = small_options(tmp_path / "run", workers=1, dim_emb=512, dim_ffn=2**15)
    with limited(resource.RLIMIT_DATA, own_data() + 20 * 2**20):
        found = findings(options, small_data, trial=True)
    for check, advice in (("longest training batch", "--mini-batch-words (now 300)"),
                          ("longest validation batch", "--valid-beam-size (now 4)")):  # fmt: skip
        assert found[check].verdict == "wrong"
        assert "allocate memory" in found[check].found
        assert advice in found[check].advice


@pytest.mark.parametrize("name", ["trial of training", "trial of validation"])
def test_a_child_that_is_killed_is_wrong(small_data: Path, tmp_path: Path, name: str) -> None:
    def kill() -> None:
        children = lambda: [child for child in multiprocessing.active_children() if child.name == name]  # noqa: E731
        until(children, name)
        children()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    found = findings(small_options(tmp_path / "run"), small_data, trial=True)
    killer.join(timeout=PATIENCE)
    wrong = found[name.replace("trial of", "longest") + " batch"]
    assert wrong.verdict == "wrong"
    assert "killed by signal 9; out of memory?" in wrong.found


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
