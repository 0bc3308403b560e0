"""The measurement of throughput, with its real processes on a small prepared corpus."""

from __future__ import annotations

import pytest

from nmt_async.bench.options import BenchOptions
from nmt_async.bench.throughput import Compared, agreements, measure
from nmt_async.cluster.profile import ClusterProfile, WorkerProfile
from nmt_async.cluster.task import Handled
from nmt_async.demo_corpus.generate import write
from nmt_async.errors import UserError
from nmt_async.planning.advice import WAYS
from nmt_async.planning.calibration import calibrated
from nmt_async.planning.simulation import even_plan, nominal_cluster
from nmt_async.sync.rules import Rule, rule_for
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write(folder / "text", {"train": 300, "valid": 10, "test": 10}, seed=1)
    out = folder / "data"
    prepare(
        PrepareOptions(
            train_source=(folder / "text/train.en",), train_target=(folder / "text/train.de",), vocab_size=300, out=out
        )
    )
    return out


SMALL = {
    "workers": 2, "cpu_threads": 1, "dim_emb": 16, "heads": 2, "dim_ffn": 32, "enc_depth": 1, "dec_depth": 1,
    "mini_batch_words": 100, "sync_mode": "hybrid", "accumulate": 4,
}  # fmt: skip


def test_every_contender_has_a_rate_for_each_round_and_its_ratio_to_the_bound(data):
    options = BenchOptions(**SMALL, rounds=2, batches=2, against=("independent", "ddp"))
    told = []
    measured = measure(options, data, told.append)
    results = measured.results
    assert [result.name for result in results] == ["hybrid:4, 2 workers", "independent", "ddp"]
    assert all(len(result.rates) == 2 and min(result.rates) > 0 for result in results)
    bound = results[1]
    for result in results:
        expected = [rate / best for rate, best in zip(result.rates, bound.rates, strict=True)]
        assert result.ratios == pytest.approx(expected)
    assert told == list(range(1, options.turns + 1))
    assert (measured.profile, measured.agreements, measured.cost_of_simulating()) == (None, [], None)
    assert not measured.ways or {way.way for way in measured.ways} == set(WAYS)


def test_a_profile_comes_of_the_setting_and_foretells_our_clusters(data):
    # Many batches of two milliseconds: a worker that the machine holds up for a moment still has some.
    options = BenchOptions(**SMALL, rounds=1, batches=40, against=("sync", "gradients", "simulated"), check=True)
    measured = measure(options, data, lambda _: None)
    assert [agreement.name for agreement in measured.agreements] == ["hybrid:4, 2 workers", "sync"]
    for agreement in measured.agreements:
        for compared in (agreement.tokens_per_second, agreement.waiting_share):
            assert compared.predicted > 0
            assert compared.measured > 0
    assert {way.way for way in measured.ways} == set(WAYS)
    assert all(way.tokens_per_second > 0 and way.sooner > 0 for way in measured.ways)
    profile = measured.profile
    assert profile is not None
    assert len(profile.workers) == 2
    assert profile.seconds_per_push > 0
    plain, simulated = measured.results[-2:]
    assert all(len(result.cpu_rates) == 1 for result in (plain, simulated))
    expected = (plain.cpu_rates[0] / simulated.cpu_rates[0] - 1, plain.rates[0] / simulated.rates[0] - 1)
    assert measured.cost_of_simulating() == pytest.approx(expected)


def test_a_profile_holds_what_the_update_of_the_chosen_optimizer_takes(data, tmp_path):
    changes = {"optimizer": "muon", "muon_rows": 8, "momentum": 0.9, "profile_out": tmp_path / "profile.yaml"}
    options = BenchOptions(**SMALL, **changes, rounds=1, batches=8, against=())
    train = options.train_options().settings()
    assert (train.name, train.muon_rows, train.momentum) == ("muon", 8, 0.9)
    profile = measure(options, data, lambda _: None).profile
    assert profile is not None
    assert profile.operations_per_update > 0
    assert profile.seconds_per_update > 0


def test_counts_below_one_are_refused():
    with pytest.raises(UserError, match="--rounds: 0 is too small"):
        BenchOptions(rounds=0)


def test_a_profile_needs_a_place_and_two_batches_a_turn(tmp_path):
    with pytest.raises(UserError, match=r"--profile-out .*: there is no folder"):
        BenchOptions(profile_out=tmp_path / "absent" / "profile.yaml")
    with pytest.raises(UserError, match="--batches: a turn's first batch"):
        BenchOptions(check=True, batches=1)


PROFILE = ClusterProfile(
    "given", (WorkerProfile(1000.0, jitter=0.1, latency=0.002), WorkerProfile(900.0, jitter=0.1)), 0.01, 0.02
)
RULES = {"hybrid": rule_for("hybrid", 2, 2), "sync": rule_for("sync", 2, 1), "async": rule_for("async", 2, 1)}


def sittings(rule: Rule) -> list[list[Handled]]:
    """Two of 300 pushes."""
    found = []
    for seed in (1, 2):
        seen: list[Handled] = []
        for _ in nominal_cluster(rule, PROFILE, even_plan(500, 50), 1, seed, seen.append).updates():
            if len(seen) >= 300:
                break
        found.append(seen)
    return found


def test_a_profile_of_hybrid_foretells_every_mode() -> None:
    seen = {name: sittings(rule) for name, rule in RULES.items()}
    for agreement in agreements(calibrated(seen["hybrid"], "found"), RULES, even_plan(500, 50), seen, 1):
        assert abs(agreement.tokens_per_second.error) < 0.03, agreement
        assert abs(agreement.waiting_share.error) < 0.1, agreement


def test_fewer_workers_are_the_first_ones() -> None:
    alone = [push for push in sittings(RULES["async"])[0] if push.worker == 0]
    (agreement,) = agreements(PROFILE, {"one": RULES["async"]}, even_plan(500, 50), {"one": [alone]}, 1)
    assert agreement.tokens_per_second.predicted == pytest.approx(500 / (0.5 + 0.004 + 0.03), rel=0.01)


def test_the_error_is_of_what_was_measured() -> None:
    assert Compared(1.1, 1.0).error == pytest.approx(0.1)
    assert Compared(0.0, 0.0).error == 0.0
    assert Compared(0.1, 0.0).error == float("inf")
