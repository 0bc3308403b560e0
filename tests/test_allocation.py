"""What a process frees stays with it, so that making the same again asks nothing of the kernel."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from nmt_async.allocation import blocks_apart, keep_freed_memory
from nmt_async.process.child import Child

TIMES, TENSORS, BYTES = 10, 8, 4 * 2**20
PAGES = TENSORS * BYTES // resource.getpagesize()


def pages_of_making_again() -> float:
    """How many of its pages the kernel had to find anew, in the mean of several times, as a share."""

    def make() -> None:
        [torch.ones(BYTES // 4) for _ in range(TENSORS)]

    make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        make()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / TIMES / PAGES


def tell_pages(pipe: Connection) -> None:
    pipe.send(pages_of_making_again())


def tell_pages_apart(pipe: Connection) -> None:
    with blocks_apart():
        pipe.send(pages_of_making_again())


def tell_pages_after(pipe: Connection) -> None:
    with blocks_apart():
        pages_of_making_again()
    pipe.send(pages_of_making_again())


def pages_of_any_process() -> float:
    """The same of a process that nobody told anything."""
    name = Path(__file__).stem
    program, here = f"import {name}; print({name}.pages_of_making_again())", Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=here, timeout=60
    )
    return float(run.stdout)


def tell_kept(pipe: Connection) -> None:
    pipe.send(keep_freed_memory())


def told_by_a_child(body: Callable[[Connection], None]) -> float:
    child = Child("maker", body, (), 1)
    try:
        assert child.pipe.poll(60)
        return float(child.pipe.recv())
    finally:
        child.close()


def test_a_child_makes_tensors_of_what_it_freed() -> None:
    # By chance something may lie behind what is freed, so that it cannot be given back.
    if not any(pages_of_any_process() > 0.9 for _ in range(6)):
        pytest.skip("a process keeps what it frees here without being told")
    assert told_by_a_child(tell_pages) < 0.1


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_what_a_user_tells_the_allocator_stays(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    if not told_by_a_child(tell_kept):
        pytest.skip("this C library has no such settings")
    monkeypatch.setenv(variable, "131072" if variable.endswith("_") else "glibc.malloc.trim_threshold=131072")
    assert not told_by_a_child(tell_kept)


def test_blocks_that_are_made_apart_lie_on_new_pages() -> None:
    if not told_by_a_child(tell_kept):
        pytest.skip("this C library has no such settings, or the user has some of his own")
    assert told_by_a_child(tell_pages_apart) > 0.9
    assert told_by_a_child(tell_pages_after) < 0.1
