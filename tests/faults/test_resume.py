"""A simulated run that ends at random moments, killed or by a signal, goes on bit-equal to one that nothing befell.

So do its figures, its validations, its patience and its best model. `test_parent` has the same of real processes.
"""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from moments import random_moments
from training_runs import assert_same_state, run_small

from nmt_async.training.interruptions import Interrupted

MORTAL = """
workers:
- {count: 2, tokens-per-second: 300, jitter: 0.3, failure-every: 30, restart-seconds: 2}
- {tokens-per-second: 150, jitter: 0.3, pause-every: 20, pause-seconds: 10, failure-every: 60, restart-seconds: 1}
"""
"""A cluster whose workers die every few batches."""
SIMULATED = {
    "cluster": "simulated", "workers": 3, "save_freq": "5", "valid_freq": "4", "disp_freq": "3",
    "exponential_smoothing": 0.05, "cpu_threads": 1,
}  # fmt: skip
MODES = [
    {"sync_mode": "sync"}, {"sync_mode": "sync", "accumulate": 2}, {"sync_mode": "async"},
    {"sync_mode": "hybrid", "accumulate": 3}, {"sync_mode": "async", "local_accumulate": 2},
    {"sync_mode": "async", "optimizer": "adam", "weight_prediction": "none"},
    {"sync_mode": "hybrid", "accumulate": 3, "weight_prediction": "none"},
    {"sync_mode": "hybrid", "accumulate": 2, "oldest_push": 0},
    {"sync_mode": "hybrid", "accumulate": 2, "max_staleness": 1},
    {"sync_mode": "sync", "accumulate": 2, "fastest": 4}, {"sync_mode": "sync", "accumulate": 2, "balance": True},
    {"sync_mode": "adaptive", "accumulate_first": 2},
    {"sync_mode": "adaptive", "oldest_push": 1, "older_pushes": "restart"},
    {"sync_mode": "async", "oldest_push": 1, "older_pushes": "restart", "local_accumulate": 2},
    {"sync_mode": "hybrid", "accumulate": 2, "oldest_push": 0, "older_pushes": "restart", "drop_gradients": 0.9,
     "local_gradients": True, "push_dtype": "bfloat16"},
]  # fmt: skip


class Crash(Exception):
    """As if the process had been killed: nothing is saved."""


def crash() -> None:
    raise Crash


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def lines(path: Path, kind: str) -> list[dict[str, Any]]:
    """A file's objects of a kind, without the seconds that a validation took."""
    values = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds" or kind == "train"}
            for line in values if line["kind"] == kind]  # fmt: skip


def counted(run: Path) -> Counter[str]:
    """Pushes by staleness, and target tokens, of all stretches."""
    total: Counter[str] = Counter()
    for line in lines(run / "metrics.jsonl", "train"):
        total.update({**line["staleness"], "tokens": line["stretch_tokens"]})
    return total


def assert_same_run(whole: Path, broken: Path) -> None:
    assert_same_state(whole, broken)
    assert counted(whole) == counted(broken)
    assert lines(whole / "metrics.jsonl", "valid") == lines(broken / "metrics.jsonl", "valid")
    assert lines(whole / "validation.jsonl", "valid") == lines(broken / "validation.jsonl", "valid")
    # A pause makes a report more, but what is said last is the same.
    assert lines(whole / "metrics.jsonl", "train")[-1:] == lines(broken / "metrics.jsonl", "train")[-1:]
    for pointer in ("best", "last"):
        assert (whole / pointer).read_text() == (broken / pointer).read_text()


@pytest.fixture
def mortal(tmp_path: Path) -> str:
    profile = tmp_path / "mortal.yaml"
    profile.write_text(MORTAL)
    return str(profile)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_a_run_that_ends_at_random_moments_goes_on_bit_equal(
    small_data: Path, tmp_path: Path, mortal: str, mode: dict[str, Any]
) -> None:
    random, whole, broken = random_moments(), tmp_path / "whole", tmp_path / "broken"
    settings = {**SIMULATED, **mode, "profile": mortal, "stop_after": "24", "save_freq": str(random.randint(1, 6))}
    run_small(small_data, whole, **settings)
    ends: list[Callable[[], None]] = [crash, crash, interrupt]
    random.shuffle(ends)
    for end in ends:
        with pytest.raises((Crash, Interrupted)):
            # It may go on from before an earlier moment, or from after this one, and then ends at the next update.
            run_small(small_data, broken, dict.fromkeys(range(random.randint(1, 20), 24), end), **settings)
    run_small(small_data, broken, **settings)
    assert_same_run(whole, broken)


def test_patience_goes_on_where_it_was(small_data: Path, tmp_path: Path, mortal: str) -> None:
    """The BLEU of so small a model stays 0: each validation after the first takes one of the patience."""
    random, whole, broken = random_moments(), tmp_path / "whole", tmp_path / "broken"
    settings = {**SIMULATED, "profile": mortal, "sync_mode": "async", "valid_freq": "3", "save_freq": "2",
                "metric": "bleu", "valid_translate": True, "early_stopping": 4, "valid_sentences": 2,
                "learn_rate": 1e-9}  # fmt: skip
    assert "by 4 validations in a row without a better bleu" in run_small(small_data, whole, **settings).said
    for update in sorted(random.sample(range(1, 15), 2)):
        with pytest.raises(Crash):
            run_small(small_data, broken, {update: crash}, **settings)
    assert "by 4 validations in a row without a better bleu" in run_small(small_data, broken, **settings).said
    assert_same_run(whole, broken)
