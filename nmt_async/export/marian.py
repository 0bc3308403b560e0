"""A Transformer as a folder that Marian loads, and a model of Marian's as a model folder.

    model.npz      parameters, and the configuration as ``special:model.yml``; or model.bin, which has the same items
    vocab.spm      the SentencePiece model of both languages, or source.spm and target.spm
    decoder.yml    how to translate with them: ``marian-decoder -c decoder.yml``

Both directions copy numbers, so what is exported and imported again is the same, bit for bit; in 8 bits, what Marian
multiplies with.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from nmt_async.checkpoints import LoadedModel, save_model
from nmt_async.errors import UserError, shown
from nmt_async.export import marian_configuration
from nmt_async.export.marian_binary import (
    ALIGNMENT,
    SUFFIX,
    VERSION,
    BinaryFile,
    Codes,
    opened_binary,
    quantised_to_8_bits,
    write_binary,
)
from nmt_async.export.marian_parameters import Place, from_marian, places, to_marian
from nmt_async.export.marian_vocabularies import Given, WordList, vocabulary_files, without_unlisted
from nmt_async.export.npz import NpzFile, opened, write_npz
from nmt_async.model import FlatLayout, ModelConfiguration, build_model
from nmt_async.model.quantization import nearest, quantized_places
from nmt_async.options import yaml_mapping
from nmt_async.reading import open_ordinary
from nmt_async.text import Vocabulary
from nmt_async.translate import DecodingOptions
from nmt_async.writing import write_whole

MODEL, BINARY = "model.npz", "model.bin"
DECODER = "decoder.yml"
CONFIGURATION = "special:model.yml"
FOR_8_BITS = "_QuantMultA"
"""Ends the names of numbers (scripts/alphas of the browser models' Marian) by which a product in 8 bits scales what it
multiplies; in float32 nothing is scaled."""
MOST_CONFIGURATION = 2**20
"""Bytes of the configuration in a model file; Marian's has two thousand."""
WIDTHS_IN_8_BITS = 64
"""Marian's 8-bit products need rows in such multiples (intgemm's README), as many as an AVX512 register holds."""
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How files of gzip and zstd begin; browser models are often handed out so."""

ModelFile = NpzFile | BinaryFile


def export_marian(
    loaded: LoadedModel, folder: Path, *, binary: bool = False, quantization: str = "float32"
) -> None:  # fmt: skip
    """Writes the files into ``folder``, which is there and empty.

    Args:
        binary: as model.bin, which Marian can map into memory.
        quantization: float32, or int8 (with ``binary``): the matrices of linear layers in 8 bits, but for the output
            layer, which Marian quantises wrongly where it is not tied, and the embeddings.

    Raises:
        UserError: Marian cannot hold this model.
        ValueError: model.npz is to be in 8 bits, which it cannot be.
    """
    if quantization != "float32" and not binary:
        raise ValueError(f"{MODEL} holds float32, not {quantization}; ask for the binary file")
    configuration = loaded.configuration
    reason = marian_configuration.reason_against(configuration)
    if reason is None and quantization == "int8":
        reason = _reason_against_8_bits(loaded)
    if reason is not None:
        raise UserError(f"{loaded.folder} cannot be exported to Marian: {reason}.")
    named = {name: parameter.detach().cpu() for name, parameter in loaded.model.named_parameters()}
    text = marian_configuration.written(configuration).encode() + b"\0"  # Marian reads a string of C
    expected = places(configuration, marian_configuration.kind_of(configuration))
    arrays = to_marian(expected, named)
    if binary:
        codes = _in_8_bits(loaded, expected, named) if quantization == "int8" else {}
        text += bytes(-len(text) % ALIGNMENT)
        write_binary(folder / BINARY, {**arrays, **codes, CONFIGURATION: np.frombuffer(text, dtype=np.int8)})
    else:
        write_npz(folder / MODEL, {**arrays, CONFIGURATION: np.frombuffer(text, dtype=np.int8)})
    vocabularies = ["source.spm", "target.spm"]
    paths = [loaded.source_vocabulary.path, loaded.target_vocabulary.path]
    if paths[0] == paths[1]:
        vocabularies = ["vocab.spm", "vocab.spm"]
    for name, path in dict(zip(vocabularies, paths, strict=True)).items():
        (folder / name).write_bytes(without_unlisted(path))
    write_whole(folder / DECODER, _decoder(vocabularies, configuration, BINARY if binary else MODEL))


def _reason_against_8_bits(loaded: LoadedModel) -> str | None:
    """Why Marian cannot multiply with this model in 8 bits; None if it can."""
    configuration, quantization = loaded.configuration, loaded.quantization
    for name, width in {"dim_emb": configuration.dim_emb, "dim_ffn": configuration.dim_ffn}.items():
        if width % WIDTHS_IN_8_BITS:
            return (
                f"Marian's 8-bit products need widths that are multiples of {WIDTHS_IN_8_BITS}, and {name} is {width:,}"
            )
    if quantization is not None and quantization.scheme != "linear":
        return (
            f"it is quantised ({quantization}), and its levels are not among those of 8 bits; leave --quantization "
            f"out, or export the model it was made of"
        )
    return None


def _in_8_bits(loaded: LoadedModel, expected: list[Place], named: Mapping[str, Tensor]) -> dict[str, Codes]:
    """The matrices of linear layers; those of a quantised model have its levels and scales."""
    scales: dict[tuple[str, int], float] = {}  # by parameter and row
    if loaded.quantization is not None:
        for quantized in quantized_places(FlatLayout(loaded.model), loaded.quantization):
            _, found = quantized.pack(named[quantized.place.name], loaded.quantization)
            rows = found.repeat_interleave(torch.tensor(quantized.heights)).tolist()
            scales |= {(quantized.place.name, row): scale for row, scale in enumerate(rows)}
    codes = {}
    for place in expected:
        if place.transposed:
            matrix = place.view(named[place.ours]).float()
            if loaded.quantization is None:
                codes[place.marian] = quantised_to_8_bits(matrix.numpy())
            else:
                scale = scales[place.ours, place.first]
                levels = nearest(matrix.contiguous(), scale, loaded.quantization)
                codes[place.marian] = Codes(levels.to(torch.int8).numpy(), np.float32(1.0 / scale if scale else 1.0))
    return codes


def _decoder(vocabularies: list[str], configuration: ModelConfiguration, model: str) -> str:
    """How `translate` searches when nobody says otherwise, in Marian's words.

    Marian's ``transformer-new`` (see `marian_parameters`) looks at the source of one sentence for all sentences of a
    batch, as of 1.12.42 on a CPU, so it is given one at a time.
    """
    options = DecodingOptions()
    one_by_one = marian_configuration.kind_of(configuration) == "transformer-new"
    values = {
        "relative-paths": True,
        "models": [model],
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
        with _opened(model) as file:
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


def _opened(model: Path) -> AbstractContextManager[ModelFile]:
    """The model file, of either kind.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is none.
    """
    with open_ordinary(model) as file:
        begin = file.read(8)
    if begin.startswith(COMPRESSED):
        raise ValueError("it is compressed; unpack it first")
    binary = model.suffix == SUFFIX or begin == VERSION.to_bytes(8, "little")
    return opened_binary(model) if binary else opened(model)


def _configuration(file: ModelFile, model: Path) -> tuple[ModelConfiguration, str]:
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


def _check_arrays(file: ModelFile, expected: list[Place]) -> None:
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
