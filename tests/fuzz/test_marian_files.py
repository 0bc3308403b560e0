"""Marian's model files: parameters in numpy's archive, with a configuration in YAML among them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import answered, damaged, often, yaml_files

from nmt_async.decoding.model_folder import load_model
from nmt_async.export.importing import ImportOptions, import_model
from nmt_async.export.marian import CONFIGURATION, export_marian
from nmt_async.export.npz import write_npz


@pytest.fixture(scope="session")
def exported(real_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as export makes it."""
    folder = tmp_path_factory.mktemp("exported")
    export_marian(load_model(real_run), folder)
    return folder


def imported(model: Path, exported: Path, out: Path) -> None:
    vocabulary = exported / "vocab.spm"
    shutil.rmtree(out, ignore_errors=True)
    loaded = import_model(ImportOptions(vocabs=(vocabulary, vocabulary), out=out), model)
    assert all(np.isfinite(parameter.detach().numpy()).all() for parameter in loaded.model.parameters())


@often
@given(mutation=st.data())
def test_a_damaged_model_file_is_read_or_refused(exported: Path, tmp_path: Path, mutation: st.DataObject) -> None:
    (tmp_path / "model.npz").write_bytes(mutation.draw(damaged((exported / "model.npz").read_bytes())))
    answered(lambda: imported(tmp_path / "model.npz", exported, tmp_path / "out"))


@often
@given(mutation=st.data())
def test_any_configuration_is_read_or_refused(exported: Path, tmp_path: Path, mutation: st.DataObject) -> None:
    with np.load(exported / "model.npz") as file:
        arrays = dict(file)
    text = arrays[CONFIGURATION].tobytes().rstrip(b"\0")
    assert yaml.safe_load(text)["type"] == "transformer-new"
    changed = mutation.draw(yaml_files(text))
    write_npz(tmp_path / "model.npz", {**arrays, CONFIGURATION: np.frombuffer(changed + b"\0", np.int8)})
    answered(lambda: imported(tmp_path / "model.npz", exported, tmp_path / "out"))
