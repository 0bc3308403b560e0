"""The study of machines: its document is what results and claims make of it, and its conditions can be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nmt_async.options import from_mapping
from nmt_async.report.document import is_current, study_results
from nmt_async.study.claims import read_claims
from nmt_async.study.declaration import read_declaration
from nmt_async.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "machines"
DECLARED = read_declaration(STUDY / "study.yaml")
ASKED = DECLARED.sizes["core"].settings


def test_the_document_is_made_from_the_results() -> None:
    text = (STUDY / "README.md").read_text(encoding="utf-8")
    results = study_results(STUDY / "results", ASKED)
    again = "make it anew: see the top of nmt_async/report/document.py"
    assert is_current(text, results, read_claims(STUDY / "claims.yaml"), ASKED, DECLARED.against), again


def test_claims_are_about_conditions_that_the_study_has() -> None:
    declared = {setting.condition for setting in ASKED}
    for claim in read_claims(STUDY / "claims.yaml"):
        assert set(claim.conditions) <= declared, claim.id


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
