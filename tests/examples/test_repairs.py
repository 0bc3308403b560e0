"""The study of repairs: its document is what results and claims make of it; results are shared with the paper's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from nmt_async.options import from_mapping
from nmt_async.planning.advice import PLAIN, WAYS
from nmt_async.report.document import TABLES, study_results
from nmt_async.study.claims import read_claims
from nmt_async.study.declaration import read_declaration
from nmt_async.study.result import Result
from nmt_async.training.options import TrainOptions

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "examples" / "repairs"
PAPER = ROOT / "examples" / "reproduction"
DOCUMENT = STUDY / "README.md"
DECLARED = read_declaration(STUDY / "study.yaml")
ASKED = DECLARED.sizes["full"].settings


def test_claims_and_tables_are_about_conditions_that_the_study_has() -> None:
    declared = {setting.condition for setting in ASKED}
    claims = read_claims(STUDY / "claims.yaml")
    for claim in claims:
        assert set(claim.conditions) <= declared, claim.id
    for region in re.findall(r"<!-- generated: ([^\n]*?) -->", DOCUMENT.read_text(encoding="utf-8")):
        kind, *patterns = (part.strip() for part in region.split("|"))
        for pattern in patterns:
            names = declared if kind in TABLES else {claim.id for claim in claims}
            assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_every_condition_can_be_trained() -> None:
    for setting in ASKED:
        options = from_mapping(TrainOptions, setting.options, setting.condition)
        options.configuration(4000, 4000, joint=True)
        options.rule()
        options.settings()
        options.schedule(options.stop_after)


def test_results_that_both_studies_have_are_the_same_files() -> None:
    shared = {path.name for path in (STUDY / "results").glob("*.json")} & {
        path.name for path in (PAPER / "results").glob("*.json")
    }
    assert shared
    for name in shared:
        assert (STUDY / "results" / name).read_bytes() == (PAPER / "results" / name).read_bytes(), name


def tokens_to(results: Iterable[Result], condition: str, quality: float) -> float:
    """Target tokens to a cross-entropy, the mean of the condition's seeds; at most those of the whole run."""
    found = []
    for result in results:
        if result.setting.condition == condition:
            points = [(point.cross_entropy, point.tokens) for point in result.points]
            losses, tokens = zip(*reversed(points), strict=True)  # falling in training, so rising here
            found.append(float(np.interp(quality, losses, tokens)))
    return fmean(found)


def final(results: Iterable[Result], condition: str) -> float:
    return fmean(each.points[-1].cross_entropy for each in results if each.setting.condition == condition)


def test_the_prices_that_bench_recommends_by_are_those_of_the_results() -> None:
    results = study_results(STUDY / "results", ASKED)
    plain = "post sync @0.004"
    best = {
        ("sync", "muon"): "post sync muon @0.004",
        ("hybrid", "muon"): "post hybrid:4 muon predicted @0.004",
        ("hybrid", "adam"): "post hybrid:4 @0.002",
    }
    for way in WAYS:
        if way is PLAIN:
            continue
        condition = best[way.mode, way.optimizer]
        quality = max(final(results, plain), final(results, condition))
        price = tokens_to(results, condition, quality) / tokens_to(results, plain, quality)
        assert way.price == pytest.approx(price, abs=0.02), condition
