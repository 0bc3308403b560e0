"""The short names of ways of updating, and the names of settings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.options import from_mapping
from nmt_async.planning.modes import mode_name, mode_options
from nmt_async.study.setting import Setting
from nmt_async.training.options import TrainOptions


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("sync", {"sync-mode": "sync"}),
        ("sync:2", {"sync-mode": "sync", "accumulate": 2}),
        ("async", {"sync-mode": "async"}),
        ("hybrid:4", {"sync-mode": "hybrid", "accumulate": 4}),
        ("local:4", {"sync-mode": "async", "local-accumulate": 4}),
        (" hybrid:8@0.0005 ", {"sync-mode": "hybrid", "accumulate": 8, "learn-rate": 0.0005}),
        ("hybrid:4+local:2", {"sync-mode": "hybrid", "accumulate": 4, "local-accumulate": 2}),
        ("async@2e-4", {"sync-mode": "async", "learn-rate": 0.0002}),
    ],
)
def test_a_mode_stands_for_options_of_train(text: str, options: dict[str, object]) -> None:
    assert mode_options(text) == options
    from_mapping(TrainOptions, options, "here")


@pytest.mark.parametrize(
    "text",
    ["", "hogwild", "async:4", "async+local:2", "local:2+local:2", "sync+local:0",
     "local", "hybrid:0", "hybrid:00", "hybrid:-1", "sync@", "sync@fast", "sync@1e999",
     "sync@0", "sync@-1", "sync@1e", "hybrid:" + "9" * 5000, "sync,async"],
)  # fmt: skip
def test_what_is_no_mode_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UserError, match="--modes"):
        mode_options(text)


@given(st.text(alphabet="syncahbridlo:@0123456789.eE+- ", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_mode_or_a_mistake_of_the_user(text: str) -> None:
    try:
        options = mode_options(text)
    except UserError:
        return
    from_mapping(TrainOptions, options, "here")


@given(st.sampled_from(["sync", "hybrid", "local"]), st.integers(2, 999))
def test_a_mode_is_called_as_it_was_typed(name: str, count: int) -> None:
    assert mode_name(mode_options(f"{name}:{count}")) == f"{name}:{count}"


def test_one_batch_of_each_worker_is_plain_sync_and_one_local_batch_plain_async() -> None:
    assert mode_name(mode_options("sync:1")) == "sync"
    assert mode_name(mode_options("local:1")) == "async"


def test_hybrid_without_a_count_sums_as_many_pushes_as_there_are_workers() -> None:
    assert mode_name({"sync-mode": "hybrid", "workers": 4}) == "hybrid:4"
    assert mode_name({"sync-mode": "hybrid", "workers": None}) == mode_name({}) == "hybrid"


def test_a_way_that_sums_in_worker_and_server_says_both() -> None:
    assert mode_name({"sync-mode": "hybrid", "accumulate": 4, "local-accumulate": 2}) == "hybrid:4+local:2"


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        ("hybrid:4", "hybrid-4.seed3"),
        ("post sync @0.001", "post-sync-@0.001.seed3"),
        ("async@1e-3", "async@1e-3.seed3"),
    ],
)
def test_the_name_of_a_setting_can_be_a_file(condition: str, name: str) -> None:
    assert Setting(condition, 3, {}).name == name


@given(st.text(min_size=1, max_size=30))
def test_no_condition_leads_out_of_the_folder(condition: str) -> None:
    name = Setting(condition, 1, {}).name
    assert "/" not in name
    assert "\0" not in name
    assert name not in (".", "..")
