"""Memory that processes share, on the CPU and on a device: who sees it, in which order, and what becomes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from on_devices import EACH_DEVICE, needs

from nmt_async.process.child import Child
from nmt_async.process.shared_memory import DeviceVectors, Vectors, shared_vectors
from nmt_async.process.streams import Streams, streams_on

PATIENCE = 120.0
ROWS, SIZE = 3, 1 << 20
MANY = 50


def heard(child: Child) -> object:
    assert child.pipe.poll(PATIENCE)
    return child.pipe.recv()


def add_one(vectors: Vectors, streams: Streams, number: int, pipe) -> None:
    """Adds 1 to its row each time it is told to, and says what then stands at the end of the row above."""
    if vectors.tensor.is_cuda:
        torch.cuda.set_device(vectors.tensor.device)
    pipe.send("ready")
    while pipe.recv():
        streams.follow(number)
        vectors.tensor[number].copy_(vectors.tensor[-1]).add_(1.0)
        streams.finish()
        pipe.send(None)


@pytest.fixture(params=EACH_DEVICE)
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[Vectors, Streams]]:
    device = torch.device(request.param)
    vectors = shared_vectors(ROWS, SIZE, torch.float32, device)
    yield vectors, streams_on([device], ROWS - 1)
    vectors.close()


def test_what_one_process_has_queued_comes_before_what_the_next_one_does(shared: tuple[Vectors, Streams]) -> None:
    """The parent writes the last row, slowly, and each child copies it to its own: none may be early."""
    vectors, streams = shared
    children = [Child(f"adding {number}", add_one, (vectors, streams, number), 1) for number in range(ROWS - 1)]
    try:
        for child in children:
            assert heard(child) == "ready"
        for turn in range(MANY):
            last = vectors.tensor[-1]
            for _ in range(20):  # on a GPU the host is ahead of this by far
                last.add_(1.0)
            for number, child in enumerate(children):
                streams.hand_over(number)
                child.pipe.send(True)
            for child in children:
                assert heard(child) is None
            for number in range(ROWS - 1):
                row = vectors.tensor[number]
                expected = 20.0 * (turn + 1) + 1.0
                assert (float(row.min()), float(row.max())) == (expected, expected)
    finally:
        for child in children:
            child.close()


def test_a_killed_child_takes_nothing_with_it(shared: tuple[Vectors, Streams]) -> None:
    vectors, streams = shared
    vectors.tensor.fill_(5.0)
    for _ in range(2):  # the second one takes the place of the first
        child = Child("to be killed", add_one, (vectors, streams, 0), 1)
        try:
            assert heard(child) == "ready"
            streams.hand_over(0)
            child.pipe.send(True)
            assert heard(child) is None
            os.kill(child.pid, signal.SIGKILL)
        finally:
            child.close()
    assert vectors.tensor[:, -1].tolist() == [6.0, 5.0, 5.0]


def describe(vectors: Vectors, pipe) -> None:
    tensor = vectors.tensor
    pipe.send((str(tensor.device), tuple(tensor.shape), tensor.dtype))


def test_a_device_s_memory_is_handed_over_once_for_all_children() -> None:
    """Torch's device without memory goes the way that CUDA's goes, but for CUDA itself."""
    vectors = DeviceVectors(2, 5, torch.bfloat16, torch.device("meta"))
    for _ in range(2):
        child = Child("asked", describe, (vectors,), 1)
        try:
            assert heard(child) == ("meta", (2, 5), torch.bfloat16)
        finally:
            child.close()
    vectors.close()
    vectors.close()


@pytest.mark.parametrize("device", [pytest.param("cuda:0", marks=needs(1))])
def test_memory_that_killed_children_had_opened_is_given_back(device: str) -> None:
    before = torch.cuda.memory_allocated(device)
    place = torch.device(device)
    vectors, streams = shared_vectors(ROWS, SIZE, torch.float32, place), streams_on([place], 1)
    child = Child("to be killed", add_one, (vectors, streams, 0), 1)
    assert heard(child) == "ready"
    child.close()
    vectors.close()
    assert torch.cuda.memory_allocated(device) > before
    del vectors
    assert torch.cuda.memory_allocated(device) == before


@pytest.mark.parametrize("device", [pytest.param("cuda:0", marks=needs(1))])
def test_expandable_segments_are_no_hindrance(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch._C._accelerator_setAllocatorSettings("expandable_segments:True")
    place = torch.device(device)
    vectors, streams = shared_vectors(ROWS, 64 << 20, torch.float32, place), streams_on([place], 1)
    child = Child("opening", add_one, (vectors, streams, 0), 1)
    try:
        assert heard(child) == "ready"
    finally:
        child.close()
        vectors.close()


@pytest.mark.parametrize("device", [pytest.param("cuda:0", marks=needs(1))])
def test_nothing_but_torch_s_own_counter_is_in_shm_meanwhile(device: str) -> None:
    before = set(Path("/dev/shm").iterdir())
    vectors = shared_vectors(1, SIZE, torch.float32, torch.device(device))
    new = set(Path("/dev/shm").iterdir()) - before
    vectors.close()
    assert sum(path.stat().st_size for path in new) < 200_000
