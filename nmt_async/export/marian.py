"""A Transformer as a folder that Marian loads, and a model of Marian's as a model folder.

    model.npz      parameters, and the configuration as ``special:model.yml``
    vocab.spm      the SentencePiece model of both languages, or source.spm and target.spm
    decoder.yml    how to translate with them: ``marian-decoder -c decoder.yml``

Both directions copy numbers, so what is exported and imported again is the same, bit for bit.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml

from nmt_async.checkpoints import LoadedModel, save_model
from nmt_async.errors import UserError, shown
from nmt_async.export import marian_configuration
from nmt_async.export.marian_parameters import Place, from_marian, places, to_marian
from nmt_async.export.marian_vocabularies import Given, WordList, vocabulary_files, without_unlisted
from nmt_async.export.npz import NpzFile, opened, write_npz
from nmt_async.model import FlatLayout, ModelConfiguration, build_model
from nmt_async.options import yaml_mapping
from nmt_async.text import Vocabulary
from nmt_async.translate import DecodingOptions
from nmt_async.writing import write_whole

MODEL = "model.npz"
DECODER = "decoder.yml"
CONFIGURATION = "special:model.yml"
FOR_8_BITS = "_QuantMultA"
"""Ends the names of numbers (scripts/alphas of the browser models' Marian) by which a product in 8 bits scales what it
multiplies; in float32 nothing is scaled."""
MOST_CONFIGURATION = 2**20
"""Bytes of the configuration in a model file; Marian's has two thousand."""


def export_marian(loaded: LoadedModel, folder: Path) -> None:
    """Writes the files into ``folder``, which is there and empty.

    Raises:
        UserError: Marian cannot hold this model.
    """
    configuration = loaded.configuration
    reason = marian_configuration.reason_against(configuration)
    if reason is not None:
        raise UserError(f"{loaded.folder} cannot be exported to Marian: {reason}.")
    named = {name: parameter.detach().cpu() for name, parameter in loaded.model.named_parameters()}
    text = marian_configuration.written(configuration).encode() + b"\0"  # Marian reads a string of C
    expected = places(configuration, marian_configuration.kind_of(configuration))
    arrays = {**to_marian(expected, named), CONFIGURATION: np.frombuffer(text, dtype=np.int8)}
    write_npz(folder / MODEL, arrays)
    vocabularies = ["source.spm", "target.spm"]
    paths = [loaded.source_vocabulary.path, loaded.target_vocabulary.path]
    if paths[0] == paths[1]:
        vocabularies = ["vocab.spm", "vocab.spm"]
    for name, path in dict(zip(vocabularies, paths, strict=True)).items():
        (folder / name).write_bytes(without_unlisted(path))
    write_whole(folder / DECODER, _decoder(vocabularies, configuration))


def _decoder(vocabularies: list[str], configuration: ModelConfiguration) -> str:
    """How `translate` searches when nobody says otherwise, in Marian's words.

    Marian's ``transformer-new`` (see `marian_parameters`) looks at the source of one sentence for all sentences of a
    batch, as of 1.12.42 on a CPU, so it is given one at a time.
    """
    options = DecodingOptions()
    one_by_one = marian_configuration.kind_of(configuration) == "transformer-new"
    values = {
        "relative-paths": True,
        "models": [MODEL],
        "vocabs": vocabularies,
        "beam-size": options.beam_size,
        "normalize": options.normalize,
        "word-penalty": 0.0,
        "max-length": options.max_length,
        "max-length-crop": True,
        "max-length-factor": options.max_length_factor,
        "mini-batch": 1 if one_by_one else options.mini_batch,
        "maxi-batch": options.maxi_batch,
        "maxi-batch-sort": "src",
    }
    text: str = yaml.safe_dump(values, sort_keys=False)
    return text


def import_marian(model: Path, vocabularies: list[Given], folder: Path) -> None:
    """Writes a model folder into ``folder`` from a model file of Marian's and its vocabularies, the source's first.

    Raises:
        UserError: something cannot be read, is damaged, does not fit, or cannot be computed by this toolkit.
    """
    try:
        with opened(model) as file:
            configuration, kind = _configuration(file, model)
            _check_vocabularies(configuration, vocabularies, model)
            expected = places(configuration, kind)
            _check_arrays(file, expected)
            arrays = {place.marian: _finite(file.read(place.marian), place.marian) for place in expected}
    except OSError as error:
        raise UserError(f"{model} cannot be read as a model of Marian's ({error.strerror or error}).") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{model} cannot be imported: {error}.") from None
    with torch.device("meta"):
        layout = FlatLayout(build_model(configuration))
    named = layout.named(torch.zeros(layout.size))
    from_marian(expected, arrays, named)
    with tempfile.TemporaryDirectory() as place:
        sizes = configuration.source_vocabulary, configuration.target_vocabulary
        paths = vocabulary_files(vocabularies, sizes, Path(place))
        if configuration.tied == "all" and not Vocabulary(paths[0]).is_same_as(Vocabulary(paths[1])):
            raise UserError(
                f"--vocabs: the embeddings of {model} are one matrix, and {vocabularies[0].path} and "
                f"{vocabularies[1].path} have different subwords; give the vocabularies it was trained with."
            )
        save_model(folder, configuration, named, *paths)


def _configuration(file: NpzFile, model: Path) -> tuple[ModelConfiguration, str]:
    """Of the model in the file, and Marian's type of it.

    Raises:
        ValueError, TypeError, UserError: it has none, or one of a model that this toolkit does not compute.
    """
    if CONFIGURATION not in file:
        raise ValueError(f"it holds no {CONFIGURATION}, and so no model of Marian's")
    size = math.prod(file.described(CONFIGURATION).shape)
    if size > MOST_CONFIGURATION:
        raise ValueError(f"its {CONFIGURATION} has {size:,} bytes")
    text = file.read(CONFIGURATION).tobytes().rstrip(b"\0")
    values = yaml_mapping(text, f"{model}: {CONFIGURATION}")
    return marian_configuration.read(values), str(values["type"])


def _check_vocabularies(configuration: ModelConfiguration, vocabularies: list[Given], model: Path) -> None:
    sizes = (configuration.source_vocabulary, configuration.target_vocabulary)
    for vocabulary, size in zip(vocabularies, sizes, strict=True):
        padded = isinstance(vocabulary, WordList) and vocabulary.size < size
        if vocabulary.size != size and not padded:
            raise UserError(
                f"--vocabs: {vocabulary.path} has {vocabulary.size:,} subwords and {model} was made for {size:,}; "
                f"give the vocabularies it was trained with, the source's first."
            )
    if configuration.tied == "all" and sizes[0] != sizes[1]:
        raise ValueError(
            f"its embeddings are one matrix, and its vocabularies have {sizes[0]:,} and {sizes[1]:,} words"
        )


def _check_arrays(file: NpzFile, expected: list[Place]) -> None:
    """Compares the file's arrays with the model, before any is read.

    Raises:
        ValueError: one is missing, of another shape or type, or one too many.
    """
    for place in expected:
        array = file.described(place.marian)
        if array.shape != place.shape:
            raise ValueError(f"{place.marian} has shape {shown(array.shape)} where {place.shape} belongs")
        if array.kind not in (np.dtype("<f4"), np.dtype("<f2")):
            raise ValueError(f"{place.marian} has type {shown(str(array.kind))}, and only float32 and float16 are read")
    others = file.names() - {place.marian for place in expected} - {CONFIGURATION}
    others = {name for name in others if not name.startswith("special:") and not name.endswith(FOR_8_BITS)}
    if others:
        raise ValueError(f"it holds {shown(min(others))}, which no model of its configuration has here")


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    """The array, float32.

    Raises:
        ValueError: it holds a number that is none.
    """
    numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return numbers
