"""Matrices of few bits: a sign and a power of two, or a whole number, times one scale for the whole matrix.

**log** (Aji and Heafield 2019, section 3; 2020, section 2): a value is ± S · 2^-k with k = 0 … 2^(bits-1) - 1. Most
parameters are near zero, and there the levels are close together. There is no zero among them. **linear**: a value is
S · q with whole q from -(2^(bits-1) - 1) to 2^(bits-1) - 1.

**The scale** is fitted in turns: each value takes its nearest level, then S = Σ a v / Σ a² is the best scale for those
levels (v: values, a: levels in units of S). It begins with the scale that puts the largest value on the top level. A
turn that would make the squared error larger is the end, and so is one after which no value would take the top level.

**A scale has 16 significant bits.** So S times a level is exact in float32 whatever the level (8 bits in log excepted,
whose lowest levels are below float32's range), and a matrix that lies on such a grid comes back as it was.

**Packed**, a row is a stream of bits, filled up to whole bytes: value i of a row has bits i · b to (i + 1) · b - 1,
counted from the lowest bit of the row's first byte. With 4 bits these are two values a byte, the first in the lower
half. A code of *log* is k, with the highest bit set where the value is negative; a code of *linear* is q + 2^(bits-1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.parameters import FlatLayout, Place
from nmt_async.model.quantization_options import Quantization

TURNS = 30
"""At most, of fitting a scale; most matrices need fewer than ten."""

_EXPONENT = 0x7F800000
"""The bits of a float32 that hold its exponent."""


def levels_of(ratios: Tensor, quantization: Quantization) -> Tensor:
    """The level nearest to each of ``ratios`` (values divided by the scale), in units of the scale; a new tensor."""
    if quantization.scheme == "linear":
        return ratios.round().clamp_(-quantization.top, quantization.top)
    # The power of two nearest to x is the largest that is not above 4/3 x; a float32 says which in its exponent.
    powers = (ratios.abs() * (4.0 / 3.0)).clamp_(quantization.lowest, 1.0)
    powers.view(torch.int32).bitwise_and_(_EXPONENT)
    signed: Tensor = powers.copysign_(ratios)
    return signed


def codes_of(levels: Tensor, quantization: Quantization) -> Tensor:
    """The codes of levels, uint8."""
    sign = 2 ** (quantization.bits - 1)
    if quantization.scheme == "linear":
        return (levels + float(sign)).to(torch.uint8)
    exponents = 127 - (levels.abs().view(torch.int32) >> 23)
    codes: Tensor = exponents + sign * levels.signbit()
    return codes.to(torch.uint8)


def table(quantization: Quantization) -> Tensor:
    """The level of each code, (2^bits,), float32."""
    codes = torch.arange(2**quantization.bits, dtype=torch.float64)
    half = 2 ** (quantization.bits - 1)
    if quantization.scheme == "linear":
        return (codes - half).float()
    return torch.where(codes < half, torch.exp2(-codes), -torch.exp2(half - codes)).float()


def nearest(values: Tensor, scale: float, quantization: Quantization) -> Tensor:
    """The level nearest to each value, in units of the scale; 0 where the scale is 0."""
    if scale == 0.0:
        return torch.zeros_like(values)
    return levels_of(values / scale, quantization)


def fit(values: Tensor, quantization: Quantization, turns: int = TURNS) -> float:
    """The scale of a matrix; 0 for one of zeros.

    Args:
        values: of any shape, float32, finite.
        turns: at most, of fitting.
    """
    largest = float(values.abs().max()) if values.numel() else 0.0
    scale = _rounded(largest / quantization.top)
    if scale == 0.0:
        return 0.0
    levels = levels_of(values / scale, quantization)
    error = squared_error(values, levels, scale)
    # Beyond it, the largest value would be nearer to the level below the top.
    bound = largest / (0.75 if quantization.scheme == "log" else quantization.top - 0.5)
    for _ in range(turns):
        better = _rounded(best_scale(values, levels))
        if better == scale or not 0.0 < better < bound:
            break
        its_levels = levels_of(values / better, quantization)
        its_error = squared_error(values, its_levels, better)
        if its_error >= error:
            break
        scale, levels, error = better, its_levels, its_error
    return scale


def best_scale(values: Tensor, levels: Tensor) -> float:
    """The scale with the least squared error, if each value takes the level that it has now."""
    return float((levels * values).sum(dtype=torch.float64) / levels.square().sum(dtype=torch.float64))


def squared_error(values: Tensor, levels: Tensor, scale: float) -> float:
    """Of values that take ``levels`` times ``scale``."""
    return float((levels * scale).sub_(values).square_().sum(dtype=torch.float64))


def _rounded(scale: float) -> float:
    """The nearest number of 16 significant bits; 0 for what is too small to have them in float32."""
    if not math.isfinite(scale):
        return scale
    if scale < 2.0**-100:
        return 0.0
    mantissa, exponent = math.frexp(scale)
    return math.ldexp(round(mantissa * 2**16), exponent - 16)


def quantised(values: Tensor, quantization: Quantization, out: Tensor, turns: int = TURNS) -> float:
    """Writes into ``out`` what is left of a matrix when it is quantised; ``out`` may be ``values``.

    Returns:
        The scale.
    """
    scale = fit(values, quantization, turns)
    torch.mul(nearest(values, scale, quantization), scale, out=out)
    return scale


def row_bytes(columns: int, bits: int) -> int:
    """Bytes of a packed row."""
    return -(-columns * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Rows of codes (rows, columns), uint8, as rows of bytes (rows, `row_bytes`)."""
    if bits == 8:
        return codes
    rows, columns = codes.shape
    stream = (codes[:, :, None] >> torch.arange(bits, dtype=torch.uint8)).bitwise_and_(1).view(rows, columns * bits)
    width = row_bytes(columns, bits)
    filled = torch.zeros(rows, 8 * width, dtype=torch.uint8)
    filled[:, : columns * bits] = stream
    return (filled.view(rows, width, 8) << torch.arange(8, dtype=torch.uint8)).sum(dim=2).to(torch.uint8)


def unpack(packed: Tensor, bits: int, columns: int) -> Tensor:
    """The codes (rows, columns), uint8, that `pack` was given."""
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8)
        codes = (packed[:, :, None] >> shifts).bitwise_and_(2**bits - 1)
        return codes.view(len(packed), -1)[:, :columns]
    groups = -(-packed.shape[1] // bits)  # of as many bytes as a value has bits, which hold 8 values
    filled = torch.zeros(len(packed), groups * bits, dtype=torch.int32)
    filled[:, : packed.shape[1]] = packed
    words = (filled.view(len(packed), groups, bits) << torch.arange(0, 8 * bits, 8, dtype=torch.int32)).sum(dim=2)
    codes = (words[:, :, None] >> torch.arange(0, 8 * bits, bits)).bitwise_and_(2**bits - 1)
    return codes.to(torch.uint8).view(len(packed), -1)[:, :columns]


@lru_cache(maxsize=32)
def byte_table(quantization: Quantization) -> Tensor:
    """The levels of the values in each possible byte, (256, 8 / bits), float32; of 3 bits, the values cross bytes."""
    codes = unpack(torch.arange(256, dtype=torch.uint8)[:, None], quantization.bits, 8 // quantization.bits)
    return table(quantization)[codes.long()]


def unpacked(packed: Tensor, scales: Tensor, columns: int, quantization: Quantization) -> Tensor:
    """The values (rows, columns), float32, of packed rows.

    Args:
        packed: (rows, `row_bytes`), uint8.
        scales: of each row, (rows, 1), or of all of them, (1, 1); float32.
    """
    if 8 % quantization.bits == 0:
        levels = F.embedding(packed.int(), byte_table(quantization)).view(len(packed), -1)[:, :columns]
    else:
        codes = unpack(packed, quantization.bits, columns)
        levels = F.embedding(codes.int(), table(quantization)[:, None]).view(codes.shape)
    return levels * scales


@dataclass(frozen=True)
class Quantized:
    """A parameter of which each value is a code.

    Attributes:
        place: where it lies in the vector, and its shape.
        heights: rows of each of the matrices that stand beneath each other in it, each with a scale of its own; a
            vector is one row.
    """

    place: Place
    heights: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Of its matrices."""
        return self.place.shape[-1]

    def matrices(self, vector: Tensor) -> Sequence[Tensor]:
        """Views (height, columns) into the flat ``vector`` (size,)."""
        whole = vector[self.place.begin : self.place.end].view(-1, self.columns)
        return whole.split_with_sizes(list(self.heights))

    def pack(self, parameter: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor]:
        """Packed rows and the scales (matrices,) of the parameter's values, which are fitted."""
        rows, scales = [], []
        for matrix in parameter.reshape(-1, self.columns).split_with_sizes(list(self.heights)):
            scale = fit(matrix, quantization)
            scales.append(scale)
            levels = nearest(matrix, scale, quantization)
            if scale == 0.0 and quantization.scheme == "log":
                levels.fill_(1.0)  # any level times 0 is 0
            rows.append(pack(codes_of(levels, quantization), quantization.bits))
        return torch.cat(rows), torch.tensor(scales)

    def row_scales(self, scales: Tensor) -> Tensor:
        """The scale of each row, (rows, 1), or (1, 1) where all have the same."""
        if len(self.heights) == 1:
            return scales[:, None]
        return scales.repeat_interleave(torch.tensor(self.heights))[:, None]


def quantized_places(layout: FlatLayout, quantization: Quantization) -> list[Quantized]:
    """The parameters of which a quantisation leaves codes: matrices, and biases where it says so."""
    found = []
    for place in layout.places:
        if len(place.shape) == 2:
            found.append(Quantized(place, layout.heights(place)))
        elif quantization.biases and not layout.is_norm(place):
            found.append(Quantized(place, (1,)))
    return found


@torch.no_grad()
def quantise_vector(
    vector: Tensor, layout: FlatLayout, quantization: Quantization, out: Tensor, turns: int = TURNS
) -> None:
    """Writes into ``out`` (size,) what a quantised model would compute with in the place of ``vector`` (size,).

    Args:
        out: may be ``vector``.
    """
    if out is not vector:
        out.copy_(vector)
    for quantized in quantized_places(layout, quantization):
        for matrix in quantized.matrices(out):
            quantised(matrix, quantization, matrix, turns)
