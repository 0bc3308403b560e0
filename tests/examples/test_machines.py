"""The study of machines: its conditions can be trained, on the link that it tells of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nmt_async.options import from_mapping
from nmt_async.study.declaration import read_declaration
from nmt_async.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "machines"
DECLARED = read_declaration(STUDY / "study.yaml")
ASKED = DECLARED.sizes["core"].settings


def test_every_condition_can_be_trained() -> None:
    for setting in ASKED:
        options = replace(from_mapping(TrainOptions, setting.options, setting.condition), profile=None)
        options.check_machines()
        options.configuration(4000, 4000, joint=True)
        options.rule()
        assert options.outer() is None or options.way().local


def test_the_profile_s_link_takes_half_a_round() -> None:
    of_run = from_mapping(TrainOptions, {**ASKED[0].options, "profile": str(STUDY / "profile.yaml")}, "study")
    profile = of_run.cluster_profile()
    parameters, tokens = 1_442_208, ASKED[0].options["mini-batch-words"]
    worker = profile.workers[0]
    batch = worker.seconds_per_batch + int(str(tokens)) / worker.tokens_per_second
    assert abs(profile.between.exchange(4 * parameters, 2) / batch - 0.5) < 0.01
