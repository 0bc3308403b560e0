"""The memory that a run takes for vectors of the model's size, which is most of it besides activations."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.sync.rules import Rule

VECTOR_BYTES = 4
"""Of one element: parameters, gradients and moments are float32."""


@dataclass(frozen=True)
class Vectors:
    """How many vectors there are at most, by what they hold.

    Attributes:
        buffers: versions of the parameters that workers read.
        slots: gradients on their way to the server, one a worker.
        validation: the copy that is validated.
        sum: what is accumulated.
        held: gradients that arrived before those of earlier batches, in sync.
        moments: Adam's.
        average: the moving average of the parameters.
        gradients: in each process that computes them: torch's own, and their sum where a push sums several batches.
        shared: whether ``buffers``, ``slots`` and ``validation`` are memory that several processes share.
    """

    buffers: int
    slots: int
    validation: int
    sum: int
    held: int
    moments: int
    average: int
    gradients: int
    shared: bool

    @property
    def between_processes(self) -> int:
        """In the shared part."""
        return self.buffers + self.slots + self.validation if self.shared else 0

    @property
    def server(self) -> int:
        """Of the process that makes the updates alone."""
        own = self.sum + self.held + self.moments + self.average
        return own if self.shared else own + self.buffers + self.slots + self.validation

    @property
    def checkpoint(self) -> int:
        """More, from the first checkpoint on: copies of the state, and of the parameters that translate."""
        slots = 0 if self.shared else self.slots
        return 2 + self.sum + self.held + self.moments + self.average + slots

    def rows(self, size: int) -> dict[str, str]:
        """What ``--dry-run`` says of it, for vectors of ``size``."""
        mebibytes = VECTOR_BYTES * size / 2**20
        buffers, slots = _counted(self.buffers, "parameter buffer"), _counted(self.slots, "gradient slot")
        validation = "the copy under validation" if self.validation else ""
        own = [
            "the sum of pushes",
            "Adam's moments",
            "the moving average" if self.average else "",
            f"up to {_counted(self.held, 'push', 'pushes')} before their turn" if self.held else "",
        ]
        common = [f"{buffers} and {slots}", validation]
        rows = {}
        if self.shared:
            rows["memory, shared"] = f"{mebibytes * self.between_processes:,.0f} MiB: {_listed(common)}"
            rows["memory, server"] = f"{mebibytes * self.server:,.0f} MiB: {_listed(own)}"
            where = "each worker"
        else:
            rows["memory"] = f"{mebibytes * self.server:,.0f} MiB in one process: {_listed([*common, *own])}"
            where = "it"
        rows["memory, besides"] = (
            f"{mebibytes * self.gradients:,.0f} MiB in {where} for gradients under way, and activations; "
            f"{mebibytes * self.checkpoint:,.0f} MiB from the first checkpoint on"
        )
        return rows


def vectors(
    rule: Rule, workers: int, *, average: bool, validation: bool, simulated: bool, push_batches: int = 1
) -> Vectors:
    """Those of a run with ``workers``.

    Args:
        rule: when pushes become an update.
        average: whether there is a moving average.
        validation: whether there is a validation set.
        simulated: one process computes for all workers.
        push_batches: batches that a worker sums before each push.
    """
    return Vectors(
        buffers=buffers_needed(rule, workers, simulated),
        slots=workers,
        validation=int(validation),
        sum=1,
        held=rule.held(workers),
        moments=2,
        average=int(average),
        gradients=1 + (push_batches > 1),
        shared=not simulated,
    )


def buffers_needed(rule: Rule, workers: int, simulated: bool) -> int:
    """Parameter buffers of a run; one process computes a gradient at once, and needs others only to look back."""
    return 1 if simulated and not rule.looks_at_parameters else workers + 1


def _counted(count: int, noun: str, nouns: str = "") -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _listed(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)
