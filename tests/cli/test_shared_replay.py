"""The command replay of runs that simulated machines share; those of real ones are in training/test_shared_runs.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nmt_async.cli.main import run as run_command
from training_runs import run_small

from nmt_async.sync.journal import RECORD_BYTES, Event, Kind, encode
from nmt_async.training.interruptions import Interrupted
from nmt_async.training.journal_file import JOURNAL, SITTINGS, read_journal

COMMON = {"cluster": "simulated", "workers": 2, "profile": "uneven", "save_freq": "4", "disp_freq": "4"}
WAYS: dict[str, dict[str, Any]] = {
    "sync": {"between": "sync", "sync_mode": "sync"},
    "sync of hybrid": {"between": "sync", "sync_mode": "hybrid", "accumulate": 3, "exponential_smoothing": 0.01},
    "lagged": {"between": "lagged", "sync_mode": "hybrid", "accumulate": 2},
    "local": {"between": "local", "local_updates": 2, "sync_mode": "async"},
    "local of fragments": {
        "between": "local", "local_updates": 4, "outer_fragments": 2, "outer_dtype": "bfloat16",
        "sync_mode": "hybrid", "accumulate": 2,
    },
}  # fmt: skip
"""What is summed in each way, the least for which machines have something to themselves."""


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run_command(["replay", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def paused(data: Path, run: Path, update: int, **options: Any) -> None:
    """Trains until a signal ends it at that update."""
    with pytest.raises(Interrupted):
        run_small(data, run, {update: lambda: os.kill(os.getpid(), signal.SIGTERM)}, **COMMON, **options)


@pytest.mark.parametrize("machines", [2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_paused_and_went_on_is_computed_again(
    small_data: Path, tmp_path: Path, way: str, machines: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run, options = tmp_path / "run", {**WAYS[way], "nodes": machines}
    paused(small_data, run, 6, **options)
    run_small(small_data, run, stop_after="11", **COMMON, **options)
    steps = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert steps[-1] >= 11
    code, text = said(capsys, run)
    assert code == 0, text
    assert f"the journals of the {machines} machines of {run}, replayed to update {steps[-1]}, lead to what" in text
    assert "bit for bit (parameters, step, moment1, moment2" in text
    assert ("outer_momentum" in text) == way.startswith("local")
    assert ("average" in text) == ("exponential_smoothing" in options)


@pytest.fixture(scope="module")
def shared_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A short run of two machines in a way, not to be changed."""
    made: dict[str, Path] = {}

    def of(way: str) -> Path:
        if way not in made:
            made[way] = tmp_path_factory.mktemp("shared") / "run"
            for stop in ("4", "8"):
                run_small(small_data, made[way], stop_after=stop, nodes=2, **COMMON, **WAYS[way])
        return made[way]

    return of


def copied(run: Path, there: Path) -> Path:
    shutil.copytree(run, there)
    return there


def rewrite(journal: Path, events: list[Event]) -> None:
    head = journal.read_bytes().partition(b"\n")[0]
    journal.write_bytes(head + b"\n" + b"".join(map(encode, events)))


CHANGES: dict[str, Callable[[Event], list[Event]]] = {
    "lost": lambda _: [],
    "twice": lambda event: [event, event],
    "of another version": lambda event: [replace(event, version=event.version + 1)],
    "of more tokens": lambda event: [replace(event, tokens=event.tokens + 1)],
    "of another worker": lambda event: [replace(event, worker=event.worker + 1)],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", ["sync of hybrid", "lagged", "local"])
@pytest.mark.parametrize("machine", ["", "machine-1"])
def test_a_journal_that_was_changed_is_found(
    shared_run: Callable[[str], Path], tmp_path: Path, change: str, way: str, machine: str, capsys
) -> None:
    run = copied(shared_run(way), tmp_path / "run")
    assert said(capsys, run)[0] == 0
    journal = run / machine / JOURNAL
    events = read_journal(journal)[1]
    found = set()
    for place, event in enumerate(events[: len(events) // 3]):
        # Nothing computes where machines begin, and a run's start is told by its number.
        if event.kind in found or event.kind is Kind.RESUMED:
            continue
        found.add(event.kind)
        rewrite(journal, [*events[:place], *CHANGES[change](event), *events[place + 1 :]])
        code, text = said(capsys, run)
        assert (code != 0, len(text.splitlines())) == (True, 1), (event, text)
    assert {Kind.DEALT, Kind.STARTED, Kind.ACCUMULATED, Kind.CONTRIBUTED, Kind.UPDATED} <= found
    assert (Kind.STEPPED in found) == (way == "local")


def cut(journal: Path, kind: Kind, start: int = 2) -> None:
    """From the first event of a kind in a start on, nothing of it was written."""
    events = read_journal(journal)[1]
    begins = [place for place, event in enumerate(events) if event.kind is Kind.RESUMED]
    there = next(place for place in range(begins[start - 1], len(events)) if events[place].kind is kind)
    rewrite(journal, events[:there] + [event for after in begins[start:] for event in events[after:]])


def other_options(run: Path, **changes: object) -> None:
    """The second machine has options of its own, as a real one has."""
    shutil.copy(run / "data.json", run / "machine-1")
    text = (run / "config.yaml").read_text()
    for name, value in changes.items():
        text = "\n".join(f"{name}: {value}" if line.startswith(f"{name}:") else line for line in text.splitlines())
    (run / "machine-1" / "config.yaml").write_text(text + "\n")


def change_sittings(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    lines = [json.loads(line) for line in (folder / SITTINGS).read_text().splitlines()]
    for line in lines:
        change(line)
    (folder / SITTINGS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(("damage", "sentence"), [
    (lambda run: shutil.rmtree(run / "machine-1"), "had 2 machines, and no journal here is that of machine 1 of them"),
    (lambda run: cut(run / "machine-1" / JOURNAL, Kind.DEALT, start=1), "events are missing before update 4"),
    (lambda run: cut(run / "machine-1" / JOURNAL, Kind.CONTRIBUTED), "ends before update 8, to which start 2 of the"),
    (lambda run: cut(run / "machine-1" / JOURNAL, Kind.UPDATED), "ends before the machine's part in exchange 2 of"),
    (lambda run: (run / "machine-1" / JOURNAL).write_bytes(b"{}"), "cannot be read as a journal"),
    (lambda run: (run / "machine-1" / SITTINGS).unlink(), "machine-1 cannot be replayed: sittings.jsonl does not say"),
    (lambda run: change_sittings(run / "machine-1", lambda line: line.update(torch="1.0")), "with torch 1.0, here 2"),
    (lambda run: change_sittings(run, lambda line: line["shared"]["options"].update(seed=2)), "seed is not known"),
    (lambda run: change_sittings(run, lambda line: line["shared"].update(machine=7)), "there was no machine 7 in"),
    (lambda run: other_options(run, seed=2), "is of another run than"),
])  # fmt: skip
def test_what_cannot_be_judged_is_refused_with_the_reason(
    shared_run: Callable[[str], Path], tmp_path: Path, damage: Callable[[Path], object], sentence: str, capsys
) -> None:
    run = copied(shared_run("lagged"), tmp_path / "run")
    damage(run)
    code, text = said(capsys, run)
    assert (code, len(text.splitlines())) == (2, 1), text
    assert sentence in text


def test_the_folder_of_another_machine_is_not_the_runs(
    shared_run: Callable[[str], Path], tmp_path: Path, capsys
) -> None:
    run = copied(shared_run("sync"), tmp_path / "run")
    other_options(run)
    assert said(capsys, run)[0] == 0
    code, text = said(capsys, run / "machine-1")
    assert (code, f"give that of the first one, {run}, in which" in text) == (2, True), text


def test_how_machines_exchanged_is_that_of_each_start(small_data: Path, tmp_path: Path, capsys) -> None:
    """The way may be another one when the run goes on."""
    run = tmp_path / "run"
    for stop, between in (("4", {"between": "local", "local_updates": 2}), ("8", {"between": "sync"})):
        run_small(small_data, run, stop_after=stop, nodes=2, sync_mode="hybrid", accumulate=2, **COMMON, **between)
    code, text = said(capsys, run)
    assert code == 0, text
    code, text = said(capsys, run, "--until", 4)
    assert (code, "outer_momentum" in text) == (0, True), text


def test_a_journal_that_a_crash_has_torn_is_replayed_as_far_as_it_counts(
    shared_run: Callable[[str], Path], tmp_path: Path, capsys
) -> None:
    """What comes after the latest contribution counts for nothing."""
    run = copied(shared_run("lagged"), tmp_path / "run")
    journal = run / "machine-1" / JOURNAL
    events = read_journal(journal)[1]
    last = max(place for place, event in enumerate(events) if event.kind is Kind.UPDATED and event.version == 8)
    contributed = max(place for place, event in enumerate(events[:last]) if event.kind is Kind.CONTRIBUTED)
    rewrite(journal, events[: contributed + 1])
    with journal.open("ab") as file:
        file.write(encode(events[contributed + 1])[: RECORD_BYTES // 2])
    code, text = said(capsys, run)
    assert code == 0, text


def test_a_best_model_is_compared_where_no_state_is_kept(small_data: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    options = {**COMMON, **WAYS["sync"], "nodes": 2, "valid_freq": "3", "keep_last": 1, "keep_best": 2}
    run_small(small_data, run, stop_after="5", **options)
    run_small(small_data, run, stop_after="8", **options)
    best = min(int(path.name[5:]) for path in (run / "checkpoints").glob("best-*"))
    code, text = said(capsys, run, "--until", best)
    assert (code, f"best-{best} holds, bit for bit (the model)" in text) == (0, True), text
