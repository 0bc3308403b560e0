"""Validation translates with the decoder that people translate with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from nmt_async.cli.main import run
from sacrebleu import corpus_bleu, corpus_chrf
from training_runs import run_small

from nmt_async.text.prepared import PreparedData


@pytest.fixture(scope="module", params=["transformer", "ssru", "rnn"])
def validated(request, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """A run of each kind of model whose last update was validated, and what that found."""
    kinds: dict[str, dict[str, Any]] = {
        "transformer": {},
        "ssru": {"decoder_autoreg": "ssru"},
        "rnn": {"model": "rnn", "dim_rnn": 16, "heads": None, "dim_ffn": None},
    }
    folder = tmp_path_factory.mktemp("validated") / "run"
    run_small(
        small_data, folder, cluster="simulated", workers=1, stop_after="60", valid_freq="60", save_freq="60",
        valid_translate=True, valid_beam_size=3, learn_rate=0.01, accumulate=1, **kinds[request.param],
    )  # fmt: skip
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (found,) = (record for record in records if record["kind"] == "valid" and record["update"] == 60)
    return folder / "checkpoints" / "step-60", found


def test_the_bleu_of_validation_is_that_of_evaluate_and_translate(validated, small_data, tmp_path, capsys):
    checkpoint, found = validated
    sources, references = PreparedData.open(small_data).valid_lines()
    source, reference = tmp_path / "source.gz", tmp_path / "reference.gz"
    for path, lines in ((source, sources), (reference, references)):
        path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))
    texts = ["--source", str(source), "--reference", str(reference), "-b", "3"]
    assert run(["evaluate", str(checkpoint), *texts, "--bootstrap", "0", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert found["bleu"] == pytest.approx(scores["BLEU"]["score"], rel=1e-5)
    assert found["chrf"] == pytest.approx(scores["chrF"]["score"], rel=1e-5)
    assert run(["translate", str(checkpoint), "-i", str(source), "-b", "3"]) == 0
    translations = capsys.readouterr().out.splitlines()
    assert found["bleu"] == pytest.approx(corpus_bleu(translations, [references]).score, rel=1e-5)
    assert found["chrf"] == pytest.approx(corpus_chrf(translations, [references]).score, rel=1e-5)
    assert found["chrf"] > 0


def test_the_cross_entropy_of_validation_is_that_of_score(validated, small_data, tmp_path, capsys):
    checkpoint, found = validated
    sources, references = PreparedData.open(small_data).valid_lines()
    for name, lines in (("source", sources), ("target", references)):
        (tmp_path / name).write_text("".join(line + "\n" for line in lines))
    texts = ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]
    assert run(["score", str(checkpoint), *texts, "--summary", "ce-mean-words"]) == 0
    assert float(capsys.readouterr().out) == pytest.approx(found["cross_entropy"], rel=1e-4)
