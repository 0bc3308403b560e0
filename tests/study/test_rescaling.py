"""A comparison of different effective batches on one schedule is found, before the runs and after them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_results import condition

from nmt_async.quantity import Quantity
from nmt_async.study.compare_options import CompareOptions, settings_of
from nmt_async.study.conditions import Condition
from nmt_async.study.rescaling import ALIKE, Unscaled, unscaled_runs, unscaled_settings
from nmt_async.text.prepared import PreparedData

SMALL: dict[str, Any] = {"mini_batch_words": 300, "workers": 4, "learn_rate": 0.002, "budget": Quantity(1e6, "tokens")}


def found(data: Path, modes: str, **changes: Any) -> dict[str, Unscaled]:
    options = CompareOptions(**{**SMALL, "modes": modes, **changes})
    prepared = PreparedData.open(data)
    return unscaled_settings(settings_of(options, prepared), options.base_name(), prepared)


def test_a_smaller_update_at_the_same_rate_is_found_before_it_runs(small_data: Path) -> None:
    ((name, different),) = found(small_data, "sync,async,hybrid:4", lr_warmup=Quantity(100, "updates")).items()
    assert name == "async"
    assert different.times == pytest.approx(1 / 4, rel=0.02)
    assert (different.rate, different.warmup) == (0.002, Quantity(100, "updates"))
    assert different.warmup_tokens == pytest.approx(100 * 4 * 300, rel=0.2)


@pytest.mark.parametrize("modes", ["sync,hybrid:4", "async"])
def test_what_is_alike_is_not(small_data: Path, modes: str) -> None:
    assert found(small_data, modes) == {}


def test_a_rate_of_its_own_and_a_warm_up_in_tokens_need_no_rescaling(small_data: Path) -> None:
    tokens = Quantity(20_000, "tokens")
    assert found(small_data, "sync,async@0.001", lr_warmup=tokens) == {}
    (different,) = found(small_data, "sync,hybrid:8", lr_warmup=tokens).values()
    assert (different.rate, different.warmup) == (0.002, None)
    (different,) = found(small_data, "sync,async@0.001").values()
    assert (different.rate, different.warmup) == (None, Quantity(1000, "updates"))


def with_batch(batch: float) -> Condition:
    one = condition("hybrid:4")
    return replace(one, results=tuple(replace(each, effective_batch=batch) for each in one.results))


@pytest.mark.parametrize(("times", "alike"), [(1.0, True), (ALIKE - 0.01, True), (ALIKE + 0.01, False), (0.5, False)])
def test_runs_are_judged_by_the_same_factor_as_plans(times: float, alike: bool) -> None:
    assert (unscaled_runs(with_batch(2000 * times), with_batch(2000)) is None) == alike
