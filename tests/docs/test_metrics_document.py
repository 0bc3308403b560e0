"""docs/metrics.md has every field that a run writes, and no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from documents import ROOT, behind, fenced, first_cells

from nmt_async.display.reports import MachinesReport, TrainReport, ValidReport
from nmt_async.reading import read_json_lines
from nmt_async.report.results_csv import COLUMNS

DOCUMENT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
KINDS = {"train": TrainReport, "valid": ValidReport}
OF_CORPORA = behind(DOCUMENT, "record: train of several corpora")
OF_MACHINES = behind(DOCUMENT, "record: train of a shared run"), behind(DOCUMENT, "record: machines")


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


def test_every_field_that_a_shared_run_has_besides_is_explained(real_run: Path, shared_run: Path) -> None:
    alone, shared = (read_json_lines(run / "metrics.jsonl") for run in (real_run, shared_run))
    (more,) = {tuple(name for name in line if name not in alone[0]) for line in shared if line["kind"] == "train"}
    assert first_cells(OF_MACHINES[0]) == list(more)
    (machines,) = [line for line in shared if line["kind"] == "machines"]
    assert first_cells(OF_MACHINES[1]) == list(machines)
    assert {line["kind"] for line in alone} == set(KINDS)


def test_the_examples_of_a_shared_run_are_records(shared_run: Path) -> None:
    record = next(line for line in read_json_lines(shared_run / "metrics.jsonl") if line["kind"] == "train")
    fields, machines = (json.loads(fenced(section, "json")[0]) for section in OF_MACHINES)
    report = TrainReport.from_mapping({**record, **fields}).as_mapping()
    assert {name: report[name] for name in fields} == fields
    assert MachinesReport.from_mapping(machines).as_mapping() == machines


def test_every_field_that_a_run_on_several_corpora_has_besides_is_explained(real_run: Path, mixed_run: Path) -> None:
    alone, mixed = (read_json_lines(run / "metrics.jsonl") for run in (real_run, mixed_run))
    (more,) = {tuple(name for name in line if name not in alone[0]) for line in mixed if line["kind"] == "train"}
    assert first_cells(OF_CORPORA) == list(more)
    record = next(line for line in mixed if line["kind"] == "train")
    (example,) = fenced(OF_CORPORA, "json")
    report = TrainReport.from_mapping({**record, **json.loads(example)}).as_mapping()
    assert {name: report[name] for name in more} == json.loads(example)


def test_every_field_of_a_sentences_losses_is_explained(real_run: Path) -> None:
    section = DOCUMENT.partition("## The loss of each validation sentence")[2].partition("\n## ")[0]
    assert first_cells(section) == list(read_json_lines(real_run / "validation.jsonl")[0])


def test_every_column_of_results_is_explained() -> None:
    assert first_cells(behind(DOCUMENT, "columns: results.csv")) == list(COLUMNS)


def test_what_a_validation_on_several_corpora_has_besides_is_explained(real_run: Path, mixed_run: Path) -> None:
    alone, mixed = (
        next(line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "valid")
        for run in (real_run, mixed_run)
    )
    section = behind(DOCUMENT, "record: valid of several corpora")
    assert first_cells(section) == [name for name in mixed if name not in alone]
    example = json.loads(fenced(section, "json")[0])
    report = ValidReport.from_mapping({**mixed, **example}).as_mapping()
    assert {name: report[name] for name in example} == example
