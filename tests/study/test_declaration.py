"""A study's file: conditions, sizes, and what is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt_async.errors import UserError
from nmt_async.options import from_mapping
from nmt_async.study.declaration import read_declaration
from nmt_async.study.setting import check_names
from nmt_async.training.options import TrainOptions

STUDY = """
title: A study
base: {preset: tiny, workers: 4, cluster: simulated}
conditions:
  one sync: {sync-mode: sync}
  one async: {sync-mode: async, learn-rate: 0.002}
  two sync: {sync-mode: sync, norm: post}
against:
  one sync: ["one *"]
sizes:
  small: {budget: 100kt, validations: 4, seeds: [1], conditions: [one *], options: {lr-warmup: 10}, note: Little.}
  all: {budget: 2e, validations: 2, seeds: [1, 2], conditions: ["two *", "*"]}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_sizes_choose_conditions_by_pattern_and_each_seed_comes_whole(tmp_path: Path) -> None:
    study = read_declaration(written(tmp_path, STUDY))
    small, everything = study.sizes["small"], study.sizes["all"]
    assert [setting.condition for setting in small.settings] == ["one sync", "one async"]
    assert small.note == "Little."
    assert study.against == {"one async": "one sync"}
    assert [(setting.seed, setting.condition) for setting in everything.settings] == [
        (seed, condition) for seed in (1, 2) for condition in ("two sync", "one sync", "one async")
    ]
    one = small.settings[1].options
    assert one["learn-rate"] == 0.002
    assert one["preset"] == "tiny"
    assert one["lr-warmup"] == 10
    options = from_mapping(TrainOptions, one, "here")
    assert (options.stop_after.amount, options.valid_freq.amount, options.disp_freq.amount) == (1e5, 25e3, 12.5e3)
    assert everything.settings[0].options["valid-freq"] == "1e"


def test_a_size_gives_some_conditions_further_seeds(tmp_path: Path) -> None:
    text = STUDY.replace("note: Little.", 'note: Little., further: {"one *": [2], one async: [2, 3]}')
    settings = read_declaration(written(tmp_path, text)).sizes["small"].settings
    assert [(setting.condition, setting.seed) for setting in settings] == [
        ("one sync", 1), ("one async", 1), ("one sync", 2), ("one async", 2), ("one async", 3)
    ]  # fmt: skip


def test_a_condition_may_need_what_its_size_gives(tmp_path: Path) -> None:
    text = STUDY.replace("one sync: {", "one sync: {lr-decay: linear, ")
    assert read_declaration(written(tmp_path, text)).sizes["small"].settings[0].options["lr-decay"] == "linear"


def test_null_leaves_out_what_the_base_gives(tmp_path: Path) -> None:
    text = STUDY.replace("one sync: {", "one sync: {preset: null, workers: null, ")
    settings = {
        each.condition: each.options for each in read_declaration(written(tmp_path, text)).sizes["all"].settings
    }
    assert not {"preset", "workers"} & set(settings["one sync"])
    assert settings["one async"]["preset"] == "tiny"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("title:", "titel:", "no key is called 'titel'"),
        ("sync-mode: sync}", "sync-mode: sink}", "condition 'one sync': --sync-mode: 'sink' is not known"),
        ("norm: post", "nrom: post", "condition 'two sync': no option is called 'nrom'"),
        ("norm: post", "seed: 3", "condition 'two sync': the study itself sets seed"),
        ("lr-warmup: 10", "stop-after: 10", "size 'small': the study itself sets stop-after"),
        ("lr-warmup: 10", "learn-rate: -1", "--learn-rate: -1.0 is not a number above 0"),
        ("note: Little.", "nots: Little.", "size 'small': no key is called 'nots'; there are budget, validations"),
        ("note: Little.", "further: {two sync: [2]}", "further: no condition is called 'two sync'"),
        ("note: Little.", "further: {one sync: 2}", "size 'small': it needs budget"),
        ("options: {", "option: {", "size 'small': no key is called 'option'"),
        ("note: Little.", "note: [Little.]", "size 'small': it needs budget"),
        ("options: {lr-warmup: 10}", "options: 3", "size 'small': it needs budget"),
        ("one sync: [", "three sync: [", "against 'three sync': there is no condition of this name"),
        ('["one *"]', "one async", "against 'one sync': it must be a list"),
        ('["one *"]', "[three]", "against 'one sync': no condition is called 'three'"),
        ('["one *"]', '["one *"]\n  two sync: [one async]', "'one async' is set beside 'one sync' too"),
        ("[one *]", "[three *]", "size 'small': no condition is called 'three \\*'"),
        ("budget: 100kt, ", "", "size 'small': it needs budget"),
        ("budget: 100kt", "budget: much", "'much' is not an amount"),
        ("budget: 100kt", "budget: 3", "a budget of 3u is too small for 4 validations"),
        ("validations: 4", "validations: 0", "no room for 0 validations"),
        ("seeds: [1],", "seeds: [one],", "size 'small': it needs budget"),
        ("conditions:\n  one", "conditions: 3\nx:\n  one", "no key is called 'x'"),
        ("base: {preset: tiny, workers: 4, cluster: simulated}", "base: tiny", "base must be a mapping of names"),
    ],
)
def test_a_damaged_study_is_refused_in_a_sentence(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in STUDY
    with pytest.raises(UserError, match=said):
        read_declaration(written(tmp_path, STUDY.replace(before, after, 1)))


def test_the_reproduction_is_a_study_whose_settings_all_have_names_of_their_own() -> None:
    study = read_declaration(Path(__file__).parents[2] / "examples/reproduction/study.yaml")
    assert set(study.sizes) == {"quick", "core", "full"}
    for size in study.sizes.values():
        check_names(size.settings)
    full = {(setting.condition, setting.seed): setting.options for setting in study.sizes["full"].settings}
    for setting in study.sizes["core"].settings:
        assert full[setting.condition, setting.seed] == setting.options, "results of one size serve the other"
