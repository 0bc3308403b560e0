from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from training_runs import alive, until

from nmt_async.errors import RunFailure, UserError
from nmt_async.translate.processes import WINDOWS_A_PROCESS, Processes


@dataclass(frozen=True)
class Doubling:
    """Work that says each text twice; some texts do something else first.

    Attributes:
        folder: where it notes what it has done once already.
    """

    folder: Path

    def __call__(self, device, warn):
        if device == "broken":
            raise UserError("there is no such device; give another.")
        if device == "dying":
            os.kill(os.getpid(), signal.SIGKILL)

        def work(lines, first):
            for number, line in enumerate(lines, first):
                self.act(line)
                if line == "warn":
                    warn(f"line {number} is odd")
            return [line * 2 for line in lines]

        return work

    def act(self, line):
        once = self.folder / "once"
        if line == "die" or (line == "die once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if line == "fail":
            raise ValueError("what a line")
        if line == "slow":
            time.sleep(0.3)


@pytest.fixture(scope="module")
def said():
    """What the shared processes have said since last asked."""
    return []


@pytest.fixture(scope="module")
def pair(tmp_path_factory, said):
    """Two processes, shared because each takes seconds to start."""
    with Processes(Doubling(tmp_path_factory.mktemp("processes")), ["cpu", "cpu"], 1, said.append) as processes:
        yield processes


def test_results_and_what_is_said_come_in_the_order_of_the_lines(pair, said):
    windows = [["slow"], ["a", "warn"], ["b"], [], ["warn"], ["c"] * 7, ["d"]]
    assert list(pair.results(iter(windows))) == [line * 2 for window in windows for line in window]
    assert said == ["line 3 is odd", "line 5 is odd"]
    assert list(pair.results(iter([]))) == []


def test_no_more_is_read_than_two_windows_a_process(pair):
    read = itertools.count()
    results = pair.results([f"{next(read)}"] for _ in itertools.count())
    for _ in range(30):
        next(results)
    assert next(read) - 30 <= 2 * WINDOWS_A_PROCESS + 1
    results.close()


def test_what_was_left_undone_is_in_nobodys_way(pair):
    results = pair.results([f"{number}"] for number in itertools.count())
    next(results)
    results.close()
    assert list(pair.results(iter([["x"], ["y"]]))) == ["xx", "yy"]


def test_a_line_gets_its_result_before_the_next_is_there(pair):
    more = threading.Semaphore(0)

    def windows():
        for line in ("one", "two"):
            yield [line]
            more.acquire(timeout=60)

    results = pair.results(windows())
    for line in ("one", "two"):
        assert next(results) == line * 2
        more.release()
    assert list(results) == []


def test_a_problem_while_reading_comes_after_what_was_read(pair):
    def windows():
        yield ["a"]
        raise UserError("the file is cut off.")

    results = pair.results(windows())
    assert next(results) == "aa"
    with pytest.raises(UserError, match="cut off"):
        next(results)


def test_a_process_that_dies_has_its_window_done_again(pair, said):
    said.clear()
    assert list(pair.results(iter([["a"], ["b", "die once"], ["c"]]))) == ["aa", "bb", "die oncedie once", "cc"]
    assert said == ["a process died at lines 2 to 3 (killed by signal 9; out of memory?); a new one takes its place."]


def test_a_process_that_is_killed_while_it_waits_is_replaced(pair):
    os.kill(pair.pids[0], signal.SIGKILL)
    assert list(pair.results(iter([["a"], ["b"]]))) == ["aa", "bb"]


@pytest.mark.parametrize(
    ("device", "line", "deaths", "error", "message"),
    [
        ("cpu", "die", 2, RunFailure, "processes died 2 times at lines 2 to 2, the last one killed by signal 9"),
        ("cpu", "fail", 2, RunFailure, "a process failed at lines 2 to 2: ValueError: what a line"),
        ("broken", "a", 2, UserError, "there is no such device; give another."),
        ("dying", "a", 1, RunFailure, "processes died 1 times as it started, the last one killed by signal 9"),
    ],
)
def test_what_cannot_be_done_ends_with_one_sentence_and_no_process(
    tmp_path, monkeypatch, device, line, deaths, error, message
):
    monkeypatch.setattr("nmt_async.translate.processes.MOST_DEATHS", deaths)
    with Processes(Doubling(tmp_path), [device], 1, [].append) as processes:
        with pytest.raises(error, match=message):
            list(processes.results(iter([["a"], [line], ["b"]])))
        pids = processes.pids
    until(lambda: not any(map(alive, pids)), "the end of the processes")
