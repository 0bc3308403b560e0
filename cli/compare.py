"""``nmt-async compare``: the same data under several ways of updating, and what each costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nmt_async.study.compare_options import CompareOptions, settings_of

from .declare import CommonOptions, as_typed

ARGUMENTS = {"data": Annotated[Path, typer.Argument(help="The folder that prepare wrote.", metavar="DATA")]}
OPTIONS = CompareOptions
EXAMPLE = "nmt-async compare data --modes sync,async,hybrid:4 --budget 2Mt --seeds 1,2,3 --out comparison"
GROUPS = ("Comparison", "Devices", "Model", "Optimizer", "Staleness", "Batches", "Optimizer constants")


def run(options: CompareOptions, common: CommonOptions, data: Path) -> None:
    """Train with several ways of updating and report what each costs; what is finished is not run again."""
    from nmt_async.display.study import study_display
    from nmt_async.report.canvas import require_matplotlib
    from nmt_async.report.one_study import words_of
    from nmt_async.report.page import write_report
    from nmt_async.report.sentences import batch_note
    from nmt_async.study.rescaling import unscaled_settings
    from nmt_async.study.runner import StudyFolder, run_all
    from nmt_async.text.prepared import PreparedData

    require_matplotlib()
    prepared = PreparedData.open(data)
    settings = settings_of(options, prepared)
    for condition, different in unscaled_settings(settings, options.base_name(), prepared).items():
        typer.echo(f"warning: {batch_note(condition, options.base_name(), different)}", err=True)
    folder = StudyFolder(options.out, options.out / "results")
    display = study_display(len(settings), common.quiet)
    results = run_all(folder, "compare", prepared, settings, options.side_by_side(), display)
    question = f"What do {options.modes} cost on {data}, at {options.budget} of each run?"
    against = {mode: options.base_name() for mode in options.mode_list() if mode != options.base_name()}
    words = words_of("Ways of updating compared", question, results, against=against, command=as_typed())
    page = write_report(options.out, words, results, against)
    typer.echo(page)
