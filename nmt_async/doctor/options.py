"""The options of ``doctor``: those of the planned run, and how to look at it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError
from nmt_async.options import flag_of, option
from nmt_async.training.machine_options import MachineOptions
from nmt_async.training.options import RunOptions, TrainOptions


@dataclass(frozen=True)
class DoctorOptions(MachineOptions, RunOptions):
    """Those of train are the planned run's; a run that is there knows its own."""

    trial: bool = option(
        True, "Compute the longest training batch and translate the longest validation batch.", group="Examination"
    )
    json: bool = option(False, "Print the findings as JSON.", group="Examination", flags=("--json",))

    def planned(self) -> TrainOptions:
        """As `train` would take them."""
        return TrainOptions(**{field.name: getattr(self, field.name) for field in _fields()})

    def going_on(self, run: Path, begun_with: TrainOptions) -> TrainOptions:
        """Those of the run in ``run``, with what was typed instead.

        Raises:
            UserError: another folder was typed.
        """
        from nmt_async.training.resuming import with_workers

        typed = {
            field.name: getattr(self, field.name) for field in _fields() if getattr(self, field.name) != field.default
        }
        out = typed.pop("out", run)
        if out != run:
            field = next(field for field in dataclasses.fields(RunOptions) if field.name == "out")
            raise UserError(f"{flag_of(field)} {out}: the run is in {run}; leave it out.")
        changed = with_workers(begun_with, typed.pop("workers", None), typed.pop("nodes", None))
        return dataclasses.replace(changed, **{"devices": None, **typed, "out": run})


def _fields() -> tuple[dataclasses.Field[Any], ...]:
    """The options of the planned run."""
    return (*dataclasses.fields(MachineOptions), *dataclasses.fields(RunOptions))
