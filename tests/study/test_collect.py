"""The result of a real run is what its files say."""

from __future__ import annotations

import json
import math
import shlex
import shutil

import numpy as np
import pytest
from nmt_async.cli.main import run
from training_runs import run_small

from nmt_async.errors import UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.transformer import Transformer
from nmt_async.options import load_yaml
from nmt_async.study.bootstrap import DRAWS, resampled_cross_entropy
from nmt_async.study.collect import collect, waiting_of
from nmt_async.study.result import Result
from nmt_async.text.prepared import PreparedData
from nmt_async.training.parts import model_configuration
from nmt_async.training.run_folder import read_options


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("collect") / "run"
    run_small(small_data, out, stop_after="23", valid_freq="10", disp_freq="1", accumulate=2, learn_rate=0.002)
    return out


def reports_of(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [values for values in map(json.loads, lines) if values["kind"] == kind]


def test_a_result_holds_what_the_run_reported(finished, small_data):
    result, trained, validated = collect(finished), reports_of(finished, "train"), reports_of(finished, "valid")
    last = trained[-1]
    assert (result.updates, result.tokens, result.seconds) == (last["update"], last["target_tokens"], last["time"])
    assert [point.update for point in result.points] == [one["update"] for one in validated]
    assert [point.cross_entropy for point in result.points] == [one["cross_entropy"] for one in validated]
    assert all(point.bleu is None for point in result.points)
    assert [stretch.loss for stretch in result.stretches] == [one["loss"] for one in trained]
    assert result.effective_batch == pytest.approx(result.tokens / result.updates)
    assert sum(result.staleness.values()) == 2 * result.updates
    assert (result.cluster, result.workers, result.diverged) == ("processes", 2, "")
    assert result.data == PreparedData.open(small_data).fingerprint
    assert set(result.environment) == {"torch", "machine", "cpu", "threads", "nmt-async"}


def test_the_model_is_counted(finished, small_data):
    configuration = model_configuration(read_options(finished), PreparedData.open(small_data))
    assert collect(finished).parameters == FlatLayout(Transformer(configuration)).parameters


def test_epochs_of_a_validation_lie_where_training_was(finished):
    result, trained = collect(finished), reports_of(finished, "train")
    exact = {one["update"]: one["epochs"] for one in trained}
    assert [point.epochs for point in result.points] == pytest.approx([exact[point.update] for point in result.points])


def test_the_setting_has_the_options_that_are_not_defaults(finished):
    setting = collect(finished).setting
    assert (setting.condition, setting.seed, setting.mode) == ("hybrid:2", 1, "hybrid:2")
    assert setting.options["learn-rate"] == 0.002
    assert not {"seed", "out", "dry-run", "clip-norm", "sync-mode"} & set(setting.options)


def test_the_command_gives_the_runs_options(finished, capsys):
    words = shlex.split(collect(finished).command)
    assert words[:2] == ["nmt-async", "train"]
    assert run([*words[1:], "--dump-config"]) == 0
    (finished.parent / "again.yaml").write_text(capsys.readouterr().out)
    assert load_yaml(finished.parent / "again.yaml") == load_yaml(finished / "config.yaml")


@pytest.mark.parametrize(("mode", "absent", "said"), [
    ("hybrid", ["optimizer", "weight-prediction"], "--optimizer adam --weight-prediction none"),
    ("sync", [], "--optimizer muon --weight-prediction none"),
])  # fmt: skip
def test_the_command_names_what_was_meant_before_there_was_a_choice(mode, absent, said, finished, tmp_path, capsys):
    run_of_then = tmp_path / "run"
    shutil.copytree(finished, run_of_then)
    config = {**load_yaml(finished / "config.yaml"), "sync-mode": mode, "weight-prediction": "none"}
    (run_of_then / "config.yaml").write_text(json.dumps({key: config[key] for key in config if key not in absent}))
    command = collect(run_of_then).command
    assert sorted(said.split()) == sorted(set(said.split()) & set(command.split()))
    assert run([*shlex.split(command)[1:], "--dump-config"]) == 0, capsys.readouterr().err


def test_validations_are_resampled_from_the_losses_of_their_sentences(finished):
    result = collect(finished)
    lines = [json.loads(line) for line in (finished / "validation.jsonl").read_text().splitlines()]
    tokens = np.array(lines[0]["tokens"])
    for point, line in zip(result.points, lines, strict=True):
        assert len(point.resampled) == DRAWS
        assert point.resampled == pytest.approx(resampled_cross_entropy(np.array(line["losses"]), tokens))
        assert np.std(point.resampled) > 0
        assert min(point.resampled) < point.cross_entropy < max(point.resampled)


def test_a_run_without_sentence_losses_is_not_resampled(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "validation.jsonl").unlink()
    assert all(point.resampled == () for point in collect(tmp_path / "run").points)


def test_a_torn_last_line_costs_only_itself(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    for name in ("metrics.jsonl", "validation.jsonl"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write('{"kind": "valid", "upd')
    result = collect(tmp_path / "run")
    assert result.updates == collect(finished).updates
    assert all(len(point.resampled) == DRAWS for point in result.points)


def test_a_figure_that_was_not_finite_stays_so(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["cross_entropy" if line["kind"] == "valid" else "loss"] = None
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = collect(tmp_path / "run")
    assert all(math.isnan(point.cross_entropy) for point in result.points)
    assert all(math.isnan(stretch.loss) for stretch in result.stretches)


@pytest.mark.parametrize(
    ("ending", "diverged", "failed"), [("finished", "", ""), ("diverged", "why", ""), ("failed", "", "why")]
)
def test_divergence_is_told_from_failure_by_what_the_run_noted(ending, diverged, failed, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "outcome.json").write_text(json.dumps({"ending": ending, "reason": "why"}))
    with (tmp_path / "run" / "train.log").open("a") as log:
        log.write("[2026-01-01 00:00:00] [error] the disk is not finite.\n")
    result = collect(tmp_path / "run")
    assert (result.diverged, result.failed) == (diverged, failed)


def test_a_run_of_an_earlier_version_that_could_not_go_on_failed(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "outcome.json").unlink()
    with (tmp_path / "run" / "train.log").open("a") as log:
        log.write("[2026-01-01 00:00:00] [error] worker 1 died 5 times in a row. Nothing is saved.\n")
    result = collect(tmp_path / "run")
    assert (result.diverged, result.failed) == ("", "worker 1 died 5 times in a row. Nothing is saved.")


def test_wall_clock_is_that_of_all_sittings_and_not_of_the_cluster(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "train.log").write_text(
        "[2026-01-01 10:00:00] [nmt-async] Running on here as process 1\n[2026-01-01 10:00:07] a\n"
        "[2026-01-03 09:00:00] [nmt-async] Running on here as process 2\n[2026-01-03 09:02:00] b\n"
    )
    assert collect(tmp_path / "run").wall_seconds == 127
    (tmp_path / "run" / "train.log").unlink()
    assert collect(tmp_path / "run").wall_seconds is None


def test_a_result_survives_its_file(finished, tmp_path):
    result = collect(finished)
    result.write(tmp_path / "result.json")
    again = Result.read(tmp_path / "result.json")
    assert again.setting == result.setting
    assert again.staleness == result.staleness
    assert again.tokens_per_second == pytest.approx(result.tokens_per_second, rel=1e-5)


def test_waiting_is_weighted_by_time(finished):
    trained = reports_of(finished, "train")
    seconds = sum(one["seconds"] for one in trained)
    expected = [sum(one["seconds"] * one["waiting_share"][w] for one in trained) / seconds for w in range(2)]
    assert collect(finished).waiting == pytest.approx(expected)
    assert len(waiting_of([])) == 0


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.yaml", None, "is not the folder of a run"),
        ("metrics.jsonl", None, "is not the folder of a run"),
        ("metrics.jsonl", "", "no report of training"),
        ("metrics.jsonl", "[]\n{}\n", "line 1"),
        ("config.yaml", "seed: [1]\n", "damaged"),
        ("data.json", "{", "cannot be read"),
        ("data.json", "{}", "damaged"),
        ("validation.jsonl", "{}\n{}\n", "line 1"),
    ],
)
def test_a_damaged_run_is_named(name, content, problem, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=problem):
        collect(tmp_path / "run")
