"""The files that people write: configurations, cluster profiles, studies, claims."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import STRANGE, answered, often, yaml_files

from nmt_async.bench.options import BenchOptions
from nmt_async.cluster.profile import profile_for
from nmt_async.options import from_mapping, key_of, load_yaml, to_mapping
from nmt_async.planning.options import SimulateOptions
from nmt_async.score.options import ScoreOptions
from nmt_async.study.claims import read_claims
from nmt_async.study.compare_options import CompareOptions
from nmt_async.study.declaration import read_declaration
from nmt_async.text.options import PrepareOptions
from nmt_async.training.options import TrainOptions
from nmt_async.translate.options import TranslateOptions

CONFIGURATION = b"""\
# of a run
sync-mode: hybrid
accumulate: 4
workers: 2
devices: cpu
preset: tiny
dropout: 0.1
dim-emb: 64
stop-after: 10ku
valid-freq: 10min
learn-rate: 3.0e-4
valid-translate: false
profile: null
out: run
"""
PROFILE = b"""\
name: measured
server: {seconds-per-push: 0.0006, seconds-per-update: 0.0006}
workers:
- {count: 3, tokens-per-second: 10000.0, jitter: 0.15}
- {count: 1, tokens-per-second: 5000.0, failure-every: 30, restart-seconds: 5.0}
"""
STUDY = b"""
title: A study
question: Why?
base: {preset: tiny, workers: 4, cluster: simulated}
conditions:
  one sync: {sync-mode: sync}
  one async: {sync-mode: async, learn-rate: 0.002}
  two sync: {sync-mode: sync, norm: post, preset: null}
sizes:
  small: {budget: 100kt, validations: 4, seeds: [1], conditions: [one *], options: {lr-warmup: 10}, note: Little.}
  all: {budget: 2e, validations: 2, seeds: [1, 2], conditions: ["two *", "*"]}
"""
CLAIMS = b"""
names:
  sync: post sync @0.001
  sync best: [post sync @0.0005, post sync @0.001, post sync @0.002]
minimum: {tokens: 3Mt, seeds: 2}
claims:
  - id: async-worse
    source: a paper
    says: Trained asynchronously, a Transformer ends below a synchronous one.
    criteria:
      - {quantity: final cross-entropy, compare: async, against: sync best, above: 0.05, at: 2Mt}
      - {quantity: tokens to quality, compare: async, target: 3.5, below: 2}
"""
DECLARATIONS = [
    TrainOptions, PrepareOptions, TranslateOptions, ScoreOptions, BenchOptions, SimulateOptions, CompareOptions
]  # fmt: skip


@often
@given(yaml_files(CONFIGURATION))
def test_a_configuration_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)

    def read() -> None:
        options = from_mapping(TrainOptions, load_yaml(path), str(path))
        assert from_mapping(TrainOptions, to_mapping(options), "again") == options
        options.device_list()
        options.rule()
        options.threads()

    answered(read)


@pytest.mark.parametrize("declaration", DECLARATIONS, ids=lambda declaration: declaration.__name__)
@often
@given(data=st.data())
def test_every_option_takes_a_value_of_its_type_or_refuses_it(declaration: Any, data: st.DataObject) -> None:
    needed = {"budget": "2Mt"} if declaration is CompareOptions else {}
    keys = [key_of(field) for field in dataclasses.fields(declaration)]
    changed = data.draw(st.dictionaries(st.sampled_from(keys), st.sampled_from(STRANGE), min_size=1, max_size=2))
    answered(lambda: from_mapping(declaration, {**needed, **changed}, "here"))


@often
@given(yaml_files(PROFILE))
def test_a_cluster_profile_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.yaml"
    path.write_bytes(content)
    profile = answered(lambda: profile_for(str(path), None))
    if profile is not None:
        assert len(profile.workers) <= 1_000_000
        assert profile.workers[0].computing(100, 1, 0, 0) >= 0


@often
@given(yaml_files(STUDY))
def test_a_study_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    answered(lambda: read_declaration(path))


@often
@given(yaml_files(CLAIMS))
def test_claims_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "claims.yaml"
    path.write_bytes(content)
    answered(lambda: read_claims(path))
