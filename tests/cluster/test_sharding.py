"""Where vectors are cut for several devices, and the memory that is shared in parts."""

from __future__ import annotations

import os
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nmt_async.cluster.memory import Memory
from nmt_async.cluster.sharding import even_ends, owners, sentence, shards_of
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.child import Child
from nmt_async.process.sharded_tensor import Shard, ShardedTensor
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.training.options import TrainOptions

CPU = torch.device("cpu")
PATIENCE = 120.0


def test_vectors_are_owned_by_all_gpus_of_the_workers_or_by_the_first_worker_s_device() -> None:
    assert owners(["cuda:1", "cuda:0", "cuda:1"]) == [torch.device("cuda:1"), torch.device("cuda:0")]
    assert owners(["cpu", "cuda:0", "cuda:3"]) == [torch.device("cuda:0"), torch.device("cuda:3")]
    for devices in (["cuda:2", "cuda:2"], ["cuda:2", "cpu"]):
        assert owners(devices) == [torch.device("cuda:2")]
    assert owners(["cpu", "cuda:0"]) == owners(["cpu", "cpu"]) == [CPU]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(1, 5))
def test_parts_are_as_even_as_any(sizes: list[int], wanted: int) -> None:
    bounds = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
    parts = min(wanted, len(sizes))
    squares = [
        sum((end - begin) ** 2 for begin, end in pairwise((0, *inner, bounds[-1])))
        for inner in combinations(bounds[1:-1], parts - 1)
    ]
    ends = even_ends(bounds, parts)
    assert set(ends) <= set(bounds)
    assert sum((end - begin) ** 2 for begin, end in pairwise((0, *ends))) == min(squares)


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
def test_a_transformer_is_cut_between_parameters_and_nearly_evenly(devices: int) -> None:
    layout = FlatLayout(build_model(TrainOptions(preset="tiny").configuration(500, 500, True), 1))
    shards = shards_of(layout, [torch.device("cuda", number) for number in range(devices)])
    assert [str(shard.device) for shard in shards] == [f"cuda:{number}" for number in range(devices)]
    assert shards[0].begin == 0
    assert shards[-1].end == layout.size
    assert all(one.end == other.begin for one, other in pairwise(shards))
    assert {shard.begin for shard in shards} <= {place.begin for place in layout.places}
    stretches = [(place.begin, place.end) for place in layout.places]
    stretches += [(begin, begin + rows * columns) for begin, rows, columns, _ in layout.hidden()]
    for begin, end in stretches:
        assert sum(shard.begin <= begin and end <= shard.end for shard in shards) == 1, "it is whole on one device"
    largest = max(place.end - place.begin for place in layout.places)
    assert max(shard.size for shard in shards) < layout.size / devices + largest


def test_it_is_said_how_vectors_are_cut() -> None:
    shards = [Shard(torch.device("cuda:0"), 0, 30), Shard(torch.device("cuda:1"), 30, 80)]
    told = "parameters, pushes and optimizer lie in parts on several devices: 38% on cuda:0, 62% on cuda:1."
    assert sentence(shards) == told
    assert sentence(shards[:1]) == ""


def test_there_are_no_more_parts_than_parameters() -> None:
    layout = FlatLayout(nn.Linear(8, 3))
    assert shards_of(layout, [CPU] * 5) == [Shard(CPU, 0, 32), Shard(CPU, 32, 48)]


PUSHES = {"whole": WHOLE, "bfloat16": PushSettings("bfloat16"), "dropped": PushSettings(drop=0.5)}


def write(memory: Memory, pipe) -> None:
    """Adds 1 to what stands in the first row of the ring, and puts it into the slot, and 2 into the residual."""
    memory.streams.follow(0)
    row = memory.ring.tensor[0].add_(1.0)
    if memory.form.most is None:
        memory.slots.tensor[0].copy_(row.cpu())
    if memory.residual_rows is not None:
        memory.residual_rows[1].fill_(2.0)
    memory.streams.finish()
    pipe.send([type(each).__name__ for each in (memory.ring.tensor, memory.slots.tensor)])


@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_a_child_sees_the_parts_and_writes_them(push: PushSettings) -> None:
    memory = Memory(2, 48, push, [Shard(CPU, 0, 32), Shard(CPU, 32, 48)])
    try:
        values = torch.arange(48.0)
        memory.ring.tensor[0].copy_(values)
        child = Child("writing", write, (memory,), 1)
        try:
            assert child.pipe.poll(PATIENCE)
            assert child.pipe.recv() == ["ShardedTensor", "Tensor" if push.drop else "ShardedTensor"]
        finally:
            child.close()
        assert torch.equal(memory.ring.tensor[0].cpu(), values + 1.0)
        if not push.drop:
            assert torch.equal(memory.slots.tensor[0].cpu().float(), values + 1.0)
        if memory.residual_rows is not None:
            assert isinstance(memory.residual_rows, ShardedTensor)
            assert memory.residual_rows.cpu()[:2].tolist() == [[0.0] * 48, [2.0] * 48]
    finally:
        memory.close()


def shared_files() -> int:
    return sum("memfd:nmt-async" in os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_nothing_is_kept_where_one_device_gives_no_memory() -> None:
    before = shared_files()
    nowhere = Shard(torch.device("xpu", 0), 32, 48)
    with pytest.raises((RuntimeError, AssertionError)):
        Memory(2, 48, PushSettings("bfloat16"), [Shard(CPU, 0, 32), nowhere])
    assert shared_files() == before
