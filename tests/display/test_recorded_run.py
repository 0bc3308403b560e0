"""A run's folder, read on while a trainer writes there and after another one has resumed the run."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import CONFIGURATION, trained, validated, write_run

from nmt_async.display.marian_log import opening_lines, train_line, valid_lines
from nmt_async.display.recorded_run import GrowingFile, RecordedRun, recorded_state
from nmt_async.display.reports import RunTitle, TrainReport, ValidReport
from nmt_async.display.state import Message
from nmt_async.errors import UserError

Report = TrainReport | ValidReport
STAMP = "[2026-01-31 23:59:59] "


def as_lines(reports: Sequence[Report]) -> str:
    return "".join(json.dumps(report.as_mapping()) + "\n" for report in reports)


class Trainer:
    """Writes what a trainer writes into its run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_run(folder, "")
        self.configure("1ku")
        self.reports: list[Report] = []
        self.begin()

    def configure(self, stop: str) -> None:
        text = CONFIGURATION.replace("workers: null", "workers: 2").replace("1ku", stop)
        (self.folder / "config.yaml").write_text(text)

    def begin(self) -> None:
        self.log(*opening_lines("0.1.0", "here", 7, "seed: 1"))

    def log(self, *lines: str) -> None:
        with (self.folder / "train.log").open("a") as file:
            file.writelines(f"{STAMP}{line}\n" for line in lines)

    def report(self, *reports: Report) -> None:
        self.reports += reports
        for report in reports:
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(as_lines([report]))
            self.log(*([train_line(report)] if isinstance(report, TrainReport) else valid_lines(report)))

    def resume(self, update: int) -> None:
        self.reports = [report for report in self.reports if report.update <= update]
        (self.folder / "beside").write_text(as_lines(self.reports))
        os.replace(self.folder / "beside", self.folder / "metrics.jsonl")
        self.begin()


def short(news: Sequence[object]) -> list[object]:
    """Updates of training reports as they are, of validations negative; messages by their text."""
    return [
        item.update if isinstance(item, TrainReport)
        else -item.update if isinstance(item, ValidReport)
        else item.text if isinstance(item, Message)
        else item.name if isinstance(item, RunTitle) else None
        for item in news
    ]  # fmt: skip


RUNNING = "Running on here as process 7"


def test_what_is_new_comes_once_and_the_state_is_that_of_reading_all_at_once(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run")
    run = RecordedRun(trainer.folder)
    assert short(run.read()) == ["run", RUNNING]
    trainer.report(trained(50), trained(100))
    assert short(run.read()) == [50, 100]
    assert run.read() == []
    trainer.report(validated(100), trained(150))
    assert short(run.read()) == [-100, 150]
    assert (run.state.losses, run.state.share, run.state.update) == ((3.0, 3.0, 3.0), 0.15, 150)
    whole = RecordedRun(trainer.folder)
    assert short(whole.read()) == ["run", RUNNING, 50, 100, -100, 150]
    assert whole.state == run.state


def test_a_line_that_is_half_written_waits_for_its_end(tmp_path: Path) -> None:
    run = RecordedRun(write_run(tmp_path / "run", ""))
    line = as_lines([trained(50)])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        for part, news in ((line[:40], ["run"]), (line[40:-1], []), ("\n", [50])):
            file.write(part)
            file.flush()
            assert short(run.read()) == news


def test_a_resumed_run_loses_its_void_future_and_repeats_nothing(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run")
    run = RecordedRun(trainer.folder)
    trainer.report(trained(50), trained(100, loss=2.0), validated(100), trained(150, loss=1.0))
    trainer.log("[warn] worker 1 died")
    run.read()
    trainer.resume(100)
    trainer.configure("200u")
    assert short(run.read()) == ["run", RUNNING]
    assert run.state.losses == (3.0, 2.0)
    assert [report.update for report in run.state.validations] == [100]
    assert [message.text for message in run.state.messages] == [RUNNING, "worker 1 died", RUNNING]
    trainer.report(trained(150, loss=1.5))
    assert short(run.read()) == [150]
    assert (run.state.losses, run.state.share) == ((3.0, 2.0, 1.5), 0.75)


def test_a_resume_and_a_new_report_between_two_looks_are_both_seen(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run")
    run = RecordedRun(trainer.folder)
    trainer.report(trained(50), trained(100), trained(150))
    run.read()
    trainer.resume(50)
    trainer.report(trained(100, loss=2.5))
    assert short(run.read()) == [RUNNING, 100]
    assert run.state.losses == (3.0, 2.5)


def test_messages_stand_before_the_report_that_followed_them(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run")
    trainer.report(trained(50))
    trainer.log("[warn] worker 1 died; a new one takes its place.", "Traceback (most recent call last):")
    with (trainer.folder / "train.log").open("a") as file:
        file.write("  File somewhere\nIndexError: index\n")
    trainer.report(trained(100), trained(150))
    trainer.log("[warn] void")
    trainer.report(trained(200))
    trainer.resume(100)
    trainer.report(trained(150, loss=2.0))
    trainer.log("stopped at update 150 by signal SIGINT")
    run = RecordedRun(trainer.folder)
    assert short(run.read()) == [
        "run", RUNNING, 50, "worker 1 died; a new one takes its place.", 100, "void", RUNNING, 150,
        "stopped at update 150 by signal SIGINT",
    ]  # fmt: skip
    assert [message.warning for message in run.state.messages] == [False, True, True, False, False]
    assert run.last_line is not None
    assert run.last_line.is_end


def test_numbers_that_were_not_finite_can_be_shown(tmp_path: Path) -> None:
    values = {**validated(50).as_mapping(), "cross_entropy": None, "best": None, "perplexity": None}
    state = recorded_state(write_run(tmp_path / "run", as_lines([trained(50)]) + json.dumps(values) + "\n"))
    assert str(state.validations[0].cross_entropy) == "nan"
    assert state.validations[0].bleu == 31.5


def test_a_configuration_that_no_run_can_have_is_shown_without_a_share(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", as_lines([trained(50)]))
    (run / "config.yaml").write_text(CONFIGURATION.replace("stop-after: 1ku", "stop-after: 0"))
    assert recorded_state(run).report is not None


@pytest.mark.parametrize(("mode", "accumulate", "said"), [
    ("sync", "2", "sync, 6 pushes an update"), ("async", "null", "async, each push an update"),
    ("hybrid", "4", "hybrid, 4 pushes an update"), ("hybrid", "null", "hybrid, 3 pushes an update"),
])  # fmt: skip
def test_the_title_tells_the_pushes_of_an_update_as_the_rule_has_them(
    tmp_path: Path, mode: str, accumulate: str, said: str
) -> None:
    folder = Trainer(tmp_path / "run").folder
    (folder / "config.yaml").write_text(
        f"sync-mode: {mode}\naccumulate: {accumulate}\nworkers: 3\ndevices: cpu\npreset: small\nstop-after: null\n"
    )
    run = RecordedRun(folder)
    run.read()
    assert run.state.title is not None
    assert run.state.title.rule() == said


def test_a_damaged_report_is_named_by_its_line(tmp_path: Path) -> None:
    run = RecordedRun(write_run(tmp_path / "run", as_lines([trained(50)])))
    run.read()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train"}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: this is not a report of training or validation."):
        run.read()


def test_a_folder_that_vanishes_is_said(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path / "run")
    run = RecordedRun(trainer.folder)
    run.read()
    (trainer.folder / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"run cannot be read any more \(No such file"):
        run.read()


@given(st.lists(st.binary(max_size=12).map(lambda part: part.replace(b"x", b"\n")), max_size=12))
def test_however_a_file_is_written_each_whole_line_comes_once(parts: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        growing = GrowingFile(path)
        read = []
        with path.open("ab", buffering=0) as file:
            for part in parts:
                file.write(part)
                anew, lines = growing.news()
                assert not anew
                read += lines
        growing.close()
    assert read == b"".join(parts).decode(errors="replace").split("\n")[:-1]


def test_a_file_that_takes_its_place_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    growing = GrowingFile(path)
    assert growing.news() == (False, [])
    path.write_text("1\n2\n3")
    assert growing.news() == (False, ["1", "2"])
    (tmp_path / "beside").write_text("1\nother\n")
    os.replace(tmp_path / "beside", path)
    assert growing.news() == (True, ["1", "other"])
    assert growing.news() == (False, [])


def test_a_file_that_was_shortened_is_read_from_its_start_and_one_that_is_gone_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n2\n")
    growing = GrowingFile(path)
    growing.news()
    path.write_text("3\n")
    assert growing.news() == (True, ["3"])
    path.unlink()
    assert growing.news() == (False, [])


@pytest.mark.parametrize(("mode", "accumulate", "says"), [
    ("sync", "2", "sync, 6 pushes an update"), ("sync", "null", "sync, 3 pushes an update"),
    ("hybrid", "4", "hybrid, 4 pushes an update"), ("async", "1", "async, each push an update"),
])  # fmt: skip
def test_the_title_says_what_the_rule_sums(tmp_path: Path, mode: str, accumulate: str, says: str) -> None:
    folder = write_run(tmp_path / "run", "")
    text = CONFIGURATION.replace("hybrid", mode).replace("accumulate: 2", f"accumulate: {accumulate}")
    (folder / "config.yaml").write_text(text.replace("workers: null", "workers: 3"))
    run = RecordedRun(folder)
    run.read()
    assert run.state.title is not None
    assert run.state.title.rule() == says
