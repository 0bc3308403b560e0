"""``report.md``: verdicts, one table and links to the plots, short enough for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nmt_async.formatting import markdown_table
from nmt_async.report.canvas import Plot
from nmt_async.report.content import Cell, Table, Words
from nmt_async.report.looks import Shown
from nmt_async.report.page import environment, plain
from nmt_async.report.tables import outcome_table


def markdown_page(words: Words, conditions: Sequence[Shown], plots: Sequence[Plot]) -> str:
    """The page, in the Markdown of GitHub."""
    text = (
        environment(markup=False)
        .get_template("report.md")
        .render(words=words, outcomes=_table(outcome_table(conditions)), plots=plots)
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _table(table: Table) -> str:
    """The table, numbers flush right."""
    return markdown_table(
        [plain(column.title) for column in table.columns],
        [[plain(cell.text if isinstance(cell, Cell) else cell) for cell in row] for row in table.rows],
        [column.number for column in table.columns],
    )
