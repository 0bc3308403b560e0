"""Files of checkpoints are cut, flipped and removed; they are named, and the checkpoint before is used."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import assert_same_state, run_small

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checkpoints.training_state import checkpoint_damages
from nmt_async.checksums import SUMS, sha256_of
from nmt_async.errors import UserError

VIRTUAL = {"cluster": "simulated", "workers": 2, "save_freq": "2", "valid_freq": "3"}
FILES = ["model.json", "model.safetensors", "state.json", "state.safetensors", "vocabulary.model"]


@pytest.fixture(scope="module")
def saved(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates with two checkpoints and a best model, not to be changed."""
    run = tmp_path_factory.mktemp("saved") / "run"
    run_small(small_data, run, **VIRTUAL, stop_after="6")
    assert len(list((run / "checkpoints").glob("step-*"))) == 2
    return run


@pytest.fixture
def run(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "run")


def newest(run: Path) -> Path:
    return run / (run / "last").read_text().strip()


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def damage(path: Path, how: str) -> str:
    """Does it, and what must be said of it."""
    noted = sha256_of(path)
    if how == "removed":
        path.unlink()
        return f"{path.name} is missing"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "emptied":
        path.write_bytes(b"")
    else:
        flip(path, 8 * (path.stat().st_size // 2))
    return f"{path.name} is damaged (its SHA-256 is {sha256_of(path)[:8]}…, noted was {noted[:8]}…)"


def test_a_checkpoint_holds_what_its_hashes_name(saved: Path) -> None:
    assert sorted(path.name for path in newest(saved).iterdir()) == [SUMS, *FILES]
    assert checkpoint_damages(newest(saved)) == []


@pytest.mark.parametrize("how", ["flipped", "cut", "emptied", "removed"])
@pytest.mark.parametrize("name", FILES)
def test_the_damaged_file_is_named_with_its_hashes(run: Path, name: str, how: str) -> None:
    phrase = damage(newest(run) / name, how)
    assert checkpoint_damages(newest(run)) == [phrase]


def test_each_of_several_damaged_files_is_named(run: Path) -> None:
    phrases = [damage(newest(run) / name, "flipped") for name in FILES]
    assert sorted(checkpoint_damages(newest(run))) == sorted(phrases)


@settings(max_examples=60)
@given(draw=st.data())
def test_no_flipped_bit_goes_unseen(saved: Path, draw: st.DataObject) -> None:
    path = newest(saved) / draw.draw(st.sampled_from([SUMS, *FILES]))
    bit = draw.draw(st.integers(0, 8 * path.stat().st_size - 1))
    flip(path, bit)
    try:
        found = checkpoint_damages(newest(saved))
    finally:
        flip(path, bit)
    assert found
    if path.name != SUMS:
        assert [phrase.split()[0] for phrase in found] == [path.name]


@pytest.mark.parametrize("text", [None, "", "0\n", f"{'0' * 64}  ../../outside\n"])
def test_hashes_that_are_lost_are_damage(run: Path, text: str | None) -> None:
    (newest(run) / SUMS).unlink()
    if text is not None:
        (newest(run) / SUMS).write_text(text)
    (found,) = checkpoint_damages(newest(run))
    assert found.startswith(f"{SUMS} is {'missing' if text is None else 'damaged'}")


def test_a_run_goes_on_from_the_checkpoint_before_and_comes_to_the_same(
    run: Path, small_data: Path, tmp_path: Path
) -> None:
    last = newest(run)
    (before,) = set((run / "checkpoints").glob("step-*")) - {last}
    phrase = damage(last / "state.safetensors", "flipped")
    witness = run_small(small_data, run, **VIRTUAL, stop_after="8")
    told = f"{last}: {phrase}; the checkpoint before it is used."
    assert told in witness.warnings
    assert f"[warn] {told}" in (run / "train.log").read_text()
    assert f"going on after update {before.name.removeprefix('step-')}." in witness.said
    run_small(small_data, tmp_path / "straight", **VIRTUAL, stop_after="8")
    assert_same_state(run, tmp_path / "straight")


def test_where_every_checkpoint_is_damaged_the_run_is_left_as_it_is(run: Path, small_data: Path) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        damage(folder / "model.safetensors", "cut")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with pytest.raises(UserError, match=r"every checkpoint is damaged; choose another --out to begin anew\.$"):
        run_small(small_data, run, **VIRTUAL, stop_after="8")
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert before.keys() == after.keys()
    changed = [path.name for path, content in before.items() if after[path] != content]
    assert set(changed) <= {"config.yaml", "journal", "sittings.jsonl"}


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "vocabulary.model"])
def test_a_damaged_best_model_is_refused_in_one_sentence(run: Path, name: str) -> None:
    best = run / (run / "best").read_text().strip()
    phrase = damage(best / name, "flipped")
    with pytest.raises(UserError) as refused:
        load_model(run)
    assert str(refused.value) == f"{best}/{phrase}; use another checkpoint."


def test_a_checkpoint_of_a_later_version_is_not_called_damaged(run: Path) -> None:
    state, sums = newest(run) / "state.json", newest(run) / SUMS
    noted = sha256_of(state)
    state.write_text(state.read_text().replace('{"format": 2,', '{"format": 3,', 1))
    sums.write_text(sums.read_text().replace(noted, sha256_of(state)))
    with pytest.raises(UserError, match=re.escape(f"{state} has format 3, this version reads 2; use the version")):
        checkpoint_damages(newest(run))


def test_other_files_do_not_make_a_checkpoint(tmp_path: Path) -> None:
    assert checkpoint_damages(tmp_path) == ["state.json is missing"]
    (tmp_path / "state.json").write_text("[]")
    assert checkpoint_damages(tmp_path) == ["state.json is not a state"]
