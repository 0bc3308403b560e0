"""A run that begins with a trained model's parameters, ``--init-from``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from nmt_async.cli.main import run as command
from safetensors.torch import load_file
from training_runs import Witness, prepare_small, run_small, small_options

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import UserError
from nmt_async.training.dry_run import describe
from nmt_async.training.run_folder import read_options
from nmt_async.training.trainer import train_run

ALONE = {"cluster": "simulated", "workers": 1, "profile": "uneven"}
UNSAID = {"dim_emb": None, "heads": None, "dim_ffn": None, "enc_depth": None, "dec_depth": None}
STANDING = {"learn_rate": 1e-30, "stop_after": "2", **ALONE, **UNSAID}
"""Updates that move no parameter."""


@pytest.fixture(scope="module")
def first(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to begin others with, of sizes that no preset has."""
    folder = tmp_path_factory.mktemp("first") / "run"
    run_small(small_data, folder, stop_after="3", dim_ffn=40, norm="post", dropout=0.2, **ALONE)
    return folder


def last_parameters(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / (run / "last").read_text().strip() / "model.safetensors")


def test_a_run_begins_with_the_models_parameters_and_sizes(first: Path, small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", init_from=first, **STANDING)
    before, after = last_parameters(first), last_parameters(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert load_model(tmp_path / "run").configuration == load_model(first).configuration


def test_it_trains_on_and_dropout_may_be_another(first: Path, small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", init_from=first, dropout=0.0, stop_after="2", **ALONE, **UNSAID)
    assert not torch.equal(last_parameters(first)["output_bias"], last_parameters(tmp_path / "run")["output_bias"])
    assert load_model(tmp_path / "run").configuration.dropout == 0.0


def test_it_goes_on_when_that_model_is_gone(first: Path, small_data: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(first, tmp_path / "model"))
    run_small(small_data, tmp_path / "run", init_from=model, **STANDING)
    shutil.rmtree(model)
    run_small(small_data, tmp_path / "run", init_from=model, **{**STANDING, "stop_after": "3"})
    assert read_options(tmp_path / "run").dim_ffn == 40
    with pytest.raises(UserError, match=r"--init-from: .* does not exist"):
        run_small(small_data, tmp_path / "another", init_from=model, **STANDING)


def test_a_run_killed_in_its_first_save_begins_again_with_the_model(
    first: Path, small_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_small(small_data, run, init_from=first, **STANDING)
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    checkpoint.rename(checkpoint.with_name(f"{checkpoint.name}.partial"))
    shutil.rmtree(run / "checkpoints" / "best-2", ignore_errors=True)
    for pointer in ("last", "best"):
        (run / pointer).unlink(missing_ok=True)
    run_small(small_data, run, init_from=first, **STANDING)
    before, after = last_parameters(first), last_parameters(run)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_model_to_begin_with_is_another_run(first: Path, small_data: Path, tmp_path: Path) -> None:
    run_small(small_data, tmp_path / "run", init_from=first, **STANDING)
    with pytest.raises(UserError, match="begun with --init-from"):
        run_small(small_data, tmp_path / "run", **STANDING)


def test_an_option_that_asks_for_another_model_is_refused(first: Path, small_data: Path, tmp_path: Path) -> None:
    for changes, reason in (
        ({"dim_emb": 64}, "--dim-emb 64 does not fit .* which has 16"),
        ({"norm": "pre"}, "--norm pre does not fit"),
        ({"decoder_autoreg": "ssru"}, "--decoder-autoreg ssru does not fit .* which has 'self-attention'"),
        ({"preset": "base"}, "--preset base does not fit"),
        ({"model": "rnn"}, "--model rnn does not fit"),
        ({"tied_embeddings": "none"}, "--tied-embeddings none does not fit"),
    ):
        with pytest.raises(UserError, match=reason):
            run_small(small_data, tmp_path / "run", init_from=first, **{**STANDING, **changes})
    assert not (tmp_path / "run").exists()


def test_data_of_other_vocabularies_is_refused_with_how_to_prepare_it(first: Path, tmp_path: Path) -> None:
    data = prepare_small(tmp_path, vocab_size=300)
    with pytest.raises(UserError, match=r"other vocabularies .* nmt-async prepare --vocab (.*)\.") as refused:
        train_run(small_options(tmp_path / "run", init_from=first, **STANDING), data, Witness())
    vocabulary = str(refused.value).rpartition("--vocab ")[2].rstrip(".")
    assert not (tmp_path / "run").exists()
    text = [f"--train-{side}={tmp_path}/text/train.{suffix}" for side, suffix in (("source", "en"), ("target", "de"))]
    assert command(["prepare", *text, "--vocab", vocabulary, "--out", str(tmp_path / "again"), "--quiet"]) == 0
    options = small_options(tmp_path / "run", init_from=first, **STANDING)
    assert '"dim_ffn": 40' in describe(options, tmp_path / "again")
