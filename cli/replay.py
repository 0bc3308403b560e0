"""``nmt-async replay``: a run's journals replayed on one process, and compared with the run's checkpoint."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.errors import UserError
from nmt_async.options import option
from nmt_async.progress import progress_for

from .declare import CommonOptions


@dataclass(frozen=True)
class ReplayOptions:
    """What ``nmt-async replay`` understands."""

    until: int | None = option(
        None, "Replay to this update and compare with its checkpoint (default: the newest).", group="Replay",
        metavar="UPDATE",
    )  # fmt: skip
    data: Path | None = option(
        None, "The prepared folder, if it was moved since the run began.", group="Replay", metavar="DATA"
    )

    def __post_init__(self) -> None:
        if self.until is not None and self.until < 1:
            raise UserError(f"--until: {self.until} is not the number of an update; they count from 1.")


OPTIONS = ReplayOptions
ARGUMENTS = {
    "folder": Annotated[Path, typer.Argument(help="Folder of a run, with those of its machines.", metavar="RUN")]
}
EXAMPLE = "nmt-async replay run --until 2000"
GROUPS = ("Replay",)


def run(options: ReplayOptions, common: CommonOptions, folder: Path) -> None:
    """Compute a run again from its journal, on one process, and say whether its checkpoint is the same, bit for bit.

    Of a run that machines have shared, the journals of all of them are needed.
    """
    from nmt_async.training.replay.command import replay
    from nmt_async.training.replay.comparison import verdict

    progress = progress_for(common.quiet or not sys.stderr.isatty())
    print(verdict(folder, replay(folder, options.until, options.data, progress)))
