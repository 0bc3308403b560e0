"""The memory that a run states before it starts: vectors of the size of the parameters, by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from nmt_async.cluster.sharding import owners, shards_of
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.sharded_tensor import Shard
from nmt_async.sync.compression.message import slot_bytes
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.corrections.settings import NONE, CorrectionSettings
from nmt_async.sync.optimizers.flat import OptimizerMemory, memory_of
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.rules import Rule
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import buffers_needed, hidden_matrices

VECTOR_BYTES = 4
"""Of one element: parameters, moments and residuals are float32."""


@dataclass(frozen=True)
class Vectors:
    """How many vectors there are at most, by what they hold.

    Attributes:
        buffers: versions of the parameters that workers read.
        slots: gradients on their way to the server, one a worker.
        validation: the copy that is validated.
        sum: what is accumulated.
        held: gradients that arrived before those of earlier batches, in sync.
        moments: what the optimizer remembers.
        working: what it needs to make an update.
        average: the moving average of the parameters.
        corrections: what is remembered because gradients are stale.
        gradients: in each process that computes them: torch's own, their sum where a push sums several batches, and
            the parameters where it changes those on which it computes, with a local optimizer a batch's gradient and
            what the optimizer remembers.
        shared: whether ``buffers``, ``slots``, ``validation`` and ``residuals`` are memory that several processes
            share.
        slot: how large a slot is, and a push that is held; 1: as large as a vector.
        residuals: what pushes left behind, two a worker where they do.
        remembered: what ``moments`` are, in words.
        exchanged: what is on its way to other machines, and what an outer step remembers.
        some: only some numbers of a push cross; then slots and pushes that are held lie on one device.
    """

    buffers: int
    slots: int
    validation: int
    sum: int
    held: int
    moments: float
    working: float
    average: int
    corrections: int
    gradients: float
    shared: bool
    remembered: str
    slot: float = 1.0
    residuals: int = 0
    exchanged: int = 0
    some: bool = False

    @property
    def _common(self) -> float:
        """What processes share, if there are several."""
        return self.buffers + self.slots * self.slot + self.validation + self.residuals

    @property
    def between_processes(self) -> float:
        """In the shared part."""
        return self._common if self.shared else 0.0

    @property
    def _state(self) -> float:
        """Besides the parameters."""
        return self.sum + self.held * self.slot + self.moments + self.average + self.corrections

    @property
    def server(self) -> float:
        """Of the process that makes the updates alone."""
        return self._state + self.working + self.exchanged + (0.0 if self.shared else self._common)

    @property
    def checkpoint(self) -> float:
        """More, from the first checkpoint on: copies of the state, and of the parameters that translate.

        Of a worker's two residuals the one that counts, and in one process that of the push under way, too.
        """
        residuals = self.residuals // 2 if self.shared else self.residuals
        slots = 0.0 if self.shared else self.slots * self.slot
        return 2 + self._state + slots + residuals

    @property
    def device(self) -> float:
        """Of what processes share and of the server, what lies where the server computes: all but the validated copy,
        which is the CPU's."""
        return self.between_processes + self.server - (self.validation if self.shared else 0)

    def part(self, share: float, optimizer: OptimizerMemory, first: bool) -> float:
        """Of `device`, what lies on one of several devices.

        Args:
            share: of every vector, what is its own.
            optimizer: what that part needs, in vectors of the whole size.
            first: whether it is the first device.
        """
        slots = (self.slots + self.held) * self.slot
        each = self.buffers + self.residuals + self.sum + self.average + self.corrections + self.exchanged
        apart = slots if self.some and first else 0.0
        return share * (each if self.some else each + slots) + optimizer.remembered + optimizer.working + apart

    def rows(self, size: int, devices: Mapping[str, int] | None = None) -> dict[str, str]:
        """What ``--dry-run`` says of it, for vectors of ``size``.

        Args:
            devices: on which the server computes, and how many bytes lie on each; None: the CPU.
        """
        mebibytes = VECTOR_BYTES * size / 2**20
        device = ", ".join(devices or ["cpu"])
        buffers, slots = _counted(self.buffers, "parameter buffer"), _counted(self.slots, "gradient slot")
        validation = "the copy under validation" if self.validation else ""
        own = [
            "the sum of pushes",
            self.remembered,
            "room to make an update" if self.working else "",
            "the moving average" if self.average else "",
            "what corrects stale gradients" if self.corrections else "",
            "what is exchanged with other machines" if self.exchanged else "",
            f"up to {_counted(self.held, 'push', 'pushes')} before their turn" if self.held else "",
        ]
        residuals = f"{self.residuals:,} residuals" if self.residuals else ""
        common = [f"{buffers} and {slots}", residuals, validation]
        rows = {}
        if self.shared:
            there = "" if device == "cpu" else f" on {device}"
            between = self.between_processes
            if there and self.validation:  # it is scored on the CPU
                common, between = common[:-1], between - self.validation
                rows["memory, CPU"] = f"{mebibytes * self.validation:,.0f} MiB: {validation}"
            rows["memory, shared"] = f"{mebibytes * between:,.0f} MiB{there}: {_listed(common)}"
            rows["memory, server"] = f"{mebibytes * self.server:,.0f} MiB{there}: {_listed(own)}"
            if devices is not None and len(devices) > 1:
                parts = [f"{amount / 2**20:,.0f} MiB on {name}" for name, amount in devices.items()]
                rows["memory, parts"] = f"{_listed(parts)}, of what is shared and the server's"
            where = "each worker"
        else:
            rows["memory"] = f"{mebibytes * self.server:,.0f} MiB in one process: {_listed([*common, *own])}"
            where = "it"
        rows["memory, besides"] = (
            f"{mebibytes * self.gradients:,.0f} MiB in {where} for gradients under way; "
            f"{mebibytes * self.checkpoint:,.0f} MiB from the first checkpoint on"
        )
        return rows


def optimizer_memory(options: TrainOptions, layout: FlatLayout) -> OptimizerMemory:
    """What the optimizer of a run will need, on all devices that own a part of its vectors together."""
    parts = [optimizer_part(options, layout, shard) for shard in shards_for(options, layout)]
    words = next((part.words for part in parts if part.words), "")
    return OptimizerMemory(sum(part.remembered for part in parts), sum(part.working for part in parts), words)


def optimizer_part(options: TrainOptions, layout: FlatLayout, shard: Shard) -> OptimizerMemory:
    """The same for a part on the device that owns it, in vectors of the whole size."""
    inside = [matrix for matrix in hidden_matrices(layout) if shard.begin <= matrix.begin < shard.end]
    matrices = [replace(matrix, begin=matrix.begin - shard.begin) for matrix in inside]
    need = memory_of(torch.empty(shard.size, device="meta"), options.settings(), matrices)
    share = shard.size / layout.size
    return replace(need, remembered=share * need.remembered, working=share * need.working)


def vectors(
    rule: Rule,
    workers: int,
    optimizer: OptimizerMemory,
    *,
    average: bool,
    validation: bool,
    simulated: bool,
    push_batches: int = 1,
    push: PushSettings = WHOLE,
    corrections: CorrectionSettings = NONE,
    copied: bool = False,
) -> Vectors:
    """Those of a run with ``workers``.

    Args:
        rule: when pushes become an update.
        optimizer: what it needs.
        average: whether there is a moving average.
        validation: whether there is a validation set.
        simulated: one process computes for all workers.
        push_batches: batches that a worker sums before each push.
        push: how a push is made of a gradient.
        corrections: of stale gradients.
        copied: whether workers copy what they pull and push, since it lies in parts on several devices.
    """
    own_copy = copied or push.own_copy
    return Vectors(
        buffers=buffers_needed(corrections, workers, simulated),
        slots=workers,
        validation=int(validation),
        sum=1,
        held=rule.held(workers),
        moments=optimizer.remembered,
        working=optimizer.working,
        average=int(average),
        gradients=1 + (push_batches > 1) + own_copy + copied + _of_local(push.local_optimizer),
        corrections=corrections.vectors(workers, rule.pushes, rule.staleness(workers)),
        shared=not simulated,
        remembered=optimizer.words,
        slot=slot_bytes(push) / VECTOR_BYTES,
        residuals=2 * workers if push.compressed else 0,
        some=push.drop > 0,
    )


def _of_local(optimizer: OptimizerSettings | None) -> float:
    """Vectors of a worker's own optimizer, with that of the gradient by which it steps."""
    if optimizer is None:
        return 0.0
    need = memory_of(torch.empty(1, device="meta"), optimizer)
    return 1.0 + need.remembered + need.working


def _counted(count: int, noun: str, nouns: str = "") -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _listed(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)


def shards_for(options: TrainOptions, layout: FlatLayout) -> list[Shard]:
    """Which device of a run with settled options owns which part of its vectors; a simulated one has one part."""
    devices = owners(options.device_list())
    return shards_of(layout, devices[:1] if options.cluster == "simulated" else devices)


def bytes_by_device(need: Vectors, options: TrainOptions, layout: FlatLayout) -> dict[str, int]:
    """Of what processes share and of the server, what lies on each device that owns a part; the validated copy, which
    is the CPU's, is not counted.

    Args:
        need: of a run with these settled options, in processes.
        layout: of its model.
    """
    found: dict[str, int] = {}
    for shard in shards_for(options, layout):
        optimizer = optimizer_part(options, layout, shard)
        part = need.part(shard.size / layout.size, optimizer, first=not found)
        found[str(shard.device)] = round(VECTOR_BYTES * layout.size * part)
    return found


def vectors_of(options: TrainOptions, layout: FlatLayout, validation: bool) -> Vectors:
    """Those of a run with settled options, on this machine.

    Args:
        layout: of its model.
        validation: whether there is a validation set.
    """
    need = vectors(
        options.rule(), len(options.device_list()), optimizer_memory(options, layout),
        average=bool(options.exponential_smoothing), validation=validation,
        simulated=options.cluster == "simulated", push_batches=options.local_accumulate,
        corrections=options.corrections(), push=options.push_settings(), copied=len(shards_for(options, layout)) > 1,
    )  # fmt: skip
    if options.machines > 1:
        outer = options.outer()
        need = replace(need, exchanged=1 if outer is None else 2 + (outer.momentum > 0))
    return need
