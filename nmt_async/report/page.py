"""The pages of a study or a run: ``report.html``, ``report.md``, ``results.csv`` and ``plots/``.

The first is one file without scripts that needs nothing else, light or dark as the reader's system is; the second has
verdicts, one table and links to the plots, short enough for a pull request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nmt_async import __version__
from nmt_async.errors import UserError
from nmt_async.formatting import duration, markdown_table
from nmt_async.report.canvas import FONT, VARIABLES, Plot
from nmt_async.report.content import Cell, Table, Words
from nmt_async.report.looks import Shown, shown_conditions
from nmt_async.report.plots import MACHINES, UPDATES, all_plots
from nmt_async.report.results_csv import COLUMNS, csv_text
from nmt_async.report.tables import (
    anchor,
    machines_table,
    outcome_table,
    parameters,
    points_table,
    runs_table,
    settings_table,
)
from nmt_async.study.result import Result
from nmt_async.writing import write_whole


def spoken(text: str) -> Markup:
    """HTML of a text in which backticks set off what is typed."""
    parts = re.split(r"`([^`\n]*)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def spoken_plain(text: str) -> str:
    """The same in Markdown."""
    parts = re.split(r"`([^`\n]*)`", text)
    return "".join(f"`{part}`" if number % 2 else _escaped(part) for number, part in enumerate(parts))


@cache
def environment(markup: bool) -> Environment:
    """Of our templates; with ``markup``, what is filled in cannot become HTML by accident."""
    made = Environment(
        loader=PackageLoader("nmt_async.report"), autoescape=markup, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters["plain"] = plain
    made.filters["spoken"] = spoken if markup else spoken_plain
    made.filters["paragraphs"] = paragraphs
    made.filters["duration"] = duration
    return made


def paragraphs(text: str) -> list[str]:
    """What empty lines part."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def plain(text: str) -> str:
    """One line of text in which no character means anything to Markdown or HTML."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text)


def html_page(words: Words, conditions: Sequence[Shown], plots: Sequence[Plot]) -> str:
    """The page."""
    results = [result for condition in conditions for result in condition.results]
    settings, shared = settings_table(conditions)
    filled: dict[str, Any] = {
        "words": words,
        "settings": settings,
        "shared": shared,
        "outcomes": outcome_table(conditions),
        "runs": runs_table(results),
        "groups": [
            (
                f"plots-{number}",
                heading,
                [plot for plot in plots if plot.group == heading],
                machines_table(results[0]) if heading == MACHINES else None,
            )
            for number, heading in enumerate(dict.fromkeys(plot.group for plot in plots), 1)
        ],
        "masonry": UPDATES,
        "outcome_counts": Counter(verdict.outcome for verdict in words.verdicts if verdict.outcome),
        "details": [
            (
                anchor(result),
                result,
                parameters(result),
                points_table(result),
                machines_table(result) if result.machines and len(results) > 1 else None,
            )
            for result in results
        ],
        "columns": COLUMNS,
        "looks": {condition.name: condition.look for condition in conditions} if len(conditions) > 1 else {},
        "svg": {plot.name: Markup(plot.svg) for plot in plots},  # ours; names in it are escaped by matplotlib
        "light": {name: colour for colour, (name, _) in VARIABLES.items()},
        "dark": dict(VARIABLES.values()),
        "font": Markup(FONT),
        "version": __version__,
    }
    return environment(markup=True).get_template("report.html").render(filled)


def markdown_page(words: Words, conditions: Sequence[Shown], plots: Sequence[Plot]) -> str:
    """The page, in the Markdown of GitHub."""
    results = [result for condition in conditions for result in condition.results]
    machines = _table(machines_table(results[0])) if len(results) == 1 and results[0].machines else ""
    text = (
        environment(markup=False)
        .get_template("report.md")
        .render(words=words, outcomes=_table(outcome_table(conditions)), plots=plots, machines=machines)
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _table(table: Table) -> str:
    """The table, numbers flush right."""
    return markdown_table(
        [plain(column.title) for column in table.columns],
        [[plain(cell.text if isinstance(cell, Cell) else cell) for cell in row] for row in table.rows],
        [column.number for column in table.columns],
    )


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
