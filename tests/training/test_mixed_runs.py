"""Runs on several corpora: mixed exactly, counted as they come, and the same whatever happens on the way."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from training_runs import assert_each_batch_counted, assert_same_state, replayed, run_small, saved_state

from nmt_async.display.console import valid_text
from nmt_async.display.recorded_run import read_reports
from nmt_async.display.reports import TrainReport, ValidReport
from nmt_async.errors import UserError
from nmt_async.reading import read_json_lines
from nmt_async.report.one_run import words_of
from nmt_async.study.collect import collect
from nmt_async.study.result import Result
from nmt_async.text.mixture import CorpusWeights
from nmt_async.text.prepared import PreparedData
from nmt_async.training.interruptions import Interrupted
from nmt_async.training.parts import training_plan
from nmt_async.training.run_folder import read_options
from nmt_async.training.tensorboard import scalars
from tests.training.test_shared_runs import run_both

SIMULATED = {"cluster": "simulated", "profile": "uneven", "disp_freq": "4", "save_freq": "5"}


def trained(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "train"]


def counts(run: Path) -> tuple[int, ...]:
    return tuple(trained(run)[-1]["corpus_pairs"].values())


def test_each_epoch_has_of_each_corpus_what_its_weight_says(mixed_data: Path, mixed_run: Path) -> None:
    assert_each_batch_counted(mixed_run, mixed_data, 3)
    assert [line["corpus_pairs"] for line in trained(mixed_run)][-1] == {"large": 300, "small": 900}
    plan = training_plan(read_options(mixed_run), PreparedData.open(mixed_data))
    assert plan.mixture is not None
    assert plan.mixture.drawn(3) == (300, 900)
    for line in trained(mixed_run):
        assert sum(line["corpus_tokens"].values()) == line["target_tokens"]
        assert list(line["corpus_pairs"]) == list(line["corpus_tokens"]) == ["large", "small"]


def test_a_validation_tells_the_loss_of_each_corpus(mixed_run: Path) -> None:
    lines = [line for line in read_json_lines(mixed_run / "metrics.jsonl") if line["kind"] == "valid"]
    sentences = read_json_lines(mixed_run / "validation.jsonl")
    tokens = sentences[0]["tokens"]
    assert len(tokens) == 16, "eight of each corpus"
    for line, of_sentences in zip(lines, sentences, strict=True):
        losses = of_sentences["losses"]
        wanted = {"large": sum(losses[:8]) / sum(tokens[:8]), "small": sum(losses[8:]) / sum(tokens[8:])}
        assert line["corpus_cross_entropy"] == pytest.approx(wanted, rel=1e-4)  # written with five and six digits
    assert wanted["large"] != wanted["small"]
    log = (mixed_run / "train.log").read_text()
    assert f"[corpora] large cross-entropy {lines[-1]['corpus_cross_entropy']['large']:.4g}"[:-1] in log
    report = [each for each in read_reports(mixed_run / "metrics.jsonl") if isinstance(each, ValidReport)][-1]
    assert f"cross-entropy of large {report.corpus_cross_entropy['large']:.4g}, small" in valid_text(report)
    assert scalars(report)["corpora/valid_cross-entropy/small"] == report.corpus_cross_entropy["small"]
    lost = ValidReport.from_mapping({**lines[-1], "corpus_cross_entropy": {"large": None, "small": 2.5}})
    assert math.isnan(lost.corpus_cross_entropy["large"])


def test_a_resume_goes_on_with_the_mixture_bit_for_bit(mixed_data: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run_small(mixed_data, whole, **SIMULATED, stop_after="60")
    moments = ((7, crash, Crash), (38, lambda: os.kill(os.getpid(), signal.SIGTERM), Interrupted))
    for update, ending, raised in moments:  # amid the first epoch, and in another one
        with pytest.raises(raised):
            run_small(mixed_data, halves, {update: ending}, **SIMULATED, stop_after="60")
    run_small(mixed_data, halves, **SIMULATED, stop_after="60")
    assert trained(whole)[-1]["epoch"] > 1
    assert_same_state(whole, halves)
    told = [{line["update"]: (line["corpus_pairs"], line["corpus_tokens"]) for line in trained(run)}
            for run in (whole, halves)]  # fmt: skip
    assert told[0].items() <= told[1].items(), "a run that pauses reports once more"
    assert len(told[0]) == 15


class Crash(Exception):
    """As if the process had been killed: nothing is saved."""


def crash() -> None:
    raise Crash


def test_its_journal_replays(mixed_data: Path, tmp_path: Path) -> None:
    run_small(mixed_data, tmp_path / "run", workers=2, sync_mode="async", optimizer="adam", stop_after="2e")
    assert_each_batch_counted(tmp_path / "run", mixed_data, 2)
    assert counts(tmp_path / "run") == (200, 600)
    parameters = replayed(tmp_path / "run", mixed_data)
    assert parameters.equal(saved_state(tmp_path / "run")["parameters"])


def test_machines_that_share_a_run_share_its_mixture(mixed_data: Path, tmp_path: Path, port: int) -> None:
    run = tmp_path / "run"
    run_both(mixed_data, run, port, stop_after="2e")
    assert [counts(folder) for folder in (run, run / "machine-1")] == [(200, 600)] * 2


@pytest.mark.parametrize(
    "way", [{"between": "lagged"}, {"between": "local", "local_updates": 3}], ids=["lagged", "local"]
)
def test_whatever_machines_exchange_each_batch_of_the_mixture_counts_once(
    mixed_data: Path, tmp_path: Path, way: dict[str, Any]
) -> None:
    shared = {"nodes": 2, "workers": 2, "sync_mode": "hybrid", "accumulate": 2, **way}
    run_small(mixed_data, tmp_path / "run", **SIMULATED, **shared, stop_after="2e")
    assert counts(tmp_path / "run") == (200, 600)


def test_weights_of_the_run_take_the_place_of_those_declared(mixed_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    weights = {"corpus_weights": CorpusWeights.parse("large=1,small=1")}
    run_small(mixed_data, run, **SIMULATED, stop_after="1e", **weights)
    assert counts(run) == (200, 200)
    run_small(mixed_data, run, **SIMULATED, stop_after="2e", **weights)
    assert counts(run) == (400, 400)
    with pytest.raises(UserError, match=r"begun with --corpus-weights large=1\.0,small=1\.0, now it is None"):
        run_small(mixed_data, run, **SIMULATED, stop_after="3e")
    left_out = tmp_path / "one"
    run_small(mixed_data, left_out, **SIMULATED, stop_after="1e", corpus_weights=CorpusWeights.parse("large=0,small=2"))
    assert counts(left_out) == (0, 100)


def test_temperature_one_is_each_pair_once(mixed_data: Path, tmp_path: Path) -> None:
    run_small(mixed_data, tmp_path / "run", **SIMULATED, stop_after="2e", corpus_temperature=1.0)
    assert counts(tmp_path / "run") == (600, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus_weights": CorpusWeights.parse("large=1")}, "--corpus-weights: small has no weight"),
        (
            {"corpus_weights": CorpusWeights.parse("large=1,small=1,more=1")},
            "--corpus-weights: there is no corpus more; there are large, small",
        ),
        ({"corpus_temperature": 0.0}, "--corpus-temperature: 0 is no temperature"),
        ({"corpus_temperature": float("nan")}, "--corpus-temperature: nan is no temperature"),
    ],
)
def test_weights_that_do_not_fit_the_data_leave_no_run(
    changes: dict[str, Any], message: str, mixed_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run_small(mixed_data, tmp_path / "run", **SIMULATED, stop_after="1e", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"corpus_weights": CorpusWeights.parse("a=1")}, {"corpus_temperature": 2.0}])
def test_data_that_are_not_divided_have_no_weights(changes: dict[str, Any], small_data: Path, tmp_path: Path) -> None:
    flag = "--" + next(iter(changes)).replace("_", "-")
    with pytest.raises(UserError, match=f"{flag} means nothing with .*, which was prepared without --corpora"):
        run_small(small_data, tmp_path / "run", **SIMULATED, stop_after="1e", **changes)
    assert not (tmp_path / "run").exists()


def test_log_tensorboard_result_and_page_say_what_each_corpus_gave(mixed_run: Path, tmp_path: Path) -> None:
    last = [report for report in read_reports(mixed_run / "metrics.jsonl") if isinstance(report, TrainReport)][-1]
    tokens = last.corpus_tokens
    line = (
        f"[corpora] large 300 pairs, 25.0 %, {tokens['large']:,} words : "
        f"small 900 pairs, 75.0 %, {tokens['small']:,} words"
    )
    assert line in (mixed_run / "train.log").read_text()
    tags = scalars(last)
    assert (tags["corpora/pairs/large"], tags["corpora/target_tokens/small"]) == (300, tokens["small"])
    result = collect(mixed_run)
    assert result.corpus_pairs == {"large": 300, "small": 900}
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json").corpus_tokens == tokens
    said = words_of(result, "run", "command").verdicts[0].text
    assert "Of 1,200 sentence pairs, each counted as often as it came: large 300 (25.0 %, " in said


@pytest.mark.parametrize(
    "damage",
    [{"corpus_pairs": {"large": -1, "small": 3}}, {"corpus_pairs": {"other": 1}}, {"corpus_tokens": [1, 2]}],
)
def test_figures_of_corpora_that_cannot_be_are_refused(damage: dict[str, Any], mixed_run: Path) -> None:
    record = trained(mixed_run)[-1]
    assert TrainReport.from_mapping(record).as_mapping() == {
        **record,
        "staleness": {int(age): count for age, count in record["staleness"].items()},
    }
    with pytest.raises((ValueError, TypeError)):
        TrainReport.from_mapping({**record, **damage})
