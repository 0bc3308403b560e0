"""The state of training, which stands in a checkpoint's folder beside its model.

``state.json`` has its plain values, ``state.safetensors`` its tensors. All files of the folder are covered by its
``SHA256SUMS``; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nmt_async.checkpoints.model_folder import load_model, model_hashes, phrase_of
from nmt_async.checksums import SUMS, damages, note_hashes, noted_hashes, sha256_of
from nmt_async.errors import UserError
from nmt_async.reading import read_object
from nmt_async.writing import write_whole

STATE = "state.json"
TENSORS = "state.safetensors"
FORMAT = 2
"""In format 1 one hash in ``state.json`` was of values and tensors together; it is still read."""


def write_state(folder: Path, text: str, tensors: dict[str, Tensor]) -> None:
    """Writes the state into ``folder``, in which a model is saved already.

    Args:
        text: the values, as JSON.

    Raises:
        OSError, SafetensorError: it could not be written.
    """
    save_file(tensors, folder / TENSORS)
    content = f'{{"format": {FORMAT}, "state": {text}}}\n'
    hashes = {TENSORS: sha256_of(folder / TENSORS), STATE: hashlib.sha256(content.encode()).hexdigest()}
    note_hashes(folder, {**noted_hashes(folder), **hashes})
    write_whole(folder / STATE, content)


def read_state(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The values and the tensors in ``folder``, of which `checkpoint_damages` found none."""
    return read_object(folder / STATE)["state"], load_file(folder / TENSORS)


def read_values(folder: Path) -> dict[str, Any]:
    """The plain values of the state in ``folder`` alone, whether or not the rest is whole.

    Raises:
        OSError, ValueError, LookupError, TypeError: they are not.
    """
    values: dict[str, Any] = read_object(folder / STATE)["state"]
    return values


def checkpoint_damages(folder: Path, size: int | None = None) -> list[str]:
    """A phrase for each file of the checkpoint ``folder`` that is not as it was written; none if it is whole.

    Args:
        size: of the vectors that the state must have; None where that is not known.

    Raises:
        UserError: another version wrote it.
    """
    try:
        noted = noted_hashes(folder)
    except FileNotFoundError:
        return _damages_of_format_1(folder, size)
    except (OSError, ValueError) as error:
        return [str(error)]
    found = damages(folder, noted)
    if found:
        return found
    missing = sorted({STATE, TENSORS} - noted.keys())
    if missing:
        return [f"{SUMS} is damaged (it does not list {missing[0]})"]
    try:
        model_hashes(folder)
    except UserError as error:
        return [phrase_of(error, folder)]
    return _misfits(folder, size, format=FORMAT)


def _misfits(folder: Path, size: int | None, format: int) -> list[str]:
    """What is wrong with the meaning of ``state.json``."""
    written = _values(folder)
    if written is None:
        return [f"{STATE} is not a state"]
    found = written.get("format", written["state"].get("format"))
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"{folder / STATE} has format {found}, this version reads {FORMAT}; "
            f"use the version of nmt-async that wrote it."
        )
    if found != format:
        return [f"{SUMS} is missing" if found == FORMAT else f"{STATE} is not a state"]
    if size is not None and written["state"].get("size") != size:
        return [f"its model has {written['state'].get('size')} parameters"]
    return []


def _values(folder: Path) -> dict[str, Any] | None:
    try:
        written = read_object(folder / STATE)
    except (OSError, ValueError):
        return None
    return written if isinstance(written.get("state"), dict) else None


def _damages_of_format_1(folder: Path, size: int | None) -> list[str]:
    if not (folder / STATE).is_file():
        return [f"{STATE} is missing"]
    found = _misfits(folder, size, format=1)
    if found:
        return found
    written = _values(folder)
    assert written is not None
    try:
        with (folder / TENSORS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps(written["state"]).encode())
        if written.get("sha256") != digest.hexdigest():
            return [f"the SHA-256 of {STATE} and {TENSORS} is not the one noted"]
        load_model(folder)
    except (OSError, SafetensorError, UserError) as error:
        return [phrase_of(error, folder)]
    return []
