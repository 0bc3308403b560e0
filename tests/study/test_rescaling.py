"""A comparison of different effective batches at one learning rate is warned of, and how to rescale is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nmt_async.quantity import Quantity
from nmt_async.study.modes import CompareOptions, settings_of
from nmt_async.study.rescaling import unscaled
from nmt_async.text.prepared import PreparedData

SMALL: dict[str, Any] = {"mini_batch_words": 300, "workers": 4, "learn_rate": 0.002, "budget": Quantity(1e6, "tokens")}


def warnings(data: Path, modes: str, **changes: Any) -> list[str]:
    options = CompareOptions(**{**SMALL, "modes": modes, **changes})
    prepared = PreparedData.open(data)
    return unscaled(settings_of(options, prepared), options.base_name(), prepared)


def test_a_smaller_update_at_the_same_rate_is_warned_of(small_data: Path) -> None:
    (warning,) = warnings(small_data, "sync,async,hybrid:4", lr_warmup=Quantity(100, "updates"))
    said = re.fullmatch(
        r"async updates on about ([\d,]+) target tokens, sync on about ([\d,]+), both at a learning rate of 0\.002; "
        r"for a rate that fits its batch, add async@0\.001 \(by the square root of the ratio\); a warm-up of 100 "
        r"updates is about ([\d,]+) target tokens for it and ([\d,]+) for sync: --lr-warmup [\d.]+kt is the same "
        r"for all\.",
        warning,
    )  # fmt: skip
    assert said
    own, base, own_warmup, base_warmup = (int(number.replace(",", "")) for number in said.groups())
    assert base / own == pytest.approx(4, rel=0.02)
    assert (own_warmup, base_warmup) == pytest.approx((100 * own, 100 * base), rel=0.01)


@pytest.mark.parametrize("modes", ["sync,hybrid:4", "sync,async@0.001", "async"])
def test_what_is_alike_or_rescaled_is_not(small_data: Path, modes: str) -> None:
    assert warnings(small_data, modes) == []


def test_a_warm_up_in_tokens_needs_no_rescaling(small_data: Path) -> None:
    (warning,) = warnings(small_data, "sync,hybrid:8", lr_warmup=Quantity(20_000, "tokens"))
    assert warning.endswith("add hybrid:8@0.0028 (by the square root of the ratio).")
