"""Checkpoints as files: kept, replaced, damaged, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_writer import CheckpointWriter
from safetensors.torch import load_file

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import Diverged, UserError


@pytest.fixture
def writer(small_data: Path, tmp_path: Path) -> CheckpointWriter:
    return CheckpointWriter(tmp_path / "run", small_data)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_are_kept_and_the_last_is_named(writer: CheckpointWriter) -> None:
    assert writer.newest() is None
    writer.save(2, 10, 9)
    writer.save(100)
    assert writer.names == ["step-100", "step-9"]
    assert (writer.run / "last").read_text() == "checkpoints/step-100\n"
    found = writer.newest()
    assert found is not None
    assert found[0]["step"] == 100
    assert torch.equal(found[1]["parameters"], writer.vector(100))
    assert load_model(writer.run).model.output_bias[0].item() == 100.0


def test_a_run_goes_on_over_the_damaged_one(writer: CheckpointWriter) -> None:
    writer.save(1, 2)
    flip(writer.run / "checkpoints/step-2/state.safetensors")
    found = writer.newest()
    assert found is not None
    assert found[0]["step"] == 1
    writer.checkpoints.rely_on(1, [])
    assert (writer.run / "last").read_text() == "checkpoints/step-1\n"
    writer.checkpoints.keep_last = 1
    writer.save(2)
    assert writer.names == ["step-2"]
    assert writer.newest() is not None


def test_a_damaged_checkpoint_does_not_count_as_the_newest(writer: CheckpointWriter) -> None:
    writer.save(1, 9)
    flip(writer.run / "checkpoints/step-9/state.json")
    writer.checkpoints.keep_last = 1
    writer.save(5)
    assert writer.names == ["step-5"]


def test_damage_everywhere_is_a_mistake_to_be_told(writer: CheckpointWriter) -> None:
    writer.save(1, 2)
    for step in (1, 2):
        flip(writer.run / f"checkpoints/step-{step}/state.safetensors")
    with pytest.raises(UserError, match=r"every checkpoint is damaged; choose another --out to begin anew\.$"):
        writer.newest()
    assert writer.warnings[1].endswith(").")


def test_what_was_being_written_at_a_crash_is_cleared(writer: CheckpointWriter, small_data: Path) -> None:
    writer.save(1, 2)
    folder = writer.run / "checkpoints"
    (folder / "step-3.partial").mkdir()
    (folder / "step-2").rename(folder / "step-2.replaced")
    again = CheckpointWriter(writer.run, small_data)
    assert again.names == ["step-1", "step-2"]
    (folder / "step-2.replaced").mkdir()
    assert CheckpointWriter(writer.run, small_data).names == ["step-1", "step-2"]


def test_best_models_that_the_newest_checkpoint_names_outlive_better_ones(
    writer: CheckpointWriter, small_data: Path
) -> None:
    writer.best(10, [10])
    writer.save(10, best=[10])
    writer.best(20, [20])
    assert writer.names == ["best-10", "best-20", "step-10"]
    assert (writer.run / "best").read_text() == "checkpoints/best-20\n"
    again = CheckpointWriter(writer.run, small_data)
    again.checkpoints.rely_on(10, [10])
    assert again.names == ["best-10", "step-10"]
    assert (writer.run / "best").read_text() == "checkpoints/best-10\n"


def test_as_many_best_models_are_kept_as_asked(small_data: Path, tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path / "run", small_data, keep_best=2)
    writer.best(1, [1])
    writer.best(2, [1, 2])
    writer.best(3, [3, 1])
    assert writer.names == ["best-1", "best-3"]
    assert (writer.run / "best").read_text() == "checkpoints/best-3\n"
    assert load_model(writer.run).model.output_bias[0].item() == 3.0


def test_a_best_model_that_could_not_be_written_leaves_the_one_before(writer: CheckpointWriter) -> None:
    writer.best(1, [1])
    writer.save(3, best=[2])
    assert writer.names == ["best-1", "step-3"]
    assert (writer.run / "best").read_text() == "checkpoints/best-1\n"


def test_a_checkpoint_is_what_was_when_it_was_begun(writer: CheckpointWriter) -> None:
    parameters, average = writer.vector(1), writer.vector(2)
    first = writer.checkpoints.save(1, {}, {"parameters": parameters}, average, [])
    parameters.fill_(7.0)
    second = writer.checkpoints.save(2, {}, {"parameters": parameters}, average.fill_(8.0), [])
    parameters.fill_(torch.nan)
    first.result()
    second.result()
    for step, (trained, decodes) in {1: (1.0, 2.0), 2: (7.0, 8.0)}.items():
        folder = writer.checkpoints.folder / f"step-{step}"
        assert load_file(folder / "state.safetensors")["parameters"].unique().tolist() == [trained]
        assert {float(tensor.unique()) for tensor in load_file(folder / "model.safetensors").values()} == {decodes}


def test_a_checkpoint_without_its_journal_gets_no_name(writer: CheckpointWriter) -> None:
    def fail() -> None:
        raise OSError("the journal before it is not written")

    writer.save(1)
    vector = writer.vector(2)
    with pytest.raises(OSError, match="the journal before it"):
        writer.checkpoints.save(2, {}, {"parameters": vector}, vector, [], fail).result()
    assert writer.names == ["step-1"]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_not_saved(writer: CheckpointWriter, number: float) -> None:
    writer.save(1)
    broken = writer.vector(2)
    broken[3] = number
    with pytest.raises(Diverged, match="not finite after update 2"):
        writer.checkpoints.save(2, {}, {"parameters": broken}, broken, []).result()
    assert writer.names == ["step-1"]
