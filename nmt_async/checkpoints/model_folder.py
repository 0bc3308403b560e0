"""A trained model as a folder: parameters, configuration and vocabularies, complete and checked by their hashes.

    model.safetensors   parameters by name, each once; of a quantised one, packed rows and NAME.scale, its scales
    model.json          format version and configuration
    vocabulary.model    SentencePiece model of both languages, or source.model and target.model
    SHA256SUMS          the SHA-256 of each of them

A *run folder* is accepted wherever a model folder is; see `nmt_async.checkpoints.run_models`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from nmt_async.checkpoints.run_models import DESCRIPTION, find_model
from nmt_async.checksums import SUMS, damages, note_hashes, noted_hashes, sha256_of
from nmt_async.errors import UserError, shown
from nmt_async.model import FlatLayout, ModelConfiguration, TranslationModel
from nmt_async.model.build import build_unfilled
from nmt_async.model.packed_matrix import PackedMatrix, parameters_named, set_parameter
from nmt_async.model.quantization import Quantized, quantized_places, row_bytes
from nmt_async.model.quantization_options import Quantization
from nmt_async.reading import read_object
from nmt_async.text import Vocabulary
from nmt_async.writing import write_whole

FORMAT_VERSION = 2
"""In format 1 the hashes stood in ``model.json``, which was itself not covered; it is still read."""

FORMAT_QUANTISED = 3
"""Of models whose matrices are quantised, so that older versions say that they cannot read them."""

SCALES = ".scale"
"""Behind a parameter's name: the scales of its matrices."""

PARAMETERS = "model.safetensors"
JOINT_VOCABULARY = "vocabulary.model"
SOURCE_VOCABULARY = "source.model"
TARGET_VOCABULARY = "target.model"
FILES = ({PARAMETERS, JOINT_VOCABULARY}, {PARAMETERS, SOURCE_VOCABULARY, TARGET_VOCABULARY})
"""What a model is made of, besides its description."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its vocabularies, ready to translate.

    Attributes:
        folder: the model folder that was found.
        quantization: of its matrices there; None if they are float32.
    """

    model: TranslationModel
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    configuration: ModelConfiguration
    folder: Path
    quantization: Quantization | None = None


def save_model(
    folder: Path,
    configuration: ModelConfiguration,
    named_parameters: Mapping[str, Tensor],
    source_vocabulary_path: Path,
    target_vocabulary_path: Path,
    *,
    quantization: Quantization | None = None,
) -> None:
    """Writes the model's files into ``folder`` (made if absent); ``model.json``, which makes them a model, last.

    A reader never sees half a file, but may see old files beside new ones: write into a new folder, then rename it.

    Args:
        named_parameters: as `FlatLayout.named` gives them; the moving average where that is what decodes.
        quantization: of the matrices; None writes them in float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in named_parameters.items()}
    if quantization is not None:
        for quantized in quantized_places(layout_of(configuration), quantization):
            name = quantized.place.name
            contiguous[name], contiguous[name + SCALES] = quantized.pack(contiguous[name], quantization)
    beside = folder / (PARAMETERS + ".part")
    save_file(contiguous, beside)
    beside.replace(folder / PARAMETERS)
    vocabularies = {SOURCE_VOCABULARY: source_vocabulary_path, TARGET_VOCABULARY: target_vocabulary_path}
    if source_vocabulary_path.read_bytes() == target_vocabulary_path.read_bytes():
        vocabularies = {JOINT_VOCABULARY: source_vocabulary_path}
    for name, path in vocabularies.items():
        shutil.copyfile(path, folder / (name + ".part"))
        (folder / (name + ".part")).replace(folder / name)
    description = json.dumps(_described(configuration, quantization), indent=2) + "\n"
    hashes = {name: sha256_of(folder / name) for name in (PARAMETERS, *vocabularies)}
    note_hashes(folder, {**hashes, DESCRIPTION: hashlib.sha256(description.encode()).hexdigest()})
    write_whole(folder / DESCRIPTION, description)


def _described(configuration: ModelConfiguration, quantization: Quantization | None) -> dict[str, Any]:
    described: dict[str, Any] = {"format": FORMAT_VERSION, "configuration": configuration.as_mapping()}
    if quantization is not None:
        described |= {"format": FORMAT_QUANTISED, "quantization": quantization.as_mapping()}
    return described


def layout_of(configuration: ModelConfiguration) -> FlatLayout:
    """The places of the parameters of such a model, which is not built for it."""
    with torch.device("meta"):
        return FlatLayout(build_unfilled(configuration))


def load_model(folder: Path, packed: bool = False) -> LoadedModel:
    """The model in a model folder, or the best (else the last) one of a run folder, on the CPU.

    Args:
        packed: the matrices of a quantised model stay packed, for a search or a score to compute with; else they
            become float32, as all others are.

    Raises:
        UserError: there is none, a file is missing or damaged, or it was written by another version.
    """
    folder = find_model(folder)
    hashes = model_hashes(folder)
    found = damages(folder, hashes)
    if found:
        raise UserError(f"{folder}/{'; '.join(found)}; use another checkpoint.")
    description = _description(folder)
    quantization = None
    try:
        configuration = ModelConfiguration.from_mapping(description["configuration"])
        if "quantization" in description:
            quantization = Quantization.from_mapping(description["quantization"])
        layout = layout_of(configuration)  # sizes alone: nobody knows yet that the file is as large as the model
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder / DESCRIPTION} describes no model that this version knows ({error}).") from None
    codes = {} if quantization is None else {each.place.name: each for each in quantized_places(layout, quantization)}
    try:
        _check_parameters(folder / PARAMETERS, layout, codes, quantization)
        if quantization is not None and packed:
            model = _with_packed_matrices(folder / PARAMETERS, configuration, codes, quantization)
        else:
            model = _with_floats(folder / PARAMETERS, configuration, layout, codes, quantization)
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{folder / PARAMETERS} does not fit {DESCRIPTION} ({error}).") from None
    names = (JOINT_VOCABULARY,) if JOINT_VOCABULARY in hashes else (SOURCE_VOCABULARY, TARGET_VOCABULARY)
    vocabularies = [Vocabulary(folder / name) for name in names]
    source, target = vocabularies[0], vocabularies[-1]
    if (source.size, target.size) != (configuration.source_vocabulary, configuration.target_vocabulary):
        raise UserError(
            f"{folder}: the vocabularies have {source.size:,} and {target.size:,} subwords but the model "
            f"{configuration.source_vocabulary:,} and {configuration.target_vocabulary:,}; use another checkpoint."
        )
    return LoadedModel(model, source, target, configuration, folder, quantization)


def _with_floats(
    path: Path, configuration: ModelConfiguration, layout: FlatLayout, codes: Mapping[str, Quantized],
    quantization: Quantization | None,
) -> TranslationModel:  # fmt: skip
    """The model with all parameters as views into one vector."""
    model, vector = build_unfilled(configuration), torch.zeros(layout.size)
    named = load_file(path)
    for name, quantized in codes.items():
        assert quantization is not None
        named[name] = quantized.unpack(named[name], named[name + SCALES], quantization)
    layout.scatter(named, vector)
    layout.bind(model, vector)
    return model


def _with_packed_matrices(
    path: Path, configuration: ModelConfiguration, codes: Mapping[str, Quantized], quantization: Quantization
) -> TranslationModel:
    """The model with its matrices packed, and what else is quantised as float32."""
    model = build_unfilled(configuration)
    with safe_open(path, framework="pt") as file:
        for name, places in parameters_named(model).items():
            value = file.get_tensor(name)
            if name in codes:
                quantized = codes[name]
                scales = file.get_tensor(name + SCALES)
                if len(quantized.place.shape) == 2:
                    value = PackedMatrix(value, scales, quantized.heights, quantized.columns, quantization)
                else:
                    value = quantized.unpack(value, scales, quantization)
            set_parameter(places, value if isinstance(value, PackedMatrix) else value.float())
    return model


def _check_parameters(
    path: Path, layout: FlatLayout, codes: Mapping[str, Quantized], quantization: Quantization | None
) -> None:
    """Compares the file's header with the model.

    Raises:
        SafetensorError: it is no such file.
        ValueError: a parameter is missing, or of another shape or type.
    """
    floats = ("F32", "F16", "BF16", "F64")
    expected: dict[str, tuple[tuple[int, ...], tuple[str, ...]]]
    expected = {place.name: (place.shape, floats) for place in layout.places}
    for name, quantized in codes.items():
        assert quantization is not None
        width = row_bytes(quantized.columns, quantization.bits)
        expected[name] = ((math.prod(quantized.place.shape[:-1]), width), ("U8",))
        expected[name + SCALES] = ((len(quantized.heights),), ("F32",))
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name, (wanted, kinds) in expected.items():
            if name not in names:
                raise ValueError(f"{name} is missing")
            parameter = file.get_slice(name)
            shape, kind = tuple(parameter.get_shape()), parameter.get_dtype()
            if shape != wanted:
                raise ValueError(f"{name} has shape {shape} instead of {wanted}")
            if kind not in kinds:
                raise ValueError(f"{name} has type {kind} and not {kinds[0]}")


def model_damages(folder: Path) -> list[str]:
    """A phrase for each file of the model folder ``folder`` that is not as it was written; none if it is whole."""
    try:
        return damages(folder, model_hashes(folder))
    except UserError as error:
        return [phrase_of(error, folder)]


def phrase_of(error: Exception, folder: Path) -> str:
    """What is wrong with a file of ``folder``, without its place and without advice."""
    return str(error).removeprefix(f"{folder}/").removesuffix("; use another checkpoint.")


def model_hashes(folder: Path) -> dict[str, str]:
    """The noted hash of each of the model's files.

    Raises:
        UserError: where they should be noted they are not.
    """
    try:
        noted = noted_hashes(folder)
    except FileNotFoundError:
        return _hashes_of_format_1(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: {error}; use another checkpoint.") from None
    hashes = {name: digest for name, digest in noted.items() if name in {DESCRIPTION}.union(*FILES)}
    if hashes.keys() - {DESCRIPTION} not in FILES or DESCRIPTION not in hashes:
        raise UserError(f"{folder / SUMS} is damaged (it does not list the model's files); use another checkpoint.")
    return hashes


def _hashes_of_format_1(folder: Path) -> dict[str, str]:
    description = _description(folder)
    if description["format"] != 1:
        raise UserError(f"{folder / SUMS} is missing; use another checkpoint.")
    hashes = description.get("sha256")
    if not isinstance(hashes, dict) or hashes.keys() not in FILES:
        raise UserError(
            f"{folder / DESCRIPTION} is damaged (it does not list the model's files); use another checkpoint."
        )
    return hashes


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    try:
        description = read_object(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; use another checkpoint.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); use another checkpoint.") from None
    if not {"format", "configuration"} <= description.keys():
        raise UserError(f"{path} is not a model's description; use another checkpoint.")
    known = (FORMAT_QUANTISED,) if "quantization" in description else (1, FORMAT_VERSION)
    if description["format"] not in known:
        raise UserError(
            f"{path} has format {shown(description['format'])}, this version reads {known[-1]}; "
            f"use the version of nmt-async that wrote it."
        )
    return description
