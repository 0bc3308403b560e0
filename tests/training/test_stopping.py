"""Which validation is the best, and when patience has run out."""

from __future__ import annotations

import json
import math

from nmt_async.training.validation import Judge


def test_cross_entropy_is_better_when_lower_and_bleu_when_higher() -> None:
    falling, rising = Judge("cross-entropy", 0, keep=2), Judge("bleu", 0, keep=2)
    for step, value in enumerate([3.0, 2.0, 2.5, 4.0]):
        falling.judge(step, value)
        rising.judge(step, value)
    assert falling.best_steps == [1, 2]
    assert rising.best_steps == [3, 0]
    assert (falling.best, falling.stalled) == (2.0, 2)
    assert (rising.best, rising.stalled) == (4.0, 0)


def test_patience_counts_validations_in_a_row_without_a_better_one() -> None:
    judge = Judge("cross-entropy", 2)
    for step, value in enumerate([3.0, 3.0, 2.0, 2.0]):
        judge.judge(step, value)
        assert not judge.exhausted
    judge.judge(9, 2.0)
    assert judge.exhausted
    assert judge.best_steps == [2]
    assert not Judge("cross-entropy", 0, stalled=99).exhausted


def test_what_is_not_finite_is_never_the_best() -> None:
    judge = Judge("chrf", 2)
    assert not judge.judge(1, math.nan)
    assert math.isnan(judge.best)
    assert judge.judge(2, 1.0)
    assert not judge.judge(3, math.inf)
    assert judge.best_steps == [2]


def test_a_judge_goes_on_from_its_saved_state() -> None:
    judge = Judge("bleu", 3, keep=2)
    judge.judge(1, 10.0)
    judge.judge(2, 9.0)
    restored = Judge("bleu", 3, keep=2)
    restored.restore(json.loads(json.dumps(judge.state())))
    assert restored == judge
