"""``nmt-async study``: runs a study that a file declares, and tells what it says about its claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.errors import UserError, shown
from nmt_async.options import option

from .declare import CommonOptions, as_typed

ARGUMENTS = {
    "declaration": Annotated[Path, typer.Argument(help="The study's file.", metavar="STUDY")],
    "data": Annotated[Path, typer.Argument(help="The folder that prepare wrote.", metavar="DATA")],
}
EXAMPLE = "nmt-async study examples/reproduction/study.yaml data --size quick --out study"
GROUPS = ("Study",)


@dataclass(frozen=True)
class StudyOptions:
    """Which size, where, and how many runs side by side."""

    size: str = option("core", "Which of the study's sizes to run.", group="Study")
    out: Path = option(Path("study"), "The study's folder; what is finished in it is kept.", group="Study")
    results: Path | None = option(
        None, "Keep the result of each finished setting here (default: OUT/results).", group="Study", metavar="DIR"
    )
    claims: Path | None = option(
        None,
        "Judge the claims in this file; without it, conditions are set beside each other as the study's file says.",
        group="Study",
        metavar="FILE",
    )
    jobs: int | None = option(None, "Settings run side by side (default: one a core).", group="Study")

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise UserError(f"--jobs: {self.jobs} is too few; give 1 or more.")


OPTIONS = StudyOptions


def run(options: StudyOptions, common: CommonOptions, declaration: Path, data: Path) -> None:
    """Run a study's settings, several side by side, and report; what is finished is not run again."""
    from nmt_async.display.study import study_display
    from nmt_async.report.canvas import require_matplotlib
    from nmt_async.report.one_study import words_of
    from nmt_async.report.page import write_report
    from nmt_async.study.claims import read_claims
    from nmt_async.study.conditions import by_condition
    from nmt_async.study.declaration import read_declaration
    from nmt_async.study.runner import StudyFolder, run_all, side_by_side
    from nmt_async.study.setting import check_names
    from nmt_async.study.verdicts import judge
    from nmt_async.text.prepared import PreparedData
    from nmt_async.training.cluster_options import available_cores

    require_matplotlib()
    claims = read_claims(options.claims) if options.claims else ()
    study = read_declaration(declaration)
    if options.size not in study.sizes:
        raise UserError(f"--size: {shown(options.size)} is not one of {', '.join(study.sizes)}.")
    size = study.sizes[options.size]
    check_names(size.settings)
    prepared = PreparedData.open(data)
    folder = StudyFolder(options.out, options.results or options.out / "results")
    jobs = options.jobs or side_by_side("simulated", 1, available_cores())
    display = study_display(len(size.settings), common.quiet)
    results = run_all(folder, f"{declaration.stem} {size.name}", prepared, size.settings, jobs, display)
    named = {setting.condition for setting in size.settings}
    judged = judge([claim for claim in claims if named.issuperset(claim.conditions)], by_condition(results))
    first, *others = dict.fromkeys(setting.condition for setting in size.settings)
    against = study.against or dict.fromkeys(others, first)
    words = words_of(
        study.title, study.question, results, against=against, judged=judged,
        notes=[size.note] if size.note else [], command=as_typed(),
    )  # fmt: skip
    for verdict in judged:
        typer.echo(f"{verdict.outcome}: {verdict.claim.says}")
    typer.echo(write_report(options.out, words, results, against))
