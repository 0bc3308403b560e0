"""What a training display knows: a value that grows with each thing the run reports. No terminal, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nmt_async.display.reports import RunTitle, TrainReport, ValidReport

KEPT = 500
"""Losses, validations and messages remembered; a wider terminal has no room for more."""


@dataclass(frozen=True)
class Message:
    """A sentence for the reader; ``warning`` says that it is about a problem."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class DisplayState:
    """Everything on the screen. Times are seconds of any one clock; every method returns a new state.

    Attributes:
        now: the time to show.
        title: of the run; None before it begins.
        zero: when training would have begun had it never been interrupted.
        share: of the run that is done, 0 to 1; None if it has no set end.
        update: the latest.
        first, last: (time, share) of the first and last progress of this sitting.
        report: of the latest stretch.
        losses: one a stretch, oldest first.
        validations, messages: oldest first.
        ended: nobody trains any more.
    """

    now: float = 0.0
    title: RunTitle | None = None
    zero: float = 0.0
    share: float | None = None
    update: int = 0
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    report: TrainReport | None = None
    losses: tuple[float, ...] = ()
    validations: tuple[ValidReport, ...] = ()
    messages: tuple[Message, ...] = ()
    ended: bool = False

    def at(self, now: float) -> DisplayState:
        """The same, shown at another time."""
        return replace(self, now=now)

    def begun(self, title: RunTitle) -> DisplayState:
        """The run begins."""
        return replace(self, title=title, zero=self.now - title.seconds)

    def progressed(self, share: float | None, update: int) -> DisplayState:
        """An update has been applied."""
        point = None if share is None else (self.now, share)
        return replace(self, share=share, update=update, first=self.first or point, last=point)

    def trained(self, report: TrainReport) -> DisplayState:
        """A stretch of training has ended."""
        if not report.waiting_share and self.report is not None:  # the workers have gone home
            report = replace(report, waiting_share=self.report.waiting_share)
        losses = (*self.losses, report.loss)[-KEPT:]
        return replace(self, report=report, losses=losses, zero=self.now - report.time, update=report.update)

    def validated(self, report: ValidReport) -> DisplayState:
        """A validation has ended."""
        return replace(self, validations=(*self.validations, report)[-KEPT:])

    def told(self, message: Message) -> DisplayState:
        """A sentence has been said."""
        return replace(self, messages=(*self.messages, message)[-KEPT:])

    @property
    def elapsed(self) -> float:
        """Seconds of training, earlier sittings included."""
        return max(0.0, self.now - self.zero) if self.title is not None else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the set end at the pace of this sitting; None while nobody can know."""
        if self.first is None or self.last is None or self.last[1] <= self.first[1]:
            return None
        (begin, share), (latest, done) = self.first, self.last
        pace = (latest - begin) / (done - share)
        return max(0.0, pace * (1.0 - done) - (self.now - latest))
