"""A worker's process may not have more memory: it computes in pieces from then on, and does not die of it."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from striking import assert_whole, deaths, pid_of, send
from training_runs import events_of, run_small

from nmt_async.sync.journal import Kind

MORE = 4 * 2**20
"""Bytes that the worker may have beyond what it has while it is at nothing."""

LARGE = 3900
"""Target tokens that all batches but the last of an epoch exceed."""


@pytest.fixture(autouse=True)
def gives_memory_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that kept what it freed would have room for all batches after the first, under whatever limit."""
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")


def limit_memory() -> None:
    pid = pid_of(0)
    assert pid is not None
    kilobytes = int(Path(f"/proc/{pid}/status").read_text().partition("VmSize:")[2].split()[0])
    resource.prlimit(pid, resource.RLIMIT_AS, (1024 * kilobytes + MORE, resource.RLIM_INFINITY))


def test_a_process_without_memory_computes_in_pieces_and_its_replacement_from_the_start(
    training_data: Path, tmp_path: Path
) -> None:
    limited, killed = 2, 7
    acts = {limited: limit_memory, killed: lambda: send(0, signal.SIGKILL)}
    witness = run_small(
        training_data, tmp_path / "run", acts, workers=1, accumulate=1, mini_batch_words=4000, stop_after="4e",
        kernels="torch",
    )  # fmt: skip
    assert_whole(tmp_path / "run", training_data, 4)
    assert len(deaths(witness)) == 1
    told = [warning for warning in witness.warnings if warning not in deaths(witness) and "tried again" not in warning]
    assert told
    assert all(warning.startswith("worker 0 did not have enough memory for a batch of 3,") for warning in told)
    pushes = [event for event in events_of(tmp_path / "run") if event.kind is Kind.ACCUMULATED]
    assert {push.pieces for push in pushes[:limited]} == {1}
    for stretch in (pushes[limited:killed], pushes[killed:]):
        large = [push.pieces for push in stretch if push.tokens > LARGE]
        assert large
        assert min(large) > 1


def test_a_process_that_dies_where_memory_ends_loses_no_batch(training_data: Path, tmp_path: Path) -> None:
    """oneDNN makes code for each shape of a product, and may end the process where there is no memory for it."""
    witness = run_small(
        training_data, tmp_path / "run", {2: limit_memory}, workers=1, accumulate=1, mini_batch_words=4000,
        stop_after="3e", kernels="fused",
    )  # fmt: skip
    assert_whole(tmp_path / "run", training_data, 3)
    assert len(deaths(witness)) <= 1
