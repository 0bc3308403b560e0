"""Servers with each optimizer, rule, correction and kind of push, that two workers push to in turns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from apart import on_cpu
from torch import Tensor, nn

from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.model.quantization_options import Quantization
from nmt_async.process.sharded_tensor import ShardedTensor
from nmt_async.quantity import Quantity
from nmt_async.sync import (
    Asynchronous,
    CorrectionSettings,
    Hybrid,
    OptimizerSettings,
    ParameterServer,
    Push,
    Rule,
    Schedule,
    Synchronous,
    build_corrections,
)
from nmt_async.sync.compression.dropping import largest
from nmt_async.sync.compression.error_feedback import compress
from nmt_async.sync.compression.message import Slot, Slots, form_of
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.optimizers.settings import OPTIMIZERS
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.text.plan import BatchId

WORKERS = 2
MATRICES = (Matrix(16, 8, 8), Matrix(80, 4, 12), Matrix(128, 12, 4))
SIZE = 176
CUTS = {1: (0, SIZE), 2: (0, 80, SIZE), 3: (0, 80, 128, SIZE)}
"""Where it is cut for so many devices: between matrices, or in the middle of what is none."""
SCHEDULE = Schedule(0.1, Quantity(4, "updates"))


@dataclass(frozen=True)
class Case:
    """A server's settings."""

    optimizer: OptimizerSettings = OptimizerSettings(smoothing=0.1, clip_norm=0.5)
    corrections: CorrectionSettings = CorrectionSettings()
    rule: Rule = Hybrid(2)
    push: PushSettings = WHOLE


def gradient(number: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(number))


def zeros(rows: int, *places: torch.device) -> Tensor:
    """(rows, SIZE), in as many parts as there are places."""
    cuts = pairwise(CUTS[len(places)])
    parts = [torch.zeros(rows, end - begin, device=place) for place, (begin, end) in zip(places, cuts, strict=True)]
    return parts[0] if len(parts) == 1 else ShardedTensor(parts)


def a_half(vector: Tensor) -> Tensor:
    """The places of the larger half of the numbers, about."""
    return largest(vector, 0.5, SIZE, torch.Generator().manual_seed(1))


def quantised(vector: Tensor) -> None:
    layout = FlatLayout(nn.Sequential(*(nn.Linear(16, rows, bias=False) for rows in (5, 3, 3))))  # of `SIZE`
    for scheme in ("linear", "log"):
        quantise_vector(vector, layout, Quantization(4, scheme), vector, 1)


class Driven:
    """A server that two workers push to in turns, the first of which pulls only every other time.

    Args:
        places: the devices on which its vectors lie: in parts, cut at `CUTS`, where there are several.
    """

    def __init__(self, case: Case, *places: torch.device) -> None:
        self.case = case
        buffers = zeros(WORKERS + 1, *places)
        buffers[0].copy_(gradient(99))
        residuals = zeros(2 * WORKERS, *places) if case.push.compressed else None
        quantise = quantised if case.corrections.quantized else None
        built = build_corrections(case.corrections, case.optimizer, buffers[0], WORKERS, 1.0, quantise)
        self.server = ParameterServer(buffers, case.rule, SCHEDULE, case.optimizer, MATRICES, built, residuals)
        whole = case.push.drop or len(places) == 1  # numbers of some places lie on the first device
        self.slots = Slots.of(form_of(case.push, SIZE), WORKERS, zeros(1, places[0]) if whole else buffers)
        self.at: dict[int, Push] = {}
        self.entries = 0

    def begin(self, worker: int, number: int) -> None:
        self.server.pull(worker)
        self.at[worker] = Push(worker, BatchId(1, number), self.server.version, tokens=number + 1, gradient_norm=1.0)

    def begin_all(self, number: int) -> None:
        for worker in range(WORKERS):
            if worker not in self.at:
                self.begin(worker, 2 * number + worker)

    def turn(self, number: int) -> tuple[int, ...]:
        return (1, 0) if number % 2 else (1,)

    def bring(self, worker: int) -> None:
        """The worker's part is on the CPU here: what it costs a worker to copy is no concern of the server's."""
        push, row = self.at[worker], 0
        if self.server.residuals is not None:
            row = self.server.residuals.row(worker)
        room = self.slots.room(worker, self.server.residual_rows, row)
        entries, fresh = 0, gradient(push.batch.number)
        if isinstance(room, Slot):
            rows = Slot(*(None if each is None else on_cpu(each) for each in vars(room).values()))  # type: ignore[arg-type]
            entries = compress(fresh, rows, a_half).entries
        else:
            on_cpu(room).copy_(fresh)
        self.entries = entries

    def take(self, worker: int) -> None:
        """The server's part, with the update that is due."""
        push = self.at.pop(worker)
        awaited = min((other.batch for other in self.at.values()), default=None)
        self.server.push(push, self.slots.message(worker, self.entries), awaited if self.case.rule.ordered else None)
        if len(self.server.buffer) >= self.case.rule.pushes:
            self.server.update()

    def rounds(self, numbers: range) -> None:
        for number in numbers:
            self.begin_all(number)
            for worker in self.turn(number):
                self.bring(worker)
                self.take(worker)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.server.state()
        return values, {name: on_cpu(tensor).to("cpu", copy=True) for name, tensor in tensors.items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


CASES = {
    **{name: Case(OptimizerSettings(name=name, smoothing=0.1, weight_decay=0.1)) for name in OPTIMIZERS},
    "muon in blocks": Case(OptimizerSettings(name="muon", muon_rows=4, muon_steps=3)),
    "sync": Case(rule=Synchronous(4)),
    "async": Case(rule=Asynchronous()),
    "bfloat16": Case(push=PushSettings(dtype="bfloat16")),
    "dropped": Case(push=PushSettings(drop=0.5)),
    "dropped, in order": Case(push=PushSettings(drop=0.5, dtype="bfloat16"), rule=Synchronous(4)),
    **{
        name: Case(corrections=corrections, rule=Asynchronous())
        for name, corrections in {
            "scaled": CorrectionSettings(rule="scale"),
            "gap-aware": CorrectionSettings(rule="gap-aware"),
            "compensated": CorrectionSettings(rule="delay-compensated", adaptive=True),
            "feedback": CorrectionSettings(feedback=1.0),
            "predicted": CorrectionSettings(prediction="last-step"),
            "dana": CorrectionSettings(momentum="dana"),
            "dana-slim": CorrectionSettings(momentum="dana-slim"),
        }.items()
    },
    "dana, several pushes": Case(corrections=CorrectionSettings(momentum="dana")),
}
