"""docs/metrics.md has every field that a run writes, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from documents import ROOT, behind, fenced, first_cells

from nmt_async.display.reports import TrainReport, ValidReport
from nmt_async.reading import read_json_lines
from nmt_async.report.results_csv import COLUMNS

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
KINDS = {"train": TrainReport, "valid": ValidReport}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_record_is_explained_in_the_order_of_the_record(kind: str, real_run: Path) -> None:
    written = next(record for record in read_json_lines(real_run / "metrics.jsonl") if record["kind"] == kind)
    assert first_cells(behind(DOCUMENT, f"record: {kind}")) == list(written)


@pytest.mark.parametrize(("kind", "report"), KINDS.items())
def test_the_example_is_a_record(kind: str, report: type[TrainReport | ValidReport]) -> None:
    [block] = fenced(behind(DOCUMENT, f"record: {kind}"), "json")
    example = json.loads(block)
    assert report.from_mapping(example).as_mapping() == {
        name: ({int(age): count for age, count in value.items()} if name == "staleness" else value)
        for name, value in example.items()
    }


def test_every_field_of_a_sentences_losses_is_explained(real_run: Path) -> None:
    section = DOCUMENT.partition("## The loss of each validation sentence")[2].partition("\n## ")[0]
    assert first_cells(section) == list(read_json_lines(real_run / "validation.jsonl")[0])


def test_every_column_of_results_is_explained() -> None:
    assert first_cells(behind(DOCUMENT, "columns: results.csv")) == list(COLUMNS)
