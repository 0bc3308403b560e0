"""The mean of several models' parameters, as a model folder of its own.

Averaging the last checkpoints of a run is an old habit of Transformer training (Vaswani et al. 2017, section 6.1): one
model, no slower than each of them, and mostly a little better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from nmt_async.checkpoints.model_folder import LoadedModel, load_model, save_model
from nmt_async.errors import UserError
from nmt_async.model import FlatLayout, ModelConfiguration
from nmt_async.writing import built_whole, check_free

FREE = ("dropout",)
"""What may differ: it means nothing once a model is trained."""


def average_models(folders: Sequence[Path], out: Path) -> None:
    """Writes a model folder with the mean of the models in ``folders``.

    One model at a time is in memory, beside the sum in float64.

    Args:
        out: it must be absent or an empty folder.

    Raises:
        UserError: a model cannot be read, two differ in more than their parameters, or there is something at ``out``.
    """
    if not folders:
        raise UserError("there is no model to average.")
    check_free(out, "--out: ")
    first = load_model(folders[0])
    layout = FlatLayout(first.model)
    total = layout.gather(first.model).double()
    for folder in folders[1:]:
        other = load_model(folder)
        _check_alike(first, other)
        total += layout.gather(other.model)
    named = layout.named((total / len(folders)).float())
    try:
        with built_whole(out) as building:
            save_model(
                building, first.configuration, named, first.source_vocabulary.path, first.target_vocabulary.path
            )  # fmt: skip
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror or error}).") from None


def _check_alike(one: LoadedModel, other: LoadedModel) -> None:
    """Raises UserError where the models' parameters do not mean the same."""
    for field in dataclasses.fields(ModelConfiguration):
        values = [getattr(model.configuration, field.name) for model in (one, other)]
        if values[0] != values[1] and field.name not in FREE:
            raise UserError(
                f"{one.folder} has {field.name.replace('_', '-')} {values[0]} and {other.folder} {values[1]}; "
                f"only models of the same configuration can be averaged."
            )
    for side in ("source", "target"):
        mine, its = (getattr(model, f"{side}_vocabulary") for model in (one, other))
        if not mine.is_same_as(its):
            raise UserError(
                f"{one.folder} and {other.folder} have different {side} vocabularies; "
                f"only models with the same ones can be averaged."
            )
