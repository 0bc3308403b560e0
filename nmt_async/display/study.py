"""Shows how far a study is: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from nmt_async.formatting import number


class Named(Protocol):
    """What a display needs of a setting (`nmt_async.study.setting.Setting`)."""

    @property
    def name(self) -> str:
        """Of the setting."""


class Scores(Protocol):
    """What a display needs of a validation (`nmt_async.study.result.Point`)."""

    @property
    def cross_entropy(self) -> float:
        """Per target token, nats."""

    @property
    def bleu(self) -> float | None:
        """None where nothing was translated."""


class Finished(Protocol):
    """What a display needs of a result (`nmt_async.study.result.Result`)."""

    @property
    def last(self) -> Scores | None:
        """The validation at the end."""

    @property
    def tokens(self) -> int:
        """Target tokens trained on."""

    @property
    def updates(self) -> int:
        """How many."""

    @property
    def staleness_mean(self) -> float:
        """Of all pushes, in updates."""

    @property
    def wall_seconds(self) -> float | None:
        """That its process ran."""

    @property
    def diverged(self) -> str:
        """In what way, empty if it did not."""


def sentence(setting: Named, result: Finished) -> str:
    """A finished setting in a line."""
    last = result.last
    scores = "" if last is None else f" | cross-entropy {number(last.cross_entropy, 3)}"
    if last is not None and last.bleu is not None:
        scores += f" | BLEU {number(last.bleu, 1)}"
    ended = f" | diverged: {result.diverged}" if result.diverged else ""
    return (
        f"{setting.name}{scores} | tokens {number(result.tokens)} | updates {number(result.updates)} | "
        f"staleness {number(result.staleness_mean, 2)} | {number(result.wall_seconds or 0)} s here{ended}"
    )


class LineDisplay:
    """A line for each setting that begins or ends, with the time left.

    Args:
        total: settings there are.
        quiet: only failures.
    """

    def __init__(self, total: int, quiet: bool = False, out: TextIO | None = None) -> None:
        self.total = total
        self.quiet = quiet
        self.out = out or sys.stderr
        self.done = 0
        self.shares: dict[str, float] = {}
        self._here = 0.0
        self._begin = time.monotonic()

    def begun(self, setting: Named) -> None:
        """A setting is begun, or gone on with."""
        self.shares[setting.name] = 0.0
        self._say(f"{setting.name}: begun ({self.done} of {self.total} settings done{self._left()})")

    def at(self, setting: Named, share: float) -> None:
        """How much of it is done."""
        self.shares[setting.name] = share

    def finished(self, setting: Named, result: Finished) -> None:
        """A setting has its result."""
        if setting.name in self.shares:
            del self.shares[setting.name]
            self._here += 1
        self.done += 1
        self._say(f"[{self.done}/{self.total}] {sentence(setting, result)}{self._left()}")

    def failed(self, setting: Named, why: str) -> None:
        """A setting could not be finished."""
        self.shares.pop(setting.name, None)
        print(f"{setting.name} failed: {why}", file=self.out, flush=True)

    def close(self) -> None:
        """Nothing to end."""

    @property
    def share(self) -> float:
        """Of the whole study."""
        return (self.done + sum(self.shares.values())) / max(1, self.total)

    def left(self) -> float | None:
        """Seconds until the end at the pace of this sitting; None while nobody can know."""
        here = self._here + sum(self.shares.values())
        if not here:
            return None
        return (time.monotonic() - self._begin) / here * (self.total - self.done - sum(self.shares.values()))

    def _left(self) -> str:
        left = self.left()
        return "" if left is None else f" | about {left / 60:.0f} min left"

    def _say(self, text: str) -> None:
        if not self.quiet:
            print(text, file=self.out, flush=True)


class BarDisplay(LineDisplay):
    """A bar for the whole and one for each running setting; a line for each that is finished."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        super().__init__(total, out=out)
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"),
            console=Console(file=self.out),
        )  # fmt: skip
        self._whole = self._bars.add_task(f"{total} settings", total=1.0, left="")
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def begun(self, setting: Named) -> None:
        """A setting is begun, or gone on with."""
        self.shares[setting.name] = 0.0
        self._tasks[setting.name] = self._bars.add_task(setting.name, total=1.0, left="")

    def at(self, setting: Named, share: float) -> None:
        """How much of it is done."""
        super().at(setting, share)
        self._bars.update(self._tasks[setting.name], completed=share)
        left = self.left()
        text = "" if left is None else f"{left / 60:.0f} min left"
        self._bars.update(self._whole, completed=self.share, left=text)

    def finished(self, setting: Named, result: Finished) -> None:
        """A setting has its result."""
        if setting.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(setting.name))
        super().finished(setting, result)

    def _left(self) -> str:
        return ""  # the first bar says it

    def _say(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leaves the terminal as it was."""
        self._bars.stop()


def study_display(total: int, quiet: bool) -> LineDisplay:
    """What suits standard error."""
    return BarDisplay(total) if sys.stderr.isatty() and not quiet else LineDisplay(total, quiet)
