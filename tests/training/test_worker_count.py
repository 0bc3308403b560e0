"""How many workers compute most here: which numbers are tried, which is taken, and a run that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from nmt_async.cli.main import run as command
from training_runs import prepare_small, run_small, typed

from nmt_async.cluster.profile import MOST_WORKERS
from nmt_async.errors import RunFailure, UserError
from nmt_async.study.setting import named
from nmt_async.text.prepared import PreparedData
from nmt_async.training import worker_count
from nmt_async.training.cluster_options import MEASURED
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import training_plan
from nmt_async.training.run_folder import read_options
from nmt_async.training.worker_count import Tried, best, choices, measured, sampled


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        (1, [(1, 1)]),
        (2, [(2, 1), (1, 2)]),
        (3, [(3, 1), (1, 3)]),
        (8, [(8, 1), (4, 2), (2, 4), (1, 8)]),
        (12, [(12, 1), (6, 2), (3, 4), (1, 12)]),
    ],
)
def test_as_many_workers_are_tried_as_have_room_on_the_cores(cores: int, expected: list[tuple[int, int]]) -> None:
    assert choices(cores, ["cpu"]) == expected


def test_gpus_are_shared_by_the_same_number_of_workers_each() -> None:
    assert choices(16, ["cuda:0", "cuda:1"]) == [(8, 2), (4, 4), (2, 8)]


class Machine:
    """One that makes so many target tokens a second with so many workers; each takes so many bytes."""

    def __init__(self, rates: Mapping[int, float], memory: int = 1) -> None:
        self.rates = rates
        self.memory = memory
        self.asked: list[int] = []

    def measure(self, choice: tuple[int, int]) -> Tried:
        self.asked.append(choice[0])
        if self.rates[choice[0]] == 0:
            raise RunFailure("a process that was measured has ended")
        return Tried(*choice, self.rates[choice[0]], self.memory)


EIGHT = [(8, 1), (4, 2), (2, 4), (1, 8)]


def test_the_fastest_is_taken_and_of_equals_that_of_fewest_workers() -> None:
    for rates, expected in (
        ({8: 90.0, 4: 100.0, 2: 70.0, 1: 50.0}, 4),
        ({8: 101.0, 4: 100.0, 2: 70.0, 1: 50.0}, 4),
        ({8: 103.0, 4: 100.0, 2: 70.0, 1: 50.0}, 8),
        ({8: 50.0, 4: 50.0, 2: 50.0, 1: 50.0}, 1),
    ):
        assert best(measured(EIGHT, Machine(rates).measure, there=10**6)).workers == expected


def test_it_gives_up_after_two_that_are_slower() -> None:
    machine = Machine({8: 100.0, 4: 90.0, 2: 80.0, 1: 70.0})
    assert [each.workers for each in measured(EIGHT, machine.measure, there=10**6)] == [8, 4, 2, 1]
    machine = Machine({16: 100.0, 8: 90.0, 4: 80.0, 2: 70.0, 1: 60.0})
    assert [each.workers for each in measured([(16, 1), *EIGHT], machine.measure, there=10**6)] == [16, 8, 4, 1]
    assert machine.asked == [1, 16, 8, 4]


def test_more_workers_than_have_room_in_memory_are_not_tried() -> None:
    machine = Machine({4: 100.0, 2: 70.0, 1: 50.0}, memory=100)
    assert best(measured(EIGHT, machine.measure, there=500)).workers == 4
    assert machine.asked == [1, 4, 2]


def test_a_number_of_workers_that_does_not_run_is_left_out() -> None:
    assert best(measured(EIGHT, Machine({8: 0.0, 4: 0.0, 2: 70.0, 1: 50.0}).measure, there=10**6)).workers == 2
    with pytest.raises(RunFailure):
        measured(EIGHT, Machine({8: 100.0, 4: 0.0, 2: 70.0, 1: 0.0}).measure, there=10**6)


def test_a_sample_is_of_the_same_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PreparedData.open(prepare_small(tmp_path))
    options = TrainOptions(out=tmp_path / "run", mini_batch_words=300, max_length=15)
    plan = training_plan(options, data)
    assert sampled(plan, 1) is plan
    monkeypatch.setattr(worker_count, "SENTENCES", 50)
    few = sampled(plan, 1)
    chosen = [index for batch in range(len(few.epoch(1))) for index in few.epoch(1)[batch]]
    whole = {index for batch in range(len(plan.epoch(1))) for index in plan.epoch(1)[batch]}
    assert len(chosen) == len(set(chosen)) == 50
    assert set(chosen) <= whole


def test_a_run_finds_its_workers_and_threads(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "SECONDS", 0.05)
    monkeypatch.setattr(worker_count, "available_cores", lambda: 2)
    run = tmp_path / "run"
    witness = run_small(small_data, run, workers=MEASURED, cpu_threads=None, stop_after="4", save_freq="4")
    options = read_options(run)
    assert (options.workers, options.cpu_threads) in ((2, 1), (1, 2))
    each = {2: "2 workers of 1 thread", 1: "1 worker of 2 threads"}
    said = f"--workers auto: {each.pop(options.workers or 0)} compute most, about "
    assert said in witness.said
    assert each.popitem()[1] in witness.said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"workers": "auto"}, "--workers auto finds the threads of each worker, too; leave out --cpu-threads.\n"),
        ({"workers": "all"}, "--workers: 'all' is neither a whole number nor auto.\n"),
        ({"workers": MOST_WORKERS + 1}, "is too many"),
        (
            {"workers": "auto", "cluster": "simulated"},
            "--workers auto: workers of a simulated cluster are virtual; give a number, or leave it out.\n",
        ),
    ],
)
def test_what_cannot_be_found_is_said(
    small_data: Path, tmp_path: Path, changes: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", str(small_data), *typed(tmp_path / "run", **changes)]) == 2
    text = capsys.readouterr().err
    assert sentence in text
    assert text.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_runs_of_a_study_have_a_number_of_workers() -> None:
    with pytest.raises(UserError, match=r"study\.yaml: workers auto may be another number in each run; give a number"):
        named({"workers": "auto"}, "study.yaml")
