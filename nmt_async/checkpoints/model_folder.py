"""A trained model as a folder: parameters, configuration and vocabularies, complete and checked by their hashes.

    model.safetensors   parameters by name, each once
    model.json          format version and configuration
    vocabulary.model    SentencePiece model of both languages, or source.model and target.model
    SHA256SUMS          the SHA-256 of each of them

A *run folder* is accepted wherever a model folder is; see `nmt_async.checkpoints.run_models`.
"""

from __future__ import annotations

import hashlib
import json
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
from nmt_async.model import FlatLayout, ModelConfiguration, TranslationModel, build_model
from nmt_async.reading import read_object
from nmt_async.text import Vocabulary
from nmt_async.writing import write_whole

FORMAT_VERSION = 2
"""In format 1 the hashes stood in ``model.json``, which was itself not covered; it is still read."""

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
    """

    model: TranslationModel
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    configuration: ModelConfiguration
    folder: Path


def save_model(
    folder: Path,
    configuration: ModelConfiguration,
    named_parameters: Mapping[str, Tensor],
    source_vocabulary_path: Path,
    target_vocabulary_path: Path,
) -> None:
    """Writes the model's files into ``folder`` (made if absent); ``model.json``, which makes them a model, last.

    A reader never sees half a file, but may see old files beside new ones: write into a new folder, then rename it.

    Args:
        named_parameters: as `FlatLayout.named` gives them; the moving average where that is what decodes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in named_parameters.items()}
    beside = folder / (PARAMETERS + ".part")
    save_file(contiguous, beside)
    beside.replace(folder / PARAMETERS)
    vocabularies = {SOURCE_VOCABULARY: source_vocabulary_path, TARGET_VOCABULARY: target_vocabulary_path}
    if source_vocabulary_path.read_bytes() == target_vocabulary_path.read_bytes():
        vocabularies = {JOINT_VOCABULARY: source_vocabulary_path}
    for name, path in vocabularies.items():
        shutil.copyfile(path, folder / (name + ".part"))
        (folder / (name + ".part")).replace(folder / name)
    description = json.dumps({"format": FORMAT_VERSION, "configuration": configuration.as_mapping()}, indent=2) + "\n"
    hashes = {name: sha256_of(folder / name) for name in (PARAMETERS, *vocabularies)}
    note_hashes(folder, {**hashes, DESCRIPTION: hashlib.sha256(description.encode()).hexdigest()})
    write_whole(folder / DESCRIPTION, description)


def load_model(folder: Path) -> LoadedModel:
    """The model in a model folder, or the best (else the last) one of a run folder, on the CPU.

    Raises:
        UserError: there is none, a file is missing or damaged, or it was written by another version.
    """
    folder = find_model(folder)
    hashes = model_hashes(folder)
    found = damages(folder, hashes)
    if found:
        raise UserError(f"{folder}/{'; '.join(found)}; use another checkpoint.")
    description = _description(folder)
    try:
        configuration = ModelConfiguration.from_mapping(description["configuration"])
        with torch.device("meta"):  # sizes alone: nobody knows yet that the file is as large as the model
            layout = FlatLayout(build_model(configuration))
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise UserError(f"{folder / DESCRIPTION} describes no model that this version knows ({error}).") from None
    try:
        _check_parameters(folder / PARAMETERS, layout)
        model, vector = build_model(configuration), torch.zeros(layout.size)
        layout.scatter(load_file(folder / PARAMETERS), vector)
    except (ValueError, SafetensorError) as error:
        raise UserError(f"{folder / PARAMETERS} does not fit {DESCRIPTION} ({error}).") from None
    layout.bind(model, vector)
    names = (JOINT_VOCABULARY,) if JOINT_VOCABULARY in hashes else (SOURCE_VOCABULARY, TARGET_VOCABULARY)
    vocabularies = [Vocabulary(folder / name) for name in names]
    source, target = vocabularies[0], vocabularies[-1]
    if (source.size, target.size) != (configuration.source_vocabulary, configuration.target_vocabulary):
        raise UserError(
            f"{folder}: the vocabularies have {source.size:,} and {target.size:,} subwords but the model "
            f"{configuration.source_vocabulary:,} and {configuration.target_vocabulary:,}; use another checkpoint."
        )
    return LoadedModel(model, source, target, configuration, folder)


def _check_parameters(path: Path, layout: FlatLayout) -> None:
    """Compares the file's header with the model.

    Raises:
        SafetensorError: it is no such file.
        ValueError: a parameter is missing, or of another shape or type.
    """
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for place in layout.places:
            if place.name not in names:
                raise ValueError(f"{place.name} is missing")
            parameter = file.get_slice(place.name)
            shape, kind = tuple(parameter.get_shape()), parameter.get_dtype()
            if shape != place.shape:
                raise ValueError(f"{place.name} has shape {shape} instead of {place.shape}")
            if kind not in ("F32", "F16", "BF16", "F64"):
                raise ValueError(f"{place.name} has type {kind} and not F32")


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
    if description["format"] not in (1, FORMAT_VERSION):
        raise UserError(
            f"{path} has format {shown(description['format'])}, this version reads {FORMAT_VERSION}; "
            f"use the version of nmt-async that wrote it."
        )
    return description
