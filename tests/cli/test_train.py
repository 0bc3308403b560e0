"""``nmt-async train`` as typed: what it prints, its exit codes, and its sentences about mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml
from nmt_async.cli.main import run
from training_runs import prepare_small, small_options, typed

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.reading import read_json_lines
from nmt_async.text.prepared import PreparedData
from nmt_async.training.run_folder import RunFolder, settled


def test_dry_run_tells_sizes_and_makes_nothing(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", str(small_data), *typed(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for line in (r"model +[\d,]+ parameters", r"training pairs +600 of 600", r"batches an epoch +\d+ of \d+ target",
                 r"workers +2 on cpu( \(no GPU found\))?, 1 thread each", r"memory, shared +\d+ MiB: 3 parameter",
                 r"an update sums 2 pushes of about \d+ target",
                 r"optimizer muon; workers compute on parameters predicted 1 update ahead"):  # fmt: skip
        assert re.search(line, said)
    assert list(tmp_path.iterdir()) == []


def test_dumped_options_are_read_again(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sync-mode", "async", "--lr-decay", "cosine", "--stop-after", "2.5e", "--no-valid-translate"]
    assert run(["train", str(small_data), *typed(tmp_path / "run"), *words, "--dump-config"]) == 0
    first = capsys.readouterr().out
    assert yaml.safe_load(first) | {"sync-mode": "async", "stop-after": "2.5e"} == yaml.safe_load(first)
    (tmp_path / "config.yaml").write_text(first)
    assert run(["train", str(small_data), "--config", str(tmp_path / "config.yaml"), "--dump-config"]) == 0
    assert capsys.readouterr().out == first
    assert run(["train", str(small_data), "--config", str(tmp_path / "config.yaml"), "--dry-run"]) == 0
    assert "of 1 pushes each" in capsys.readouterr().out


def test_a_whole_run_with_separate_vocabularies_leaves_a_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = prepare_small(tmp_path, separate_vocabs=True, vocab_size=340)
    words = typed(
        tmp_path / "run", workers=1, norm="post", tied_embeddings="target", stop_after=6, valid_freq=2, keep_best=2,
        valid_sentences=2,
    )  # fmt: skip
    assert run(["train", str(data), *words, "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    validations = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "valid"]
    updates = [line["update"] for line in validations]
    assert updates == sorted(set(updates))
    assert {"cross_entropy", "perplexity", "bleu", "chrf"} <= validations[0].keys()
    ranking = sorted(validations, key=lambda line: line["cross_entropy"])
    loaded = load_model(tmp_path / "run")
    assert loaded.folder.name == f"best-{ranking[0]['update']}"
    assert loaded.source_vocabulary.size == loaded.target_vocabulary.size == 340
    assert len(list((tmp_path / "run" / "checkpoints").glob("best-*"))) == min(2, len(ranking))


MISTAKES = [
    (["--sync-mode", "soon"], "--sync-mode: 'soon' is not known; choose one of sync, async, hybrid, adaptive."),
    (["--sync-mode", "async", "--accumulate", "2"], "async applies every push by itself"),
    (["--oldest-push", "0", "--weight-prediction", "last-step"], "there is no delay left to look ahead of"),
    (["--max-staleness", "0", "--staleness-rule", "scale"], "leave it out, since no push is stale there"),
    (["--accumulate", "0"], "must be 1 or more"),
    (["--workers", "0"], "--workers: 0 is too few; give 1 or more."),
    (["--workers", "two"], "--workers: 'two' is neither a whole number nor auto."),
    (["--cpu-threads", "0"], "--cpu-threads: 0 is too few"),
    (["--stop-after", "soon"], "--stop-after: 'soon' is not an amount"),
    (["--stop-after", "0"], "--stop-after: 0u must be above 0."),
    (["--lr-warmup", "2h"], "--lr-warmup: '2h' counts hours; here only updates, tokens, epochs can be counted."),
    (["--learn-rate", "0"], "--learn-rate: 0.0 is not a number above 0."),
    (["--learn-rate", "nan"], "--learn-rate: nan is not a number above 0."),
    (["--learn-rate", "inf"], "--learn-rate: inf is not a number above 0."),
    (["--clip-norm", "nan"], "--clip-norm: nan is not a number from 0 on."),
    (["--label-smoothing", "1"], "--label-smoothing: 1.0 is not from 0 to below 1."),
    (["--lr-decay", "linear"], "--lr-decay linear needs --lr-decay-end"),
    (["--lr-warmup", "0"], "--lr-warmup 0 does not fit --lr-decay inv-sqrt"),
    (
        ["--lr-decay-end", "9"],
        "--lr-decay-end means nothing with --lr-decay inv-sqrt; leave it out, or give --lr-decay linear or cosine.",
    ),
    (
        ["--metric", "bleu", "--no-valid-translate"],
        "--no-valid-translate means nothing with --metric bleu; leave it out, or give --metric cross-entropy.",
    ),
    (
        ["--no-valid-translate", "--valid-beam-size", "2"],
        "--valid-beam-size means nothing with --no-valid-translate; leave it out.",
    ),
    (["--max-length", "1"], "--max-length 1: no training pair in "),
    (["--heads", "3"], "--heads"),
    (["--model", "lstm"], "--model: 'lstm' is not known; choose one of transformer, rnn."),
    (["--model", "rnn"], "--heads means nothing with --model rnn; leave it out, or give --model transformer."),
    (["--dim-rnn", "8"], "--dim-rnn means nothing with --model transformer; leave it out, or give --model rnn."),
    (["--dropout", "1.5"], "--dropout"),
    (["--metric", "ter"], "--metric: 'ter' is not known; choose one of cross-entropy, bleu, chrf."),
    (["--seed", "-1"], "--seed: -1 is not from 0"),
    (["--keep-last", "0"], "--keep-last: 0 is too small; give 1 or more."),
    (["--devices", "tpu"], "--devices: 'tpu' is not a device"),
    (["--devices", ","], "--devices names no device"),
    (["--config", "absent.yaml"], "absent.yaml cannot be read"),
]


@pytest.mark.parametrize(
    ("words", "sentence"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_mistake_is_one_sentence_and_exit_code_two(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    bounded = typed(tmp_path / "run", stop_after="0.01min")
    assert run(["train", str(small_data), *bounded, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_left_alone(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    for out, sentence in (
        (tmp_path / "file", "there is a file of this name"),
        (tmp_path / "foreign", "holds 'thesis.txt' and is not a run"),
        (tmp_path / "file" / "below", "the folder cannot be written (not a directory)"),
        (small_data, "is not a run"),
    ):  # fmt: skip
        assert run(["train", str(small_data), *typed(out)]) == 2
        assert re.fullmatch(rf"nmt-async: --out {out}: .*\n", said := capsys.readouterr().err)
        assert sentence in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "foreign"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there_is_said(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for devices in ("0", "cuda", "cuda:0,cuda:1"):
        assert run(["train", str(small_data), *typed(tmp_path / "run"), "--devices", devices]) == 2
        assert "torch finds no CUDA device here; give --devices cpu, or leave it out." in capsys.readouterr().err


def test_early_stopping_needs_a_validation_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = prepare_small(tmp_path, valid_source=(), valid_target=())
    assert run(["train", str(data), *typed(tmp_path / "run", workers=1), "--early-stopping", "3"]) == 2
    assert "--early-stopping needs a validation set" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert run(["train", str(data), *typed(tmp_path / "run", workers=1), "--stop-after", "2", "--valid-freq", "1"]) == 0
    assert not (tmp_path / "run" / "best").exists()
    assert load_model(tmp_path / "run").folder.name == "step-2"


def test_a_model_beyond_memory_is_one_sentence(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([], ["--dry-run"]):
        assert run(["train", str(small_data), *typed(tmp_path / "run", dim_emb=65_536), *words]) == 1
        assert "the model does not fit this machine's memory" in capsys.readouterr().err


def test_two_trainers_do_not_share_a_run(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = settled(small_options(tmp_path / "run", valid_freq="500", valid_translate=True))
    first = RunFolder(tmp_path / "run", options, PreparedData.open(small_data))
    try:
        assert run(["train", str(small_data), *typed(tmp_path / "run")]) == 2
        assert "another trainer is writing this run" in capsys.readouterr().err
    finally:
        first.close()


def test_a_run_of_other_options_is_named(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = settled(small_options(tmp_path / "run"))
    RunFolder(tmp_path / "run", options, PreparedData.open(small_data)).close()
    assert run(["train", str(small_data), *typed(tmp_path / "run"), "--seed", "2"]) == 2
    assert "was begun with --seed 1, now it is 2; give the same to resume it" in capsys.readouterr().err
