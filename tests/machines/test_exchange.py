"""An exchange of vectors that lie on a device, or in parts on several."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait

import pytest
import torch
from apart import APART, apart, on_cpu
from torch import Tensor
from torch.distributed import TCPStore

from nmt_async.machines.exchange import Called, Exchange, Landed
from nmt_async.machines.group import Alone
from nmt_async.process.sharded_tensor import ShardedTensor
from nmt_async.sync.between.contribution import Contribution, Wish


class Doubling(Alone):
    """A group of which another machine always brings the same vector."""

    def add(self, vector: Tensor) -> None:
        """As in `Group`; a network takes what is in the CPU's memory."""
        assert type(vector) is Tensor
        vector.mul_(2.0)


def on_a_device() -> Tensor:
    return torch.zeros(3, device=APART)


def in_parts() -> Tensor:
    return ShardedTensor([torch.zeros(2), torch.zeros(1, device=APART)])


@pytest.mark.parametrize("made", [on_a_device, in_parts])
def test_a_vector_elsewhere_becomes_the_sum_there(made: Callable[[], Tensor]) -> None:
    exchange = Exchange(Doubling())
    try:
        with apart():
            brought = made().add_(1.0)
            exchange.call()
            assert isinstance(exchange.take(), Called)
            exchange.begin(Contribution((), 1, (), Wish.GO_ON), brought)
            assert wait([exchange.fileno()], 60)
            landed = exchange.take()
            assert isinstance(landed, Landed)
            assert landed.total is brought
            assert on_cpu(brought).cpu().tolist() == [2.0] * 3
    finally:
        exchange.close()


def test_no_thread_is_left_that_waits_for_a_call() -> None:
    """One that came back from the store while Python ends would abort the process."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    before = set(threading.enumerate())
    exchange = Exchange(Alone(), lambda: TCPStore("127.0.0.1", store.port, wait_for_workers=False))
    own = set(threading.enumerate()) - before
    time.sleep(0.3)  # until it waits
    exchange.close()
    assert own
    assert not any(thread.is_alive() for thread in own)
