"""A trained model with its matrices in few bits, as a model folder of its own; see `nmt_async.model.quantization`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from nmt_async.checkpoints.model_folder import PARAMETERS, load_model, save_model
from nmt_async.errors import RunFailure, UserError
from nmt_async.model import FlatLayout
from nmt_async.model.quantization import quantise_vector, quantized_places
from nmt_async.model.quantization_options import Quantization
from nmt_async.writing import built_whole, check_free


@dataclass(frozen=True)
class QuantizedModel:
    """What quantising has made of a model.

    Attributes:
        values: that have become codes.
        parameters: of the model, those values among them.
        error: the root of the mean squared error of those values, in parts of the root of their mean square.
        before, after: bytes of the parameters' file.
    """

    values: int
    parameters: int
    error: float
    before: int
    after: int


def quantize_model(run: Path, out: Path, quantization: Quantization) -> QuantizedModel:
    """Writes a model folder with the quantised model of ``run``.

    Args:
        out: it must be absent or an empty folder.

    Raises:
        UserError: there is no such model, it is quantised already, or there is something at ``out``.
        RunFailure: it could not be written.
    """
    check_free(out)
    loaded = load_model(run)
    if loaded.quantization is not None:
        raise UserError(f"{loaded.folder} is quantised already ({loaded.quantization}); name the model it was made of.")
    layout = FlatLayout(loaded.model)
    vector = layout.gather(loaded.model)
    if not bool(torch.isfinite(vector).all()):
        raise UserError(f"{loaded.folder} has parameters that are not finite; use another checkpoint.")
    places = quantized_places(layout, quantization)
    quantised = torch.empty_like(vector)
    quantise_vector(vector, layout, quantization, quantised)
    lost = total = 0.0
    for quantized in places:
        for mine, its in zip(quantized.matrices(vector), quantized.matrices(quantised), strict=True):
            lost += float((mine - its).square().sum(dtype=torch.float64))
            total += float(mine.square().sum(dtype=torch.float64))
    try:
        with built_whole(out) as building:
            save_model(
                building, loaded.configuration, layout.named(quantised), loaded.source_vocabulary.path,
                loaded.target_vocabulary.path, quantization=quantization,
            )  # fmt: skip
    except OSError as error:
        raise RunFailure(f"{out} could not be written ({error.strerror or error}); nothing is left there.") from None
    return QuantizedModel(
        values=sum(quantized.place.end - quantized.place.begin for quantized in places),
        parameters=layout.parameters,
        error=math.sqrt(lost / total) if total else 0.0,
        before=(loaded.folder / PARAMETERS).stat().st_size,
        after=(out / PARAMETERS).stat().st_size,
    )
