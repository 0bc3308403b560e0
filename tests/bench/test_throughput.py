"""The measurement of throughput, with its real processes on a small prepared corpus."""

from __future__ import annotations

import pytest

from nmt_async.bench.throughput import BenchOptions, measure
from nmt_async.errors import UserError
from nmt_async.text.generated import write
from nmt_async.text.preparation import PrepareOptions, prepare


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


def test_every_contender_has_a_rate_for_each_round_and_its_ratio_to_the_bound(data):
    options = BenchOptions(
        workers=2, cpu_threads=1, dim_emb=16, heads=2, dim_ffn=32, enc_depth=1, dec_depth=1, mini_batch_words=100,
        sync_mode="hybrid", accumulate=4, rounds=2, batches=2, against=("independent", "ddp"),
    )  # fmt: skip
    told = []
    results = measure(options, data, told.append)
    assert [result.name for result in results] == ["hybrid:4, 2 workers", "independent", "ddp"]
    assert all(len(result.rates) == 2 and min(result.rates) > 0 for result in results)
    bound = results[1]
    for result in results:
        expected = [rate / best for rate, best in zip(result.rates, bound.rates, strict=True)]
        assert result.ratios == pytest.approx(expected)
    assert told == list(range(1, options.turns + 1))


def test_counts_below_one_are_refused():
    with pytest.raises(UserError, match="--rounds: 0 is too small"):
        BenchOptions(rounds=0)
