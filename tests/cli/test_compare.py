"""``nmt-async compare`` and ``study`` as a user types them, on the simulated cluster and with real workers."""

from __future__ import annotations

import csv
import math
import re
import subprocess
from pathlib import Path

import commands
import pytest

from nmt_async.study.comparison import Pair, compare
from nmt_async.study.conditions import Condition
from nmt_async.study.result import Result
from tests.training_runs import PATIENCE, SIZES

FEW = ["--dim-emb", "16", "--heads", "2", "--dim-ffn", "32", "--enc-depth", "1", "--dec-depth", "1",
       "--mini-batch-words", "300", "--validations", "2", "--valid-sentences", "4"]  # fmt: skip


def call(command: str, *words: object) -> subprocess.CompletedProcess[str]:
    return commands.run([command, *words], capture_output=True, text=True, timeout=3 * PATIENCE)


def test_modes_are_compared_and_the_second_call_trains_nothing(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    words = [small_data, *FEW, "--cluster", "simulated", "--workers", 2, "--modes", "sync,hybrid:2@0.002", "--budget",
             "8kt", "--seeds", "1,2", "--out", out]  # fmt: skip
    first = call("compare", *words)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(out / "report.html")
    page = (out / "report.html").read_text()
    for text in ("hybrid:2@0.002 beside sync", "seeds and sentences", "--sync-mode hybrid", "nmt-async compare"):
        assert text in page
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["condition"], row["seed"]) for row in rows} == {
        (mode, seed) for mode in ("sync", "hybrid:2@0.002") for seed in ("1", "2")
    }
    assert (out / "report.md").exists()
    assert list((out / "plots").glob("*.svg"))
    again = call("compare", *words)
    assert again.returncode == 0
    assert "begun" in first.stderr
    assert "begun" not in again.stderr


def test_real_workers_are_compared_by_their_clock(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    words = [small_data, *FEW, "--workers", 2, "--modes", "sync,async", "--budget", "6kt", "--seeds", "1",
             "--intervals", "sentences", "--weight-prediction", "none", "--out", out]  # fmt: skip
    done = call("compare", *words)
    assert done.returncode == 0, done.stderr
    results = {name: Result.read(out / f"results/{name}.seed1.json") for name in ("sync", "async")}
    assert all(result.cluster == "processes" and result.seconds > 0 for result in results.values())
    for result in results.values():
        named = (result.setting.options["optimizer"], result.setting.options["weight-prediction"])
        assert named == ("muon", "none"), "also where nobody typed it"
        assert "--optimizer muon --weight-prediction none" in result.command
    page = (out / "report.html").read_text()
    assert "async beside sync" in page
    assert "by different clocks" not in page
    told_intervals = re.findall(r"(\d+\.\d\d) \[(\d+\.\d\d), (\d+\.\d\d)\]", page)
    for axis in ("tokens", "seconds"):
        pair = Pair(*(Condition(name, (results[name],)) for name in ("async", "sync")))
        found = compare(f"{axis} to quality", pair)
        assert math.isfinite(found.low)
        # The page was made from seconds of more digits than the results' files hold: its last digit may differ by one.
        expected = pytest.approx((found.value, found.low, found.high), abs=0.011)
        assert any(tuple(map(float, told)) == expected for told in told_intervals), axis


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "1Mt", "--modes", "sync,fast"], "--modes: 'fast' is not a mode"),
        (["--budget", "1Mt", "--modes", ","], "--modes names none"),
        (["--budget", "1Mt", "--modes", "local"], "give local:N"),
        (["--budget", "1Mt", "--modes", "sync,sync"], "'sync' with seed 1 is asked for twice"),
        (["--budget", "1Mt", "--seeds", "1"], "an interval over seeds needs two or more"),
        (
            ["--budget", "1Mt", "--intervals", "sentences"],
            "sentences is for one seed, and --seeds 1,2 names 2",
        ),
        (["--budget", "1Mt", "--seeds", "1,x"], "--seeds: '1,x' is not a list of numbers"),
        (["--budget", "1Mt", "--baseline", "local:2"], "--baseline: 'local:2' is not among the modes"),
        (["--budget", "1Mt", "--learn-rate", "0"], "--learn-rate: 0.0 is not a number above 0"),
        (["--budget", "1Mt", "--profile", "paper"], "--profile means nothing with --cluster processes"),
        (["--budget", "3kt"], "--budget 3kt is too small for 12 validations of sync"),
        (["--budget", "3u"], "a budget of 3u is too small for 12 validations"),
        (["--budget", "soon"], "'soon' is not an amount"),
        (["--budget", "1Mt", "--jobs", "0"], "--jobs: 0 is too few"),
        (
            ["--budget", "1Mt", "--modes", "hybrid,sync", "--weight-prediction", "last-step"],
            "--modes sync: --weight-prediction means nothing with --sync-mode sync; leave it out, since there is no",
        ),
        ([], "--budget is missing"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(small_data: Path, tmp_path: Path, words, said: str) -> None:
    done = call("compare", small_data, "--workers", 2, "--out", tmp_path / "comparison", *words)
    assert said in done.stderr
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "comparison").exists()


def test_a_profile_of_fewer_workers_is_refused(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text("workers: [{count: 2}]\n")
    words = ["--workers", 3, "--cluster", "simulated", "--profile", tmp_path / "profile.yaml", "--budget", "1Mt"]
    done = call("compare", small_data, *words, "--out", tmp_path / "comparison")
    assert done.returncode == 2
    assert "describes 2 workers; give --workers 2 or fewer" in done.stderr


STUDY = f"""
base: {{cluster: simulated, workers: 2, mini-batch-words: 300, {
    ", ".join(
        f"{name.replace('_', '-')}: {SIZES[name]}" for name in ("dim_emb", "heads", "dim_ffn", "enc_depth", "dec_depth")
    )
}}}
conditions: {{one: {{sync-mode: sync}}, two: {{sync-mode: async}}}}
sizes:
  small: {{budget: 6kt, validations: 2, seeds: [1, 2], conditions: ["*"], note: It decides nothing.}}
"""
CLAIMS = """
minimum: {tokens: 1kt, seeds: 2}
claims:
  - {id: stale, source: here, says: Async is stale., criteria: [{quantity: staleness, compare: two, above: 0.5}]}
  - {id: fresh, source: here, says: Sync is stale., criteria: [{quantity: staleness, compare: one, above: 0.5}]}
  - {id: absent, source: here, says: Three is., criteria: [{quantity: staleness, compare: three, above: 0.5}]}
"""


def test_a_study_judges_the_claims_that_its_size_can(small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    words = [tmp_path / "study.yaml", small_data, "--size", "small", "--claims", tmp_path / "claims.yaml"]
    done = call("study", *words, "--out", tmp_path / "out", "--results", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["holds: Async is stale.", "fails: Sync is stale."]
    page = (tmp_path / "out/report.html").read_text()
    assert "It decides nothing." in page
    assert len(list((tmp_path / "kept").glob("*.json"))) == 4
    wrong = call("study", *words[:2], "--size", "large", "--out", tmp_path / "out")
    assert wrong.returncode == 2
    assert "--size: 'large' is not one of small" in wrong.stderr
