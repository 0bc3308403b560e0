"""An exchange of vectors that lie on a device."""

from __future__ import annotations

from multiprocessing.connection import wait

import torch
from apart import APART, apart, on_cpu
from torch import Tensor

from nmt_async.machines.exchange import Called, Exchange, Landed
from nmt_async.machines.group import Alone
from nmt_async.sync.between.contribution import Contribution, Wish


class Doubling(Alone):
    """A group of which another machine always brings the same vector."""

    def add(self, vector: Tensor) -> None:
        """As in `Group`; a network takes what is in the CPU's memory."""
        assert type(vector) is Tensor
        vector.mul_(2.0)


def test_a_vector_on_a_device_becomes_the_sum_there() -> None:
    exchange = Exchange(Doubling())
    try:
        with apart():
            brought = torch.zeros(3, device=APART).add_(1.0)
            exchange.call()
            assert isinstance(exchange.take(), Called)
            exchange.begin(Contribution((), 1, (), Wish.GO_ON), brought)
            assert wait([exchange.fileno()], 60)
            landed = exchange.take()
            assert isinstance(landed, Landed)
            assert landed.total is brought
            assert on_cpu(brought).tolist() == [2.0] * 3
    finally:
        exchange.close()
