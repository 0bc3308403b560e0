"""A document whose tables and verdicts are made from results, between markers; the text around them is by hand.

    <!-- generated: final | post sync @0.001 | post hybrid:* @0.001 -->
    ...
    <!-- end -->

makes the table ``final`` of the conditions that the patterns name, in their order; without patterns, of all. `TABLES`
says which tables there are. ``verdicts`` makes the claims with their verdicts, ``short`` a line for each, ``holds``,
``fails`` and ``undecided`` one with the figures for each claim of that outcome; patterns behind these name claims.
``unfinished`` says which runs there are not.
The same results and claims make the same text.

    python -m nmt_async.report.document docs/reproduction.md --study examples/reproduction/study.yaml \\
        --claims examples/reproduction/claims.yaml --results examples/reproduction/results

makes the regions of a document anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from nmt_async.errors import UserError, shown
from nmt_async.report.document_tables import (
    commands_list,
    course_table,
    final_table,
    isolation_table,
    quality_table,
    rates_table,
    runs_paragraph,
    targets_table,
    updating_table,
    winning_table,
)  # fmt: skip
from nmt_async.report.verdicts import OUTCOMES, claims_in_short, claims_that, unfinished_list, verdicts_list
from nmt_async.study.claims import Claim, read_claims
from nmt_async.study.conditions import Condition, Conditions, by_condition
from nmt_async.study.declaration import read_declaration
from nmt_async.study.result import Result
from nmt_async.study.setting import Setting
from nmt_async.study.verdicts import Verdict, judge
from nmt_async.writing import write_whole

TABLES: dict[str, Callable[[Sequence[Condition], Conditions], str]] = {
    "runs": runs_paragraph,
    "final": final_table,
    "updating": updating_table,
    "quality": quality_table,
    "targets": targets_table,
    "course": course_table,
    "isolation": isolation_table,
    "rates": rates_table,
    "winning": winning_table,
    "commands": commands_list,
}
OTHERS = ("verdicts", "short", *OUTCOMES, "unfinished")
_REGION = re.compile(r"(?P<start><!-- generated: (?P<what>[^\n]*?) -->\n)(?P<body>.*?)(?P<end><!-- end -->)", re.DOTALL)
_MARKER = re.compile(r"<!-- (generated: [^\n]*?|end) -->")


def regenerated(
    document: str, results: Iterable[Result], claims: Sequence[Claim], asked: Sequence[Setting] = (),
    against: Mapping[str, str] | None = None,
) -> str:  # fmt: skip
    """The document with its regions made anew.

    Args:
        asked: the runs that the study asks for, whose conditions come in this order.
        against: of each condition that is set beside another, that one.

    Raises:
        UserError: a marker without its counterpart or of an unknown region, or results that cannot be compared.
    """
    _check_markers(document)
    conditions = by_condition(_in_order(results, asked), against)
    verdicts = judge(claims, conditions)

    def made(region: re.Match[str]) -> str:
        return f"{region['start']}\n{_region(region['what'], conditions, verdicts, asked)}\n\n{region['end']}"

    return _REGION.sub(made, document)


def is_current(
    document: str, results: Iterable[Result], claims: Sequence[Claim], asked: Sequence[Setting] = (),
    against: Mapping[str, str] | None = None,
) -> bool:  # fmt: skip
    """Whether making the document's regions anew would change nothing; raises as `regenerated` does."""
    return regenerated(document, results, claims, asked, against) == document


def study_results(folder: Path, asked: Sequence[Setting]) -> list[Result]:
    """The results in the folder of a study's results.

    Raises:
        UserError: there is no folder, or a result cannot be read or was made with other options than the study asks.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name the one with the study's results.")
    wanted = {(setting.condition, setting.seed): setting for setting in asked}
    results = []
    for path in sorted(folder.glob("*.json")):
        result = Result.read(path)
        setting = wanted.get((result.setting.condition, result.setting.seed))
        if setting is None:
            raise UserError(f"{path} is of {result.setting.name}, which the study does not ask for; take it away.")
        if setting != result.setting:
            raise UserError(f"{path} was made with other options than the study has now; run it again.")
        results.append(result)
    return results


def _in_order(results: Iterable[Result], asked: Sequence[Setting]) -> list[Result]:
    places = {name: place for place, name in enumerate(dict.fromkeys(setting.condition for setting in asked))}
    return sorted(results, key=lambda result: places.get(result.setting.condition, len(places)))


def _region(what: str, conditions: Conditions, verdicts: Sequence[Verdict], asked: Sequence[Setting]) -> str:
    kind, *patterns = (part.strip() for part in what.split("|"))
    if kind == "unfinished":
        return unfinished_list(asked, conditions)
    if kind in OTHERS:
        named = [verdict for verdict in verdicts if _named(verdict.claim.id, patterns)]
        if kind in OUTCOMES:
            return claims_that(OUTCOMES[kind], named)
        return verdicts_list(named) if kind == "verdicts" else claims_in_short(named)
    if kind not in TABLES:
        raise UserError(
            f"The document asks for {shown(kind)} between markers; there are {', '.join([*TABLES, *OTHERS])}."
        )
    chosen = [
        condition
        for pattern in patterns or ["*"]
        for condition in conditions.values()
        if fnmatchcase(condition.name, pattern)
    ]
    chosen = list({condition.name: condition for condition in chosen}.values())
    measured = [
        condition for condition in chosen if all(result.points or result.diverged for result in condition.results)
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
            raise UserError(
                f"Line {line} of the document has {shown(marker[0])} where the other marker is due; pair them."
            )
        inside = "" if inside else marker[1]
    regions = len(_REGION.findall(document))
    if not inside and regions != sum(marker[1] != "end" for marker in _MARKER.finditer(document)):
        raise UserError(
            "The document has a marker '<!-- generated: … -->' with something behind it; end the line there."
        )
    if inside:
        raise UserError(f"The document has no '<!-- end -->' behind '<!-- {inside} -->'; write one.")


def main() -> int:
    """``python -m nmt_async.report.document``: exit code 0, or 2 where something cannot be read."""
    parser = argparse.ArgumentParser(
        prog="nmt_async.report.document", description="Makes the regions of a document anew from a study's results."
    )
    parser.add_argument("document", type=Path, help="Markdown with regions between markers")
    parser.add_argument("--study", type=Path, required=True, help="the study's file")
    parser.add_argument("--size", default="full", help="of the study (default: full)")
    parser.add_argument("--claims", type=Path, required=True, help="the file of its claims")
    parser.add_argument("--results", type=Path, required=True, help="the folder of its results")
    typed = parser.parse_args()
    try:
        study = read_declaration(typed.study)
        if typed.size not in study.sizes:
            raise UserError(f"--size: {shown(typed.size)} is not one of {', '.join(study.sizes)}.")
        asked = study.sizes[typed.size].settings
        results = study_results(typed.results, asked)
        text = typed.document.read_text(encoding="utf-8")
        write_whole(typed.document, regenerated(text, results, read_claims(typed.claims), asked, study.against))
    except OSError as error:
        print(f"{error.filename or typed.document}: {error.strerror}.", file=sys.stderr)
        return 2
    except UnicodeDecodeError:
        print(f"{typed.document} is not UTF-8; name a Markdown file.", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
