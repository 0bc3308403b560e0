"""Replays the journals of machines that shared a start of a run, in one process.

Each journal is replayed as that of one machine is (`nmt_async.cluster.replay`), up to where something must have come
from the others. When all machines have contributed for the n-th time, the sum is formed, and lands on each of them
where its journal has what came of it. So the journals need no common clock: exchanges alone order them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.replay import Computes, Replay
from nmt_async.errors import RunFailure, UserError
from nmt_async.sync.between.contribution import Contribution, Joint, Wish
from nmt_async.sync.between.outer import summed
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.prepared import ParallelStore

T = TypeVar("T")

State = tuple[dict[str, Any], dict[str, Tensor]]
"""What a checkpoint stores of a coordinator."""

LARGEST_SEGMENT = 2**20
"""Bytes that Gloo sends at once."""


def gloo_sum(vectors: Sequence[Tensor]) -> Tensor:
    """The sum (size,) of vectors (size,) by rank, to the last bit as `nmt_async.machines.group.GlooGroup` forms it."""
    return summed(vectors) if vectors[0].dtype is torch.bfloat16 else ring_sum(vectors)


def ring_sum(vectors: Sequence[Tensor]) -> Tensor:
    """The sum (size,) of vectors (size,) by rank, to the last bit as Gloo's all-reduce forms it.

    Gloo cuts the vector into a part for each machine. The sum of part c begins with machine c - 1 and goes round the
    ring against the ranks, so that machine c adds its own last (`ring` in gloo/allreduce.cc).
    """
    machines, size, width = len(vectors), len(vectors[0]), vectors[0].element_size()
    segments = max(_parts(size * width, LARGEST_SEGMENT), 2 * machines)
    each = _parts(segments, machines)  # segments of a part
    part = each * _parts(_parts(size * width, each * machines), width)
    total = torch.empty_like(vectors[0])
    for rank in range(machines):
        here = slice(rank * part, (rank + 1) * part)
        total[here] = vectors[rank - 1][here]
        for before in range(2, machines + 1):
            total[here] += vectors[rank - before][here]
    return total


def _parts(size: int, most: int) -> int:
    """How many parts of at most so much something of that size has."""
    return -(-size // most)


@dataclass(frozen=True)
class Recorded:
    """A machine's part in a start, as it is recorded.

    Attributes:
        journal: where, for people.
        events: of the start, from its RESUMED on; it may have ended in the midst of something.
        goal: how many of these have to happen again.
        saved: whether the machine's state was saved there.
    """

    journal: str
    events: Sequence[Event]
    goal: int
    saved: bool


class MachineReplay(Replay):
    """Drives the coordinator of one of the machines; see `Replay`.

    Args:
        build: makes a `MachineCoordinator`.
        recorded: what is to happen again.
    """

    def __init__(
        self, build: Callable[[Callable[[Event], None], int], Coordinator], worker: Computes, data: ParallelStore,
        recorded: Recorded,
    ) -> None:  # fmt: skip
        super().__init__(build, worker, data, recorded.events[0].worker)
        self.recorded = recorded
        self._limit = recorded.goal
        self.brought: dict[int, tuple[Contribution, Tensor]] = {}
        self.contributed = self.landed = 0
        self._expected = deque(recorded.events)

    @property
    def machine(self) -> MachineCoordinator:
        """The coordinator."""
        assert isinstance(self.coordinator, MachineCoordinator)
        return self.coordinator

    @property
    def done(self) -> bool:
        """Whether all has happened that had to. A state is saved where all machines agree on all parameters."""
        return self._count >= self.recorded.goal and (self.machine.settled or not self.recorded.saved)

    @property
    def _count(self) -> int:
        return len(self.recorded.events) - len(self._expected)

    @property
    def rests(self) -> bool:
        """Whether it does nothing more unless another machine turns out to wait for it."""
        return self.done and self._count >= self._limit

    def go_on(self) -> bool:
        """Another machine waits: whatever is recorded has to happen. False if that was so already."""
        before, self._limit = self._limit, len(self.recorded.events)
        return before < self._limit

    def begin(self, initial: Tensor, state: State | None) -> None:
        """Begins with the ``initial`` parameters (size,), or takes up a state."""
        first = self.recorded.events[0]
        if state is None:
            self.machine.begin_with(initial)
            self.machine.begin_shared(first.stands, first.tokens)
        else:
            self.machine.take_up(*state, first.stands, first.tokens)

    @property
    def waits(self) -> bool:
        """Whether an exchange must land before the next event can happen.

        One that brings this machine neither an update nor batches is not recorded; it lands as late as it can.
        """
        if not self.machine.on_the_way:
            return False
        kind = self._expected[0].kind if self._count < self._limit else None
        if kind in (Kind.STARTED, Kind.STEPPED):
            return self.machine.waits
        return kind in (None, Kind.UPDATED, Kind.DEALT, Kind.CONTRIBUTED)

    def advance(self) -> None:
        """Lets the next event happen, and those that follow from it."""
        if not self._expected:
            raise RunFailure("it ends where the machines did not agree on all parameters.")
        self._advance()

    def land(self, joint: Joint, total: Tensor) -> None:
        """An exchange lands here, of which ``total`` (size,) is the sum."""
        _, vector = self.brought.pop(self.landed)
        self.landed += 1
        try:
            self.machine.land(joint, vector.copy_(total))
        except (ValueError, IndexError) as error:
            raise RunFailure(f"what the machines have exchanged cannot become an update here: {error}.") from None

    def _happen(self, event: Event) -> None:
        if event.kind is Kind.CONTRIBUTED:
            self._contribute(event)
        elif event.kind is Kind.STEPPED:
            left = len(self._expected)
            self.machine.due()
            if len(self._expected) == left > 1 and self._expected[1].kind is Kind.CONTRIBUTED:
                self._contribute(self._expected[1])  # which does not wait for what is still to come
        elif event.kind not in (Kind.RESUMED, Kind.UPDATED, Kind.DEALT):
            super()._happen(event)

    def _contribute(self, event: Event) -> None:
        self.machine.wish = Wish(event.pieces - 1)
        self.brought[self.contributed] = self.machine.contribute()
        self.contributed += 1

    def _compare(self, event: Event) -> None:
        if self._expected:  # what follows from the last record was cut off with the machine
            super()._compare(event)


class JointReplay:
    """Machines that replay a start of a run together.

    Args:
        machines: by rank.
        total: the sum (size,) of what they bring, (size,) each by rank.
    """

    def __init__(self, machines: Sequence[MachineReplay], total: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self.machines = machines
        self._total = total
        self._sums: dict[int, tuple[Joint, Tensor]] = {}

    def run(self, initial: Tensor, state: State | None, tell: Callable[[int], None] = lambda _: None) -> None:
        """Lets all happen again that has to.

        Args:
            initial: parameters (size,), where no ``state`` is taken up.
            tell: takes the version of the first machine's parameters, now and then.

        Raises:
            RunFailure: something else happened than was recorded.
            UserError: a journal ends too early.
        """
        for machine in self.machines:
            self._on(machine, lambda machine: machine.begin(initial, state))
        wanted = [machine.machine.round_size for machine in self.machines]
        for machine in self.machines:
            self._on(machine, lambda machine: machine.machine.begin(wanted))
        while not all(machine.done for machine in self.machines):
            moved = [self._on(machine, self._advance) for machine in self.machines]
            tell(self.machines[0].machine.server.version)
            if not any(moved):
                self._extend()

    @staticmethod
    def _on(machine: MachineReplay, act: Callable[[MachineReplay], T]) -> T:
        """Does something on one of the machines, which a failure then names."""
        try:
            return act(machine)
        except RunFailure as failure:
            raise RunFailure(f"{machine.recorded.journal}: {failure}") from None
        except (LookupError, TypeError, ValueError) as error:
            raise RunFailure(f"{machine.recorded.journal}: what it tells cannot happen here: {error}.") from None

    def _advance(self, machine: MachineReplay) -> bool:
        """Until the machine is done or waits for another one; whether anything happened."""
        moved = False
        while not machine.rests:
            if not machine.waits:
                machine.advance()
            elif (landing := self._landing(machine.landed)) is not None:
                machine.land(*landing)
            else:
                break
            moved = True
        return moved

    def _landing(self, number: int) -> tuple[Joint, Tensor] | None:
        """What all have brought to the exchange of this number; None while one of them has not."""
        if number not in self._sums:
            if any(machine.contributed <= number for machine in self.machines):
                return None
            brought = [machine.brought[number] for machine in self.machines]
            total = self._total([vector for _, vector in brought])
            self._sums = {number: (Joint([said for said, _ in brought]), total)}
        return self._sums[number]

    def _extend(self) -> None:
        """A machine waits for what others did after what stands of their journals: that has to happen, too.

        Raises:
            UserError: one of them did not record it.
        """
        went_on = sum(machine.go_on() for machine in self.machines if machine.rests)
        if not went_on:
            fewest = min(self.machines, key=lambda machine: machine.contributed)
            raise UserError(
                f"{fewest.recorded.journal} ends before the machine's part in exchange {fewest.contributed + 1} of "
                f"start {fewest.recorded.events[0].tokens}, which another machine has heard of: without it the run "
                f"cannot be computed again."
            )
