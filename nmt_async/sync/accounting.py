"""Where every batch is, by the journal: the account that shows whether each one counts exactly once.

The dispatcher knows where batches are while a run goes on; this finds it out again from the events alone, so that the
one can be held against the other. A batch may be begun by anyone at any time; what is asked is whether its gradient
entered an update once, and whether the stream went past it without that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.push import BatchKey


@dataclass
class Account:
    """Of each batch that was ever begun, where it is; see `account`.

    Attributes:
        begun: every batch that was ever given to a worker.
        applied: how often a batch's gradient entered an update; once, if all is well.
        accumulated: how often it is in the sum of the next update.
        out: with which worker it is.
        waiting: those that were given back.
        aside: set aside after they failed too often.
        passed_over: those that waited while a batch was begun that had never been begun before. Batches that were
            given back come first, so that none can be forgotten.
        version: updates so far.
        contradictions: what cannot have happened, one sentence an event.
    """

    begun: set[BatchKey] = field(default_factory=set)
    applied: Counter[BatchKey] = field(default_factory=Counter)
    accumulated: Counter[BatchKey] = field(default_factory=Counter)
    out: dict[BatchKey, int] = field(default_factory=dict)
    waiting: set[BatchKey] = field(default_factory=set)
    aside: set[BatchKey] = field(default_factory=set)
    passed_over: set[BatchKey] = field(default_factory=set)
    version: int = 0
    contradictions: list[str] = field(default_factory=list)
    _tokens: int = 0

    def twice(self) -> list[BatchKey]:
        """Batches that count more than once: applied, in the next update and set aside, together."""
        counts = self.applied + self.accumulated + Counter(self.aside)
        return sorted(batch for batch, count in counts.items() if count > 1)

    def lost(self, batches: Callable[[int], int]) -> list[BatchKey]:
        """Batches that the stream went past though they count nowhere and nobody has them.

        Args:
            batches: how many an epoch has.
        """
        if not self.begun:
            return []
        last_epoch, last_number = max(self.begun)
        stream = {
            (epoch, number)
            for epoch in range(1, last_epoch + 1)
            for number in range(last_number if epoch == last_epoch else batches(epoch))
        }
        return sorted((stream - self.begun) | (self.passed_over & self.waiting))

    def unfinished(self) -> list[BatchKey]:
        """Batches that were begun and are neither applied nor set aside."""
        return sorted(self.begun - self.applied.keys() - self.aside)

    def take(self, event: Event) -> None:
        """One more event."""
        batch = event.batch
        match event.kind:
            case Kind.STARTED:
                self._start(event)
            case Kind.READMITTED:
                self._expect(event, batch in self.waiting, "it was not waiting")
                self.waiting.discard(batch)
                self.out[batch] = event.worker
            case Kind.ACCUMULATED:
                self._leave_worker(event)
                self.accumulated[batch] += 1
                self._tokens += event.tokens
            case Kind.RETURNED | Kind.REFUSED:
                self._leave_worker(event)
                self.waiting.add(batch)
            case Kind.SET_ASIDE:
                self._expect(event, batch in self.waiting, "it had not been given back")
                self.waiting.discard(batch)
                self.aside.add(batch)
            case Kind.UPDATED:
                self._expect(event, self._tokens == event.tokens, f"{self._tokens} tokens had been accumulated")
                self.version += 1
                self._expect_version(event)
                self.applied.update(self.accumulated)
                self.accumulated.clear()
                self._tokens = 0
            case Kind.RESUMED:
                self._expect_version(event)
                self.waiting.update(self.out)
                self.out.clear()
            case Kind.STOPPED:
                pass

    def _start(self, event: Event) -> None:
        batch = event.batch
        self._expect(event, batch not in self.out, "another worker had it")
        self._expect_version(event)
        if batch not in self.begun:
            self.passed_over |= self.waiting
        self.begun.add(batch)
        self.waiting.discard(batch)
        self.out[batch] = event.worker

    def _leave_worker(self, event: Event) -> None:
        holder = self.out.pop(event.batch, None)
        self._expect(event, holder == event.worker, "no worker had it" if holder is None else f"worker {holder} had it")

    def _expect_version(self, event: Event) -> None:
        self._expect(event, event.version == self.version, f"the version was {self.version}")

    def _expect(self, event: Event, possible: bool, otherwise: str) -> None:
        if not possible:
            self.contradictions.append(f"{event}, but {otherwise}")


def account(events: Iterable[Event]) -> Account:
    """Where every batch is after ``events``.

    Args:
        events: those that stand, as `nmt_async.sync.journal.effective` gives them.
    """
    made = Account()
    for event in events:
        made.take(event)
    return made
