"""The command replay: of a run that is as its journal says, of one that is not, and of one that it cannot judge."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nmt_async.cli.main import run as run_command
from safetensors.torch import load_file, save_file
from training_runs import PATIENCE, prepare_small, reports_of, run_small, start_typed, until

from nmt_async.checksums import note_hashes, noted_hashes, sha256_of
from nmt_async.sync.journal import Event, Kind, encode
from nmt_async.training.journal_file import JOURNAL, SITTINGS, read_journal, read_sittings

SETTINGS = {"workers": 2, "accumulate": 3, "save_freq": "4", "valid_freq": "6", "exponential_smoothing": 0.01}


@pytest.fixture(scope="module")
def eventful(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two threads a worker, ended by a signal in the midst of a round, that went on with one, with torch's
    kernels and another end.

    Its learning rate falls until --stop-after, so that each sitting has a schedule of its own.
    """
    run = tmp_path_factory.mktemp("eventful") / "run"
    settings = {**SETTINGS, "lr_decay": "linear", "keep_last": 9}
    with start_typed(small_data, run, **settings, cpu_threads=2, disp_freq="2", stop_after="900") as process:
        until(lambda: reports_of(run) >= 3, "three reports")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 128 + signal.SIGTERM
    reached = int((run / "last").read_text().rpartition("-")[2])
    further = {"cpu_threads": 1, "kernels": "torch"}
    run_small(small_data, run, **{**settings, **further}, disp_freq="2", stop_after=str(reached + 6))
    return run


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = run_command(["replay", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def copied(run: Path, there: Path) -> Path:
    shutil.copytree(run, there)
    return there


def test_a_run_is_computed_again_bit_for_bit_with_its_threads_and_schedules(
    eventful: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = [(sitting.number, sitting.threads, sitting.kernels) for sitting in read_sittings(eventful)]
    assert noted == [(1, 2, "fused"), (2, 1, "torch")]
    before = torch.get_num_threads()
    steps = sorted(int(path.name.partition("-")[2]) for path in (eventful / "checkpoints").glob("step-*"))
    for update in (steps[-1], steps[0]):
        code, text = said(capsys, eventful, *(() if update == steps[-1] else ("--until", update)))
        assert code == 0, text
        assert text == (
            f"the journal of {eventful}, replayed to update {update}, leads to what "
            f"{eventful}/checkpoints/step-{update} holds, bit for bit (parameters, step, moment1, moment2, average, "
            "before).\n"
        )
    assert torch.get_num_threads() == before


def test_a_best_model_is_compared_where_no_state_is_kept(eventful: Path, tmp_path: Path, capsys) -> None:
    run = copied(eventful, tmp_path / "run")
    best = int((run / "best").read_text().rpartition("-")[2])
    shutil.rmtree(run / "checkpoints" / f"step-{best}", ignore_errors=True)
    code, text = said(capsys, run, "--until", best)
    assert (code, f"what {run}/checkpoints/best-{best} holds, bit for bit (the model)" in text) == (0, True), text


def test_a_parameter_that_was_changed_is_found(eventful: Path, tmp_path: Path, capsys) -> None:
    run = copied(eventful, tmp_path / "run")
    folder = run / (run / "last").read_text().strip()
    tensors = load_file(folder / "state.safetensors")
    tensors["moment1"][7] += 0.5
    save_file(tensors, folder / "state.safetensors")
    note_hashes(folder, {**noted_hashes(folder), "state.safetensors": sha256_of(folder / "state.safetensors")})
    code, text = said(capsys, run)
    assert code == 1
    assert f"leads to something else than {folder} holds: moment1 differ by up to 0.5" in text


def test_a_run_of_another_learning_rate_is_found(eventful: Path, tmp_path: Path, capsys) -> None:
    run = copied(eventful, tmp_path / "run")
    change_option(run, "learn-rate", 0.0009)
    code, text = said(capsys, run)
    assert code == 1
    assert "leads to something else than" in text
    assert "parameters differ by up to" in text


def test_simulated_runs_and_those_of_other_beginnings_and_pushes_are_replayed_too(
    eventful: Path, small_data: Path, tmp_path: Path, capsys
) -> None:
    for name, settings in {
        "simulated": {"cluster": "simulated", "workers": 3, "sync_mode": "async", "cpu_threads": 2},
        "tuned": {"workers": 1, "init_from": eventful},
        "adaptive": {"cluster": "simulated", "workers": 3, "sync_mode": "adaptive", "accumulate_first": 2,
                     "oldest_push": 1, "older_pushes": "restart"},
        "restarting": {"cluster": "simulated", "workers": 3, "sync_mode": "async", "oldest_push": 0,
                       "older_pushes": "restart", "local_accumulate": 2},
        "compressed": {"workers": 2, "sync_mode": "hybrid", "accumulate": 2, "push_dtype": "bfloat16",
                       "drop_gradients": 0.9, "local_gradients": True, "local_accumulate": 2,
                       "local_optimizer": "adam"},
    }.items():  # fmt: skip
        run_small(small_data, tmp_path / name, **settings, stop_after="8", save_freq="5")
        code, text = said(capsys, tmp_path / name)
        assert (code, "bit for bit" in text) == (0, True), text
    assert "moment2, before, residual.0, residual.1)" in text, "what was left behind is compared, too"


def test_a_run_of_version_0_1_noted_no_sittings_and_is_replayed_by_its_head(
    small_data: Path, tmp_path: Path, capsys
) -> None:
    run_small(small_data, tmp_path / "run", workers=1, stop_after="4", save_freq="4", kernels="torch")
    (tmp_path / "run" / SITTINGS).unlink()
    assert said(capsys, tmp_path / "run")[0] == 0


def test_starts_of_version_0_1_are_those_of_the_head_also_where_a_later_one_noted_itself(
    small_data: Path, tmp_path: Path, capsys
) -> None:
    run = tmp_path / "run"
    for stop in ("4", "8"):
        run_small(small_data, run, workers=1, stop_after=stop, save_freq="4", kernels="torch")
    second = read_sittings(run)[1]
    (run / SITTINGS).write_text(json.dumps({**vars(second), "number": 1}) + "\n")
    change_journal(run, lambda event: replace(event, tokens=1) if event.kind is Kind.RESUMED else event)
    assert said(capsys, run)[0] == 0
    change_journal(run, torch="1.0")
    code, text = said(capsys, run)
    assert (code, "it was computed with torch 1.0" in text) == (2, True), text


def change_journal(run: Path, change: Callable[[Event], Event] = lambda event: event, **head: object) -> None:
    header, events = read_journal(run / JOURNAL)
    records = b"".join(encode(change(event)) for event in events)
    (run / JOURNAL).write_bytes(json.dumps({**header, **head}).encode() + b"\n" + records)


def change_option(run: Path, name: str, value: object) -> None:
    text, count = re.subn(rf"^{name}: .*$", f"{name}: {value}", (run / "config.yaml").read_text(), flags=re.M)
    assert count == 1
    (run / "config.yaml").write_text(text)


def lose_moment(run: Path) -> None:
    folder = run / (run / "last").read_text().strip()
    tensors = load_file(folder / "state.safetensors")
    del tensors["moment1"]
    save_file(tensors, folder / "state.safetensors")
    note_hashes(folder, {**noted_hashes(folder), "state.safetensors": sha256_of(folder / "state.safetensors")})


def change_sitting(run: Path, **values: object) -> None:
    first, *others = (run / SITTINGS).read_text().splitlines()
    (run / SITTINGS).write_text("\n".join([json.dumps({**json.loads(first), **values}), *others]) + "\n")


@pytest.mark.parametrize(("damage", "sentence"), [
    (lambda run: change_sitting(run, torch="1.0"), r"cannot be replayed bit for bit here: .* torch 1\.0, here 2"),
    (lambda run: change_sitting(run, devices=["cuda:0"]), "computed on cuda:0, and a replay computes on the CPU"),
    (lambda run: change_sitting(run, number=9), "does not say with what start 1 of the run computed"),
    (lambda run: change_sitting(run, threads=0), "does not say with what start 1 of the run computed"),
    (lambda run: change_sitting(run, threads=10**9), "does not say with what start 1 of the run computed"),
    (lambda run: change_sitting(run, stop_after="soon"), "start 1 had no schedule: 'soon' is not an amount"),
    (lambda run: (change_journal(run, threads="two"), (run / SITTINGS).unlink()), "first line is damaged"),
    (lambda run: change_option(run, "sync-mode", "async"), "its configuration names no rule"),
    (lambda run: change_option(run, "dim-emb", 32), r"has no parameters of [\d,]+ numbers, as config\.yaml"),
    (lose_moment, r"has no moment1 of [\d,]+ numbers"),
    (lambda run: (run / "journal").write_bytes(b""), "cannot be read as a journal"),
    (lambda run: (run / "data.json").unlink(), "nobody knows on which data the run was trained"),
    (lambda run: (run / "config.yaml").unlink(), "give the folder of a run"),
    (lambda run: shutil.rmtree(run / "checkpoints"), "has no checkpoint to compare with"),
    (lambda run: (run / (run / "last").read_text().strip() / "state.json").write_text("{}"), "choose another"),
])  # fmt: skip
def test_what_cannot_be_judged_is_refused_with_the_reason(
    damage, sentence: str, eventful: Path, tmp_path: Path, capsys
) -> None:
    run = copied(eventful, tmp_path / "run")
    damage(run)
    code, text = said(capsys, run)
    assert (code, len(text.splitlines())) == (2, 1), text
    assert re.search(sentence, text), text


def test_data_that_were_moved_are_named_and_other_data_refused(
    eventful: Path, small_data: Path, tmp_path: Path, capsys
) -> None:
    run = copied(eventful, tmp_path / "run")
    noted = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**noted, "folder": str(tmp_path / "gone")}))
    assert said(capsys, run) == (2, f"nmt-async: the data of {run} are not in {tmp_path}/gone any more; "
                                    "say with --data where they are.\n")  # fmt: skip
    other = prepare_small(tmp_path / "other", vocab_size=300)
    code, text = said(capsys, run, "--data", other)
    assert (code, "holds other data than those of" in text) == (2, True)
    assert said(capsys, run, "--data", small_data)[0] == 0


def test_an_update_without_a_checkpoint_is_refused_with_those_there_are(eventful: Path, capsys) -> None:
    code, text = said(capsys, eventful, "--until", 1)
    assert (code, "keeps no checkpoint of that update; choose from" in text) == (2, True)
    assert said(capsys, eventful, "--until", 0)[0] == 2
