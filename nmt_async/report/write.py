"""Writes the pages of a study: ``report.html``, ``report.md``, ``results.csv`` and ``plots/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.report.content import Words
from nmt_async.report.looks import shown_conditions
from nmt_async.report.markdown import markdown_page
from nmt_async.report.page import html_page
from nmt_async.report.plots import all_plots
from nmt_async.report.rows import csv_text
from nmt_async.study.result import Result
from nmt_async.writing import write_whole

PAGE = "report.html"


def write_report(
    folder: Path, words: Words, results: Sequence[Result], against: Mapping[str, str] | None = None
) -> Path:
    """Writes all pages into ``folder``, made if absent; the path of ``report.html``.

    Conditions come in the order in which ``results`` first has them. No file is ever seen half written.

    Args:
        against: of each condition that is set beside another, that one.

    Raises:
        UserError: matplotlib is not installed, there are no results, or the folder cannot be made.
    """
    if not results:
        raise UserError(f"{folder}: there are no results yet, so nothing to report.")
    conditions = shown_conditions(results, against)
    plots = all_plots(conditions, words.times)
    texts = {
        PAGE: html_page(words, conditions, plots),
        "report.md": markdown_page(words, conditions, plots),
        "results.csv": csv_text([result for condition in conditions for result in condition.results]),
    }
    files = {f"plots/{plot.name}.svg": plot.svg_file.encode() for plot in plots}
    files |= {f"plots/{plot.name}.png": plot.png for plot in plots}
    try:
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        # The pages last: what they point to is there.
        for name, content in {**files, **{name: text.encode() for name, text in reversed(texts.items())}}.items():
            write_whole(folder / name, content)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"{folder}: the report cannot be written ({(error.strerror or '').lower()}).") from None
    return folder / PAGE
