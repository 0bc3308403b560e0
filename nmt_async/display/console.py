"""What a run shows while it goes: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.formatting import NONE, number


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


def percentages(shares: Sequence[float | None]) -> str:
    """``1% 2%``: one for each worker or machine; a dash where it is not known."""
    return " ".join(NONE if share is None else f"{share:.0%}" for share in shares)


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
        f"({histogram(report.staleness)}) | waiting {percentages(report.waiting_share)}{_machines_text(report)}"
    )


def _machines_text(report: TrainReport) -> str:
    """What each machine did, by rank; empty where there is one alone."""
    ranks = range(len(report.machine_tokens))
    if len(ranks) < 2:
        return ""
    rates = " ".join(f"{report.machine_rate(rank):,.0f}" for rank in ranks)
    shares = percentages([report.machine_share(rank) for rank in ranks])
    ages = " ".join(number(age, 2) for age in report.machine_staleness)
    return f" | machines: target/s {rates} ({shares}), waiting {percentages(report.machine_waiting)}, staleness {ages}"


def machine_text(report: TrainReport, rank: int, name: str) -> str:
    """One line with what a machine that shares the run did."""
    return (
        f"{name} | target/s {report.machine_rate(rank):,.0f} | {report.machine_share(rank):.0%} of the tokens | "
        f"waiting {percentages([report.machine_waiting[rank]])} | "
        f"staleness {number(report.machine_staleness[rank], 2)}"
    )


def valid_text(report: ValidReport) -> str:
    """One line with all scores."""
    scores = " | ".join(f"{name} {value:.4g}" for name, value in report.scores().items())
    if report.corpus_cross_entropy:
        of_corpora = (f"{name} {value:.4g}" for name, value in report.corpus_cross_entropy.items())
        scores += f" | cross-entropy of {', '.join(of_corpora)}"
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
