"""The files of a run's folder: journal, figures, validations, log, configuration, pointers, models, states."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutations import (
    answered,
    as_json,
    damaged,
    json_files,
    json_line_files,
    often,
    twisted,
    warranted_memory,
    yaml_files,
)
from nmt_async.cli.main import run as run_command
from safetensors.torch import load_file

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.cluster.simulated import SimulatedCluster
from nmt_async.display.marian_log import read_log_line
from nmt_async.display.recorded_run import recorded_state, saved_parameters
from nmt_async.display.screen import screen_rows
from nmt_async.errors import UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.planning.simulation import NominalGradients
from nmt_async.reading import read_json_lines
from nmt_async.report.tables import machines_table
from nmt_async.study.collect import collect
from nmt_async.study.result import Result
from nmt_async.sync.journal import RECORD_BYTES, Event, Kind, decode, effective, encode
from nmt_async.text.prepared import PreparedData
from nmt_async.training.journal_file import JOURNAL, JournalFile, read_journal
from nmt_async.training.metrics import ReportPeriod, _drop_later, _latest_machines
from nmt_async.training.parts import build_coordinator, training_plan
from nmt_async.training.run import NO_STATE
from nmt_async.training.run_folder import RunFolder, read_options, settled
from nmt_async.training.validation import Judge


@pytest.fixture(scope="session")
def run(real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder in which a test may overwrite the file that it puts back."""
    return Path(shutil.copytree(real_run, tmp_path_factory.mktemp("fuzzed") / "run"))


@contextlib.contextmanager
def containing(path: Path, content: bytes) -> Iterator[None]:
    """The file holds ``content`` for a while."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


@often
@given(mutation=st.data())
def test_a_journal_is_read_or_refused(run: Path, mutation: st.DataObject) -> None:
    path = run / JOURNAL
    with containing(path, mutation.draw(damaged(path.read_bytes()))):
        before = path.read_bytes()
        found = answered(lambda: read_journal(path))
        journal = answered(lambda: JournalFile(path, 2, 1))
        if journal is None:
            assert path.read_bytes() == before
            return
        journal.close()
        if found is not None:
            assert read_journal(path) == found


@often
@given(mutation=st.data())
def test_a_journals_header_is_read_or_refused(run: Path, mutation: st.DataObject) -> None:
    path = run / JOURNAL
    header, newline, records = path.read_bytes().partition(b"\n")
    with containing(path, mutation.draw(json_files(header)) + newline + records):
        found = answered(lambda: read_journal(path))
        if found is not None:
            assert found[0]["workers"] >= 1


@often
@given(st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 5), st.integers(0, 2**32 - 1))))
def test_what_stands_of_any_events_is_told_or_refused(events: list[tuple[Kind, int, int]]) -> None:
    written = b"".join(encode(Event(kind, worker, stands=stands)) for kind, worker, stands in events)
    assert len(written) == RECORD_BYTES * len(events)
    with contextlib.suppress(ValueError):
        assert len(effective(decode(written))) <= len(events)


@often
@given(mutation=st.data())
def test_figures_are_shown_or_refused(run: Path, mutation: st.DataObject, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "metrics.jsonl"
    with containing(path, mutation.draw(json_line_files(path.read_bytes()))):
        read_json_lines(path)
        assert run_command(["watch", "--once", str(run)]) in (0, 2)
        answered(lambda: recorded_state(run))
        answered(lambda: collect(run))
        _drop_later(path, 4, 3)
        answered(lambda: recorded_state(run))
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture(scope="session")
def run_of_two(shared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a run that two machines share."""
    return Path(shutil.copytree(shared_run, tmp_path_factory.mktemp("fuzzed") / "run"))


@often
@given(mutation=st.data())
def test_figures_of_a_shared_run_are_shown_or_refused(
    run_of_two: Path, mutation: st.DataObject, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_of_two / "metrics.jsonl"
    with containing(path, mutation.draw(json_line_files(path.read_bytes()))):
        assert run_command(["watch", "--once", str(run_of_two)]) in (0, 2)
        state = answered(lambda: recorded_state(run_of_two))
        if state is not None:
            screen_rows(state, 80, 40)
        result = answered(lambda: collect(run_of_two))
        if result is not None:
            machines_table(result)
        _latest_machines(path)
        _drop_later(path, 4, 3)
    assert "Traceback" not in capsys.readouterr().err


@often
@given(mutation=st.data())
def test_a_validations_losses_are_read_or_refused(run: Path, mutation: st.DataObject) -> None:
    path = run / "validation.jsonl"
    with containing(path, mutation.draw(json_line_files(path.read_bytes()))):
        answered(lambda: collect(run))
        read_json_lines(path)
        _drop_later(path, 4, 3)


@often
@given(mutation=st.data())
def test_a_log_is_shown_whatever_it_says(run: Path, mutation: st.DataObject) -> None:
    path = run / "train.log"
    with containing(path, mutation.draw(damaged(path.read_bytes()))):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            read_log_line(line)
        recorded_state(run)
        collect(run)


@often
@given(mutation=st.data())
def test_a_runs_configuration_is_read_or_refused(
    run: Path, mutation: st.DataObject, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "config.yaml"
    with containing(path, mutation.draw(yaml_files(path.read_bytes()))):
        options = answered(lambda: read_options(run))
        answered(lambda: collect(run))
        assert run_command(["watch", "--once", str(run)]) in (0, 2)
        if options is not None:
            answered(lambda: settled(options))
    assert "Traceback" not in capsys.readouterr().err


@often
@given(mutation=st.data())
def test_what_a_run_was_trained_on_is_read_or_refused(run: Path, small_data: Path, mutation: st.DataObject) -> None:
    path, data, options = run / "data.json", PreparedData.open(small_data), read_options(run)
    with containing(path, mutation.draw(json_files(path.read_bytes()))):
        answered(lambda: collect(run))
        with contextlib.suppress(UserError):
            RunFolder(run, options, data).close()


@often
@given(mutation=st.data())
def test_a_pointer_names_a_model_of_the_run_or_is_refused(run: Path, mutation: st.DataObject) -> None:
    path = run / mutation.draw(st.sampled_from(["best", "last"]))
    with containing(path, mutation.draw(damaged(path.read_bytes()))):
        loaded = answered(lambda: load_model(run))
        if loaded is not None:
            assert run.resolve() in loaded.folder.resolve().parents
        saved_parameters(run)


@often
@given(mutation=st.data())
def test_a_model_is_read_or_refused(run: Path, mutation: st.DataObject) -> None:
    folder = run / (run / "last").read_text().strip()
    path = folder / mutation.draw(st.sampled_from(["model.json", "model.safetensors", "vocabulary.model"]))
    content = mutation.draw(json_files(path.read_bytes()) if path.suffix == ".json" else damaged(path.read_bytes()))
    with containing(path, content):
        answered(lambda: load_model(folder))
        saved_parameters(run)


@often
@given(mutation=st.data())
def test_a_result_is_read_or_refused(real_run: Path, tmp_path: Path, mutation: st.DataObject) -> None:
    path = tmp_path / "result.json"
    if not path.exists():
        collect(real_run).write(path)
    whole = json.loads(path.read_bytes())
    with containing(path, mutation.draw(twisted(whole).map(as_json) | damaged(path.read_bytes()))):
        answered(lambda: Result.read(path))


@often
@given(mutation=st.data())
def test_a_checkpoints_state_is_taken_up_or_refused(run: Path, small_data: Path, mutation: st.DataObject) -> None:
    folder, options = run / (run / "last").read_text().strip(), read_options(run)
    values = json.loads((folder / "state.json").read_text())["state"]
    tensors = load_file(folder / "state.safetensors")
    plan = training_plan(options, PreparedData.open(small_data))
    layout = FlatLayout(load_model(folder).model)
    coordinator = build_coordinator(options, plan, layout, tensors["parameters"][None].clone(), encode, lambda _: None)
    cluster = SimulatedCluster(coordinator, NominalGradients(plan, 1), options.cluster_profile(), options.seed)
    cluster.slots = torch.zeros_like(tensors["slots"])
    judge = Judge(options.metric, options.early_stopping)
    changed = mutation.draw(twisted(values))
    # A run turns these into a sentence.
    with warranted_memory(), contextlib.suppress(*NO_STATE):
        coordinator.restore(changed["coordinator"], tensors, 2)
        cluster.restore(changed["cluster"], tensors)
        judge.restore(changed["judge"])
        ReportPeriod.restored(changed["stretch"])
