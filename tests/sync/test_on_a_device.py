"""The server where its vectors are: nothing leaves their device, and an update makes the process wait once at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from apart import APART, apart, on_cpu
from torch import Tensor, nn

from nmt_async.model.parameters import FlatLayout
from nmt_async.model.quantization import quantise_vector
from nmt_async.model.quantization_options import Quantization
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
from nmt_async.sync.between.outer import OuterStep
from nmt_async.sync.between.outer_settings import OuterSettings
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


def quantised(vector: Tensor) -> None:
    layout = FlatLayout(nn.Linear(SIZE // 16, 15))
    for scheme in ("linear", "log"):
        quantise_vector(vector[: layout.size], layout, Quantization(4, scheme), vector[: layout.size], 1)


class Driven:
    """A server that two workers push to in turns, the first of which pulls only every other time."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        buffers = torch.zeros(WORKERS + 1, SIZE, device=device)
        buffers[0].copy_(gradient(99))
        residuals = torch.zeros(2 * WORKERS, SIZE, device=device) if case.push.compressed else None
        quantise = quantised if case.corrections.quantized else None
        built = build_corrections(case.corrections, case.optimizer, buffers[0], WORKERS, 1.0, quantise)
        self.server = ParameterServer(buffers, case.rule, SCHEDULE, case.optimizer, MATRICES, built, residuals)
        self.slots = Slots.of(form_of(case.push, SIZE), WORKERS, buffers)
        self.at: dict[int, Push] = {}

    def begin(self, worker: int, number: int) -> None:
        self.server.pull(worker)
        self.at[worker] = Push(worker, BatchId(1, number), self.server.version, tokens=number + 1, gradient_norm=1.0)

    def push(self, worker: int) -> None:
        """The worker's part is on the CPU here: what it costs a worker to copy is no concern of the server's."""
        push, row = self.at.pop(worker), 0
        if self.server.residuals is not None:
            row = self.server.residuals.row(worker)
        room = self.slots.room(worker, self.server.residual_rows, row)
        entries, fresh = 0, gradient(push.batch.number)
        if isinstance(room, Slot):
            rows = Slot(*(None if each is None else on_cpu(each) for each in vars(room).values()))  # type: ignore[arg-type]
            pick = lambda vector: largest(vector, 0.5, SIZE, torch.Generator().manual_seed(1))  # noqa: E731
            entries = compress(fresh, rows, pick).entries
        else:
            on_cpu(room).copy_(fresh)
        awaited = min((other.batch for other in self.at.values()), default=None)
        self.server.push(push, self.slots.message(worker, entries), awaited if self.case.rule.ordered else None)

    def rounds(self, numbers: range) -> None:
        for number in numbers:
            for worker in range(WORKERS):
                if worker not in self.at:
                    self.begin(worker, 2 * number + worker)
            for worker in (1, 0) if number % 2 else (1,):
                self.push(worker)
                if len(self.server.buffer) >= self.case.rule.pushes:
                    self.server.update()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.server.state()
        return values, {name: on_cpu(tensor).clone() for name, tensor in tensors.items()}


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


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_nothing_leaves_the_device_and_an_update_waits_once(case: Case) -> None:
    here = Driven(case, torch.device("cpu"))
    with apart() as counted:
        there = Driven(case, APART)
        counted.clear()
        for driven in (here, there):
            driven.rounds(range(7))
        assert there.server.version >= 2
        assert counted == {"read": there.server.version}, "the norm, and nothing else"
        values, tensors = there.state()
        assert bool(values["buffer"].get("held")) == case.rule.ordered, "an early push is stored by itself"
        assert values == here.state()[0]
        assert_equal(tensors, here.state()[1])
        again = Driven(case, APART)
        again.server.restore(values, tensors)
        again.at, counted["read"] = {}, 0
        for driven in (again, here):
            driven.at = {}
            driven.server.ring.release_all()
            driven.rounds(range(7, 12))
        assert_equal(again.state()[1], here.state()[1])


def test_quantised_pulls_are_computed_where_they_are() -> None:
    case = Case(corrections=CorrectionSettings(quantized=True))
    here = Driven(case, torch.device("cpu"))
    with apart():
        there = Driven(case, APART)
        for driven in (here, there):
            driven.rounds(range(6))
        assert torch.equal(on_cpu(there.server.offered), here.server.offered)
        assert not torch.equal(here.server.offered, here.server.parameters)


@pytest.mark.parametrize("fragment", [None, 1])
def test_an_outer_step_is_made_where_the_parameters_are(fragment: int | None) -> None:
    made = []
    with apart() as counted:
        for device in (torch.device("cpu"), APART):
            settings = OuterSettings(rate=0.7, momentum=0.9, fragments=2, dtype="bfloat16")
            parameters, moved = gradient(1).to(device), gradient(2).to(device)
            outer = OuterStep(settings, parameters)
            counted.clear()
            made.append(on_cpu(outer.step(outer.moved(moved, fragment), 2, fragment)))
            assert not counted
    assert torch.equal(*made)


def test_what_is_not_on_the_device_is_noticed() -> None:
    """That of which the tests above make sure can fail."""
    with apart() as counted:
        vector = torch.zeros(3, device=APART)
        with pytest.raises(RuntimeError, match="on two devices"):
            vector.add_(torch.ones(3))
        assert float(vector.add_(torch.tensor(1.0)).sum()) == 3.0
        vector.copy_(torch.ones(3))
        assert counted == {"read": 1, "copied": 1}
