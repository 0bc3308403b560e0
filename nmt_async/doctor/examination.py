"""All checks, in the order in which one would make them: the machine, what is there, and what is planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from nmt_async.devices import MissingDevice
from nmt_async.display.watch import is_trained
from nmt_async.doctor.finding import Finding
from nmt_async.doctor.folders import data_findings, record_findings, saved_findings
from nmt_async.doctor.machine import machine_findings
from nmt_async.doctor.machines import machines_findings
from nmt_async.doctor.options import DoctorOptions
from nmt_async.doctor.plan import plan_findings
from nmt_async.errors import UserError
from nmt_async.reading import read_object
from nmt_async.text.prepared import MANIFEST, PreparedData
from nmt_async.training.batch_memory import without_auto
from nmt_async.training.options import TrainOptions
from nmt_async.training.run_folder import CONFIG, DATA, earlier_options, read_options, settled


def examine(
    subject: Path | None, options: DoctorOptions, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Finding]:
    """The findings, as they come.

    Args:
        subject: prepared data, the folder of a run, or None for the machine alone.
        tell: takes a sentence about which machine is waited for.

    Raises:
        UserError: ``subject`` is neither, or the options do not fit it.
    """
    if subject is None:
        yield from machine_findings(options.planned())
        yield from machines_findings(options.planned(), None, tell)
    elif any((subject / name).exists() for name in (CONFIG, DATA, "checkpoints")):
        yield from _examine_run(subject, options)
        yield from machines_findings(options.planned(), None, tell)
    elif (subject / MANIFEST).exists():
        planned = options.planned()
        yield from machine_findings(planned)
        yield from _examine_data(subject, planned, options.trial)
        yield from machines_findings(planned, _fingerprint(subject), tell)
    else:
        problem = "is neither prepared data nor a run" if subject.is_dir() else "is no folder"
        raise UserError(f"{subject} {problem}; give what prepare or train wrote, or nothing to look at the machine.")


def _fingerprint(folder: Path) -> str | None:
    """Of prepared data; None if they are damaged, which is told elsewhere."""
    try:
        return PreparedData.open(folder).fingerprint
    except UserError:
        return None


def _examine_data(folder: Path, planned: TrainOptions, trial: bool) -> Iterator[Finding]:
    findings = list(data_findings(folder))
    yield from findings
    if any(finding.verdict == "wrong" for finding in findings):
        return
    data = PreparedData.open(folder)
    try:
        found: list[str] = []
        planned = settled(without_auto(planned, data, found.append))
    except MissingDevice:  # told with the machine
        return
    yield from (Finding("options", "fine", text) for text in found)
    earlier_options(planned.out, planned, data)
    yield from plan_findings(planned, data, trial)


def _examine_run(run: Path, options: DoctorOptions) -> Iterator[Finding]:
    try:
        begun_with = read_options(run)
    except UserError as error:
        problem = str(error).partition(f"--out {run}: ")[2].partition("; the run")[0]
        yield Finding("options", "wrong", problem, "the run cannot go on; its checkpoints still translate")
        yield from saved_findings(run)
        yield from record_findings(run)
        return
    planned = options.going_on(run, begun_with)
    yield from machine_findings(planned)
    if is_trained(run):
        yield Finding("trainer", "note", f"a trainer is writing {run}", "what it uses counts as used here")
    yield from saved_findings(run)
    if (run / "checkpoints").is_dir():
        yield from record_findings(run)
    folder = _data_of(run)
    if isinstance(folder, Finding):
        yield folder
        return
    yield from _examine_data(folder, planned, options.trial)


def _data_of(run: Path) -> Path | Finding:
    """The prepared data that the run was begun on."""
    try:
        folder = Path(read_object(run / DATA)["folder"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Finding("data", "wrong", f"{run / DATA} cannot be read ({error})", "the run cannot be resumed")
    if not (folder / MANIFEST).is_file():
        return Finding(
            "data", "wrong", f"{folder}, on which the run began, is not there",
            "put it back, or give train a copy: the path may differ, the content may not",
        )  # fmt: skip
    return folder
