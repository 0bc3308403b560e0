"""A document whose tables and verdicts are made from results, between markers; the text around them is by hand.

    <!-- generated: final | post sync @0.001 | post hybrid:* @0.001 -->
    ...
    <!-- end -->

makes the table ``final`` of the conditions that the patterns name, in their order; without patterns, of all.
``<!-- generated: verdicts -->`` makes the claims with their verdicts. The same results and claims make the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from nmt_async.errors import UserError
from nmt_async.study.claims import Claim
from nmt_async.study.conditions import Condition, by_condition
from nmt_async.study.result import Result
from nmt_async.study.tables import (
    Conditions,
    commands_list,
    course_table,
    final_table,
    quality_table,
    runs_paragraph,
    targets_table,
    updating_table,
    verdicts_list,
)  # fmt: skip
from nmt_async.study.verdicts import judge

TABLES: dict[str, Callable[[Sequence[Condition], Conditions], str]] = {
    "runs": runs_paragraph,
    "final": final_table,
    "updating": updating_table,
    "quality": quality_table,
    "targets": targets_table,
    "course": course_table,
    "commands": commands_list,
}
VERDICTS = "verdicts"
_REGION = re.compile(r"(?P<start><!-- generated: (?P<what>[^\n]*?) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (generated: [^\n]*?|end) -->")


def regenerated(document: str, results: Iterable[Result], claims: Sequence[Claim]) -> str:
    """The document with its regions made anew.

    Raises:
        UserError: a marker without its counterpart or of an unknown region, or results that cannot be compared.
    """
    _check_markers(document)
    conditions = by_condition(results)

    def made(region: re.Match[str]) -> str:
        return f"{region['start']}\n{_region(region['what'], conditions, claims)}\n\n{region['end']}"

    return _REGION.sub(made, document)


def is_current(document: str, results: Iterable[Result], claims: Sequence[Claim]) -> bool:
    """Whether making the document's regions anew would change nothing; raises as `regenerated` does."""
    return regenerated(document, results, claims) == document


def _region(what: str, conditions: Conditions, claims: Sequence[Claim]) -> str:
    kind, *patterns = (part.strip() for part in what.split("|"))
    if kind == VERDICTS:
        return verdicts_list(judge([claim for claim in claims if _named(claim.id, patterns)], conditions))
    if kind not in TABLES:
        raise UserError(f"The document asks for {kind!r} between markers; there are {', '.join([*TABLES, VERDICTS])}.")
    shown = [
        condition
        for pattern in patterns or ["*"]
        for condition in conditions.values()
        if fnmatchcase(condition.name, pattern)
    ]
    shown = list({condition.name: condition for condition in shown}.values())
    measured = [
        condition for condition in shown if all(result.points or result.diverged for result in condition.results)
    ]
    missing = [pattern for pattern in patterns if not any(fnmatchcase(one.name, pattern) for one in measured)]
    notes = [f"Not run: {', '.join(f'`{pattern}`' for pattern in missing)}."] if missing else []
    return "\n\n".join([*([TABLES[kind](measured, conditions)] if measured else []), *notes]) or "Nothing was run yet."


def _named(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_markers(document: str) -> None:
    inside = ""
    for marker in _MARKER.finditer(document):
        line = document.count("\n", 0, marker.start()) + 1
        if (marker[1] == "end") != bool(inside):
            raise UserError(f"Line {line} of the document has {marker[0]!r} where the other marker is due; pair them.")
        inside = "" if inside else marker[1]
    if inside:
        raise UserError(f"The document has no '<!-- end -->' behind '<!-- {inside} -->'; write one.")
