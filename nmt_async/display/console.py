"""What a run shows while it goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self, TextIO

from nmt_async.display.reports import RunTitle, TrainReport, ValidReport


class Display(Protocol):
    """Takes what a run reports; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, title: RunTitle) -> None:
        """Which run it is; training begins."""

    def say(self, text: str) -> None:
        """A sentence for the reader."""

    def warn(self, text: str) -> None:
        """A sentence about a problem that the run survives."""

    def progress(self, share: float | None, update: int) -> None:
        """How much of the run is done, 0 to 1, None if it has no set end."""

    def trained(self, report: TrainReport) -> None:
        """A stretch of training."""

    def validated(self, report: ValidReport) -> None:
        """A validation."""


def histogram(staleness: Mapping[int, int]) -> str:
    """``0:24% 1:75% 2:1%``: which share of the pushes was how stale."""
    total = sum(staleness.values()) or 1
    return " ".join(f"{updates}:{count / total:.0%}" for updates, count in sorted(staleness.items()))


def percentages(shares: list[float]) -> str:
    """``1% 2%``: one for each worker."""
    return " ".join(f"{share:.0%}" for share in shares)


def title_text(title: RunTitle) -> str:
    """One line that says which run begins."""
    end = f" | until {title.end()}" if title.end() else ""
    return f"{title.name}: {title.rule()} | {title.workers()} | {title.model()}{end}"


def train_text(report: TrainReport) -> str:
    """One line with everything a report holds."""
    return (
        f"epoch {report.epoch} | update {report.update:,} | tokens {report.target_tokens:,} | "
        f"loss {report.loss:.4f} | rate {report.learning_rate:.2e} | norm {report.gradient_norm:.3f} | "
        f"source/s {report.source_tokens_per_second:,.0f} | target/s {report.target_tokens_per_second:,.0f} | "
        f"batch {report.effective_batch:,.0f} | staleness {report.staleness_mean:.2f}, max {report.staleness_max} "
        f"({histogram(report.staleness)}) | waiting {percentages(report.waiting_share)}"
    )


def valid_text(report: ValidReport) -> str:
    """One line with all scores."""
    scores = " | ".join(f"{name} {value:.4g}" for name, value in report.scores().items())
    verdict = f"stalled {report.stalled} times (best {report.best:.4g})" if report.stalled else "new best"
    return f"validation at update {report.update:,} | {scores} | {report.metric}: {verdict} | {report.seconds:.0f} s"


class PlainDisplay:
    """A line for each thing.

    Args:
        out: where to.
        quiet: only warnings.
    """

    def __init__(self, out: TextIO | None = None, quiet: bool = False) -> None:
        self.out = out or sys.stderr
        self.quiet = quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.out.flush()

    def begin(self, title: RunTitle) -> None:
        """Which run it is; training begins."""
        self.say(title_text(title))

    def say(self, text: str) -> None:
        """A sentence for the reader."""
        if not self.quiet:
            print(text, file=self.out, flush=True)

    def warn(self, text: str) -> None:
        """A sentence about a problem that the run survives."""
        print(f"warning: {text}", file=self.out, flush=True)

    def progress(self, share: float | None, update: int) -> None:
        """Nothing: the reports tell."""

    def trained(self, report: TrainReport) -> None:
        """A stretch of training."""
        self.say(train_text(report))

    def validated(self, report: ValidReport) -> None:
        """A validation."""
        self.say(valid_text(report))
