"""``nmt-async train``: a prepared folder to a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.training.cluster_options import prepare_children
from nmt_async.training.options import TrainOptions

from .declare import CommonOptions

ARGUMENTS = {"data": Annotated[Path, typer.Argument(help="The folder that prepare wrote.", metavar="DATA")]}
OPTIONS = TrainOptions
EXAMPLE = "nmt-async train data --out run --stop-after 20k"
GROUPS = (
    "Run", "Updates", "Devices", "Machines", "Model", "Optimizer", "Batches", "Validation and stopping",
    "Reports and checkpoints", "Who waits", "What crosses", "Staleness", "Optimizer constants", "Quantisation",
)  # fmt: skip


def run(options: TrainOptions, common: CommonOptions, data: Path) -> None:
    """Train a model on prepared data, in sync, async or hybrid mode; resumes RUN if it exists."""
    if not options.dry_run:
        prepare_children(options)  # before this process imports as much
    from nmt_async.display.live import display_for
    from nmt_async.training.dry_run import describe
    from nmt_async.training.trainer import train_run

    if options.dry_run:
        print(describe(options, data))
    else:
        train_run(options, data, display_for(sys.stderr, common.quiet))
