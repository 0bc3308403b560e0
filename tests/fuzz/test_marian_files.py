"""Marian's model files: parameters in numpy's archive, with a configuration in YAML among them; its lists of words."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mutations import answered, damaged, often, yaml_files

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.export.conversion import import_model
from nmt_async.export.marian import CONFIGURATION, export_marian
from nmt_async.export.marian_binary import KINDS, NOT_READ, TRANSPOSED_IN, quantised_to_8_bits, write_binary
from nmt_async.export.marian_vocabularies import given_vocabularies, read_words, vocabulary_files
from nmt_async.export.npz import write_npz
from nmt_async.export.options import ImportOptions
from nmt_async.text.vocabulary import Vocabulary

HEADER = 8000
"""Bytes of a binary model in which accidents matter most."""

NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 256,
    2**64 - 1,
    *KINDS,
    *NOT_READ,
)


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


@pytest.fixture(scope="session")
def binary(exported: Path) -> list[bytes]:
    """The same model in Marian's binary format: float32, and its matrices in 8 bits."""
    with np.load(exported / "model.npz") as file:
        arrays = dict(file)
    codes = {
        name: quantised_to_8_bits(array)
        for name, array in arrays.items()
        if array.ndim == 2 and "Wemb" not in name and not any(side % TRANSPOSED_IN for side in array.shape)
    }
    assert len(codes) > 10
    found = []
    for number, written in enumerate((arrays, arrays | codes)):
        write_binary(exported / f"{number}.bin", written)
        imported(exported / f"{number}.bin", exported, exported / f"{number}.run")
        found.append((exported / f"{number}.bin").read_bytes())
    return found


@often
@given(mutation=st.data())
def test_a_damaged_binary_model_is_read_or_refused(
    binary: list[bytes], exported: Path, tmp_path: Path, mutation: st.DataObject
) -> None:
    whole = mutation.draw(st.sampled_from(binary))
    content = mutation.draw(damaged(whole) | damaged(whole[:HEADER]).map(lambda header: header + whole[HEADER:]))
    (tmp_path / "model.bin").write_bytes(content)
    answered(lambda: imported(tmp_path / "model.bin", exported, tmp_path / "out"))


@often
@given(mutation=st.data())
def test_a_binary_model_with_wrong_numbers_in_its_header_is_read_or_refused(
    binary: list[bytes], exported: Path, tmp_path: Path, mutation: st.DataObject
) -> None:
    content = bytearray(mutation.draw(st.sampled_from(binary)))
    items = int.from_bytes(content[8:16], "little")
    for _ in range(mutation.draw(st.integers(1, 3))):
        place = 8 * mutation.draw(st.integers(0, 2 + 4 * items))
        number = mutation.draw(st.sampled_from(NUMBERS) | st.integers(0, 2**64 - 1))
        content[place : place + 8] = number.to_bytes(8, "little")
    (tmp_path / "model.bin").write_bytes(content)
    answered(lambda: imported(tmp_path / "model.bin", exported, tmp_path / "out"))


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


LIST = """\
</s>: 0
<unk>: 1
\u2581the: 2
">>deu<<": 3
end: 4
e: 5
\u2581: 6
"'": 7
"""


@often
@given(mutation=st.data())
@pytest.mark.parametrize("name", ["vocab.yml", "vocab.txt"])
def test_a_list_of_words_is_read_or_refused(tmp_path: Path, name: str, mutation: st.DataObject) -> None:
    written = LIST.encode() if name.endswith(".yml") else "\n".join(yaml.safe_load(LIST)).encode()
    changes = yaml_files(written) if name.endswith(".yml") else damaged(written)
    (tmp_path / name).write_bytes(mutation.draw(changes))
    words = answered(lambda: read_words(tmp_path / name))
    if words is not None:
        assert words[:2] == ["</s>", "<unk>"]
        assert len(set(words)) == len(words)


@often
@given(mutation=st.data())
def test_a_damaged_list_or_model_makes_a_vocabulary_or_is_refused(
    exported: Path, tmp_path: Path, mutation: st.DataObject
) -> None:
    listed, spm = LIST.encode(), (exported / "vocab.spm").read_bytes()
    which = mutation.draw(st.sampled_from(["list", "spm"]))
    (tmp_path / "vocab.yml").write_bytes(mutation.draw(yaml_files(listed)) if which == "list" else listed)
    (tmp_path / "source.spm").write_bytes(mutation.draw(damaged(spm)) if which == "spm" else spm)

    def make() -> None:
        sides = given_vocabularies([tmp_path / "vocab.yml"] * 2, [tmp_path / "source.spm"] * 2)
        sizes = [side.size + 3 for side in sides]
        for path in vocabulary_files(sides, sizes, tmp_path):
            vocabulary = Vocabulary(path)
            assert vocabulary.size == sizes[0]
            assert all(0 <= index < vocabulary.size for index in vocabulary.encode(">>deu<< the end \u0436 </s>"))

    answered(make)
