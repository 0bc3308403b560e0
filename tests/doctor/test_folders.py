"""Damage to data, checkpoints, journal and figures is found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_runs import events_of, run_small

from nmt_async.doctor.finding import Finding
from nmt_async.doctor.folders import data_findings, record_findings, saved_findings
from nmt_async.sync.journal import RECORD_BYTES, Event, Kind, encode
from nmt_async.training.journal_file import JournalFile


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def verdicts(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.verdict) for finding in findings]


def test_whole_data_is_fine_and_each_damaged_file_is_named(data: Path) -> None:
    assert verdicts(list(data_findings(data))) == [("data", "fine")]
    flip(data / "train.source.tokens")
    (data / "valid.source.txt").unlink()
    found = list(data_findings(data))
    assert verdicts(found) == [("data", "wrong")] * 2
    assert found[0].found.startswith(f"{data}/train.source.tokens is damaged (its SHA-256 is ")
    assert found[1].found == f"{data}/valid.source.txt is missing"


def test_whole_checkpoints_and_models_are_named(run: Path) -> None:
    (finding,) = saved_findings(run)
    assert (finding.check, finding.verdict) == ("checkpoints", "fine")
    for path in (run / "checkpoints").iterdir():
        assert path.name in finding.found
    assert "step-6" in finding.found
    assert "best-" in finding.found


def test_a_run_that_has_saved_nothing_is_noted(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert verdicts(list(saved_findings(tmp_path))) == [("checkpoints", "note")]


def test_what_becomes_of_a_run_with_damaged_checkpoints_is_said(run: Path) -> None:
    before, last = sorted((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    flip(last / "state.safetensors")
    wrong, fine = saved_findings(run)
    assert (wrong.verdict, fine.verdict) == ("wrong", "fine")
    assert f"{last}: state.safetensors is damaged (its SHA-256 is " in wrong.found
    assert f"train would go on from {before.name}" in wrong.advice
    flip(before / "model.json")
    damaged = [finding for finding in saved_findings(run) if finding.verdict == "wrong"]
    assert len(damaged) == 2
    assert {finding.advice for finding in damaged} == {"no checkpoint is whole: begin anew with another --out"}
    flip(last / "state.safetensors")
    (wrong,) = [finding for finding in saved_findings(run) if finding.verdict == "wrong"]
    assert wrong.advice == "remove it: train goes on from a later one"


def test_a_damaged_best_model_is_named(run: Path) -> None:
    best = run / (run / "best").read_text().strip()
    flip(best / "model.safetensors")
    wrong = next(iter(saved_findings(run)))
    assert wrong.verdict == "wrong"
    assert f"{best}: model.safetensors is damaged" in wrong.found


@pytest.mark.parametrize("content", [b"checkpoints/step-99\n", b"", b"\xff\xfe"])
def test_a_pointer_to_nothing_is_wrong(run: Path, content: bytes) -> None:
    (run / "last").write_bytes(content)
    assert ("last", "wrong") in verdicts(list(saved_findings(run)))


def test_a_checkpoint_of_another_version_is_named(run: Path) -> None:
    folder = run / "checkpoints" / "step-6"
    (folder / "SHA256SUMS").unlink()
    (folder / "state.json").write_text('{"format": 9, "state": {}}')
    wrong = next(iter(saved_findings(run)))
    assert wrong.verdict == "wrong"
    assert "has format 9, this version reads 2" in wrong.found


def test_journal_and_metrics_of_a_run_are_fine(run: Path) -> None:
    journal, metrics = record_findings(run)
    assert (journal.verdict, metrics.verdict) == ("fine", "fine")
    assert journal.found == "12 batches applied, each once"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')  # as a crash leaves it
    assert verdicts(list(record_findings(run)))[1] == ("metrics", "fine")


def test_journals_of_resumed_runs_are_fine(run: Path, small_data: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "step-6").rename(tmp_path / "gone")  # so that some of what is recorded is void
    run_small(small_data, run, cluster="simulated", workers=2, save_freq="2", valid_freq="3", stop_after="9")
    assert next(iter(record_findings(run))).found == "18 batches applied, each once"


def test_another_torch_is_noted(run: Path) -> None:
    path = run / "journal"
    header, newline, records = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(header), "torch": "1.0"}).encode() + newline + records)
    assert "torch 1.0, here" in list(record_findings(run))[1].found


def test_a_batch_that_counts_twice_is_found(run: Path) -> None:
    events = events_of(run)
    update = max(event.version for event in events if event.kind is Kind.UPDATED)
    again = next(event for event in events if event.kind is Kind.ACCUMULATED)
    journal = JournalFile(run / "journal", 2, 1)
    journal.record(Event(Kind.STARTED, 0, again.batch))
    journal.record(again)
    journal.record(Event(Kind.UPDATED, version=update + 1))
    journal.close()
    wrong = next(iter(record_findings(run)))
    assert wrong.verdict == "wrong"
    assert f"started, batch {again.batch[1]} of epoch {again.batch[0]} by worker {again.worker}" in wrong.found
    assert "cannot be: " in wrong.found


def spoil_kind(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"\n") + 1 + 3 * RECORD_BYTES] = 200
    path.write_bytes(content)


def lose_events(path: Path) -> None:
    header = path.read_bytes().partition(b"\n")[0]
    path.write_bytes(header + b"\n" + encode(Event(Kind.RESUMED, version=4, stands=40)))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{"), spoil_kind, lose_events])
def test_a_journal_that_cannot_be_read_is_wrong(run: Path, damage: object) -> None:
    damage(run / "journal")  # type: ignore[operator]
    finding = next(iter(record_findings(run)))
    assert (finding.check, finding.verdict) == ("journal", "wrong")


def test_metrics_that_cannot_be_read_are_wrong(run: Path) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "not JSON\n", *lines[1:]]))
    wrong = list(record_findings(run))[1]
    assert wrong.verdict == "wrong"
    assert f"{path}, line 2: " in wrong.found
    path.unlink()
    assert list(record_findings(run))[1].verdict == "wrong"
