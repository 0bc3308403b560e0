"""What a page says beside the results: verdicts, tables and ratios, as those who compute them hand them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Column:
    """Of a table; ``number`` columns are set flush right."""

    title: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """Text with the anchor in the page that it leads to (empty: none)."""

    text: str
    anchor: str = ""


Row = tuple[str | Cell, ...]
"""A ``str`` is a cell without an anchor."""


@dataclass(frozen=True)
class Table:
    """Rows of text, each as long as ``columns``."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of the table {self.caption!r} has not {len(self.columns)} cells")


@dataclass(frozen=True)
class Answer:
    """An answer in words, in which backticks set off what is typed.

    Attributes:
        heading: what was asked: "Hybrid matches sync at equal tokens"; empty for none.
        text: the answer with its figures; an empty line parts paragraphs.
        outcome: in a word or two, set apart: "holds", "fails", "undecided at this budget"; empty for none.
        table: that it rests on.
        source: who states it, or where: a paper, a file; empty for none.
    """

    heading: str
    text: str
    outcome: str = ""
    table: Table | None = None
    source: str = ""


@dataclass(frozen=True)
class TimeRatio:
    """A condition's time to a quality over the baseline's; below 1 is faster.

    Attributes:
        condition: as in the results.
        value: None where the condition, or the baseline, did not come to this quality.
        low, high: ends of the 95 % interval; None where there is none.
    """

    condition: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TimeToQuality:
    """Ratios at one quality.

    Attributes:
        quality: as people read it: "cross-entropy 2.00", "BLEU 30".
        baseline: the condition that is 1.
        ratios: of the others, and of the baseline if wanted.
    """

    quality: str
    baseline: str
    ratios: tuple[TimeRatio, ...]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a page says.

    Attributes:
        title: of the page.
        question: that the runs were made to answer; an empty line parts paragraphs.
        verdicts: in the order of reading.
        verdicts_heading: above them.
        times: to a quality, as ratios.
        tables: further ones, shown behind the page's own.
        notes: what the reader must know: settings that are not finished, what the size of the study cannot decide.
        command: that makes the page, empty if there is none.
        facts: about the study as a whole: size, machine, data.
    """

    title: str
    question: str
    verdicts: tuple[Answer, ...] = ()
    verdicts_heading: str = "Verdict"
    times: tuple[TimeToQuality, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
