"""A run's folder, its journal and its figures as files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_runs import prepare_small, small_options

from nmt_async.errors import UserError
from nmt_async.quantity import Quantity
from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import Event, Kind
from nmt_async.text.prepared import PreparedData
from nmt_async.training.journal_file import JournalFile, read_journal
from nmt_async.training.metrics import MetricsFiles
from nmt_async.training.run_folder import RunFolder, read_options, settled

EVENT = Event(Kind.STARTED, 1, (2, 3), 4)


def begin(out: Path, data: Path, **changes: Any) -> None:
    RunFolder(out, settled(small_options(out, **changes)), PreparedData.open(data)).close()


@pytest.mark.parametrize("torn", [b"\2", b"\2" * 31, b"\2" * 33])
def test_records_after_a_torn_one_can_be_read(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal"
    for _ in range(2):
        journal = JournalFile(path, workers=2, threads=1)
        journal.record(EVENT)
        journal.close()
        with path.open("ab") as file:
            file.write(torn)
    whole = len(torn) // 32
    header, events = read_journal(path)
    assert (header["workers"], header["threads"]) == (2, 1)
    assert [event for event in events if event == EVENT] == [EVENT, EVENT]
    assert len(events) == 2 + 2 * whole


def test_nothing_counts_on_a_journal_that_is_not_written(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal", workers=2, threads=1)
    journal.record(EVENT)
    with pytest.raises(OSError, match="the journal before it is not written"):
        journal.secure(journal.recorded)
    journal.flush()
    counted = journal.recorded
    journal.record(EVENT)
    journal.secure(counted)
    with pytest.raises(OSError, match="the journal before it is not written"):
        journal.secure(journal.recorded)
    journal.close()


def test_a_torn_journal_header_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'{"format": 1, "wor')
    journal = JournalFile(tmp_path / "journal", workers=2, threads=1)
    journal.record(EVENT)
    journal.close()
    assert read_journal(tmp_path / "journal")[1] == [EVENT]


def test_figures_of_a_void_future_are_taken_out(tmp_path: Path) -> None:
    lines = [{"kind": kind, "update": update} for update in (1, 2, 3) for kind in ("train", "valid")]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '[1]\n\xff\n{"kind": "tra')
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    MetricsFiles(tmp_path, update=2, validated=1).close()
    kept = [(line["kind"], line["update"]) for line in read_json_lines(tmp_path / "metrics.jsonl")]
    assert kept == [("train", 1), ("valid", 1), ("train", 2)]


RECURRENT = {"model": "rnn", "heads": None, "dim_ffn": None, "dim_rnn": 16}


@pytest.mark.parametrize("changes", [{}, {"norm": "post"}, {"decoder_autoreg": "ssru"}, RECURRENT], ids=str)
def test_a_run_goes_on_with_the_model_it_was_begun_with(
    small_data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    for _ in range(2):
        begin(tmp_path / "run", small_data, **changes)
    with pytest.raises(UserError, match=r"begun with --(norm|model|heads|decoder-autoreg) .*; give the same"):
        begin(tmp_path / "run", small_data, **({"norm": "post"} if changes != {"norm": "post"} else RECURRENT))


def test_a_run_from_before_models_could_be_chosen_goes_on(small_data: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", small_data)
    config = tmp_path / "run" / "config.yaml"
    options = yaml.safe_load(config.read_text())
    assert [options.pop(name) for name in ("model", "dim-rnn", "decoder-autoreg")] == ["transformer", None, None]
    config.write_text(yaml.safe_dump({**options, "norm": "pre", "activation": "relu"}))
    begin(tmp_path / "run", small_data)
    begin(tmp_path / "run", small_data)


def test_a_run_goes_on_only_with_its_own_options_and_data(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, small_data)
    begin(run, small_data, stop_after="7", keep_last=3)
    assert read_options(run).stop_after == Quantity(7, "updates")
    with pytest.raises(UserError, match=r"begun with --sync-mode hybrid, now it is sync; give the same"):
        begin(run, small_data, sync_mode="sync")
    other = prepare_small(tmp_path, vocab_size=390)
    with pytest.raises(UserError, match=r"begun on other data \(.*data\); choose another --out"):
        begin(run, other)
    begin(tmp_path / "other", other)


def test_counts_that_nobody_gave_are_the_runs(small_data: Path, tmp_path: Path) -> None:
    begin(tmp_path / "run", small_data, workers=3, accumulate=None, cpu_threads=2)
    unsaid = dataclasses.replace(small_options(tmp_path / "run"), workers=None, accumulate=None, cpu_threads=None)
    options = settled(unsaid)
    assert (options.workers, options.accumulate, options.cpu_threads) == (3, 3, 2)
    anew = settled(dataclasses.replace(unsaid, out=tmp_path / "new"))
    assert (anew.workers, anew.accumulate) == (len(unsaid.device_list()),) * 2


def test_a_run_killed_while_it_began_can_begin_again(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, small_data)
    (run / "config.yaml").rename(run / "config.yaml.partial")
    begin(run, small_data)
    (run / "notes.txt").write_text("mine")
    (run / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"holds 'notes\.txt' and is not a run"):
        begin(run, small_data)


@pytest.mark.parametrize(("name", "content"), [
    ("config.yaml", "{"), ("config.yaml", "workers: many\n"), ("config.yaml", "unheard-of: 1\n"),
    ("data.json", "[]"), ("data.json", ""),
])  # fmt: skip
def test_a_damaged_run_folder_is_named(small_data: Path, tmp_path: Path, name: str, content: str) -> None:
    begin(tmp_path / "run", small_data)
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name}.*the run cannot be resumed, choose another --out\.$"):
        begin(tmp_path / "run", small_data)


def test_a_run_of_a_version_without_an_option_is_resumed(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    begin(run, small_data)
    config = run / "config.yaml"
    values = yaml.safe_load(config.read_text())
    added = {"init", "lr-decay-start"}
    assert added <= values.keys()
    config.write_text(yaml.safe_dump({key: value for key, value in values.items() if key not in added}))
    begin(run, small_data)
    with pytest.raises(UserError, match="--init"):
        begin(run, small_data, init="glorot")


def test_a_run_with_options_that_mean_nothing_is_resumed_without_them(small_data: Path, tmp_path: Path) -> None:
    """They were accepted once, and the sentence that refuses them now says to leave them out."""
    run, rest = tmp_path / "run", {"lr_decay": "none", "lr_warmup": "0"}
    begin(run, small_data, **rest)
    config = run / "config.yaml"
    old = {"lr-decay": "inv-sqrt", "lr-decay-end": "9u", "lr-floor": 0.1}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | old))
    with pytest.raises(UserError, match="--lr-warmup 0 does not fit --lr-decay inv-sqrt"):
        begin(run, small_data, lr_warmup="0")
    begin(run, small_data, **rest)
    options = read_options(run)
    assert (options.lr_decay, options.lr_decay_end, options.lr_floor) == ("none", None, 0.0)


def test_how_a_run_ended_is_not_noted_in_a_folder_that_has_taken_its_place(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = RunFolder(out, settled(small_options(out)), PreparedData.open(small_data))
    out.rename(tmp_path / "elsewhere")
    out.mkdir()
    with pytest.raises(OSError, match="another folder has taken the place"):
        folder.ended("failed", "for a reason")
    assert list(out.iterdir()) == []
    folder.close()
