"""Matrices of few bits: a sign and a power of two, or a whole number, times one scale for the whole matrix.

**log** (Aji and Heafield 2019, section 3; 2020, section 2): a value is ± S · 2^-k with k = 0 … 2^(bits-1) - 1. Most
parameters are near zero, and there the levels are close together. There is no zero among them. **linear**: a value is
S · q with whole q from -(2^(bits-1) - 1) to 2^(bits-1) - 1.

**The scale** is fitted in turns: each value takes its nearest level, then S = Σ a v / Σ a² is the best scale for those
levels (v: values, a: levels in units of S). The works begin with the largest value as the scale; from there, a matrix
may need a hundred turns. So turns begin with the best of a few dozen scales, tried on a sample of the values. None of
them is larger than the one that puts the largest value on the top level. A turn that would not lower the squared error
is the end, and so is one after which no value would take the top level.

With 4 bits and more of *log*, there are so many levels below the values that the error is nearly the same for every
scale: on normal values 19.4 to 19.7 % over an octave. The best of a few dozen would then jump from one update of
training to the next, and with it all values of the matrix, each to a level up to a third away. (A model that was
trained so was worse than one of 3 bits.) So turns begin with what is best for normal values of that size, and end where
one would gain less than a hundredth. Then the scale moves as slowly as the values do.

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

TURNS = 1000
"""At most, of fitting a scale; from where they begin, most matrices need fewer than thirty."""

SAMPLE = 4096
"""Values, at least, on which scales are tried to begin with; all of a smaller matrix."""

BEST_FOR_NORMAL = 4.2
"""The scale of least squared error for normal values, in standard deviations, with 4 bits or more of *log*."""

WORTH_A_TURN = 0.99
"""What a turn leaves of the squared error there, if it is to count."""

_COARSE = [2.0 ** (-step / 4) for step in range(24)]
_FINE = [2.0 ** (-step / 16) for step in (0, -3, -2, -1, 1, 2, 3)]
"""What scales are tried: parts of the largest, then of the best of those."""

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
    codes: Tensor = torch.arange(2**quantization.bits, dtype=torch.float64)
    half = 2 ** (quantization.bits - 1)
    if quantization.scheme == "linear":
        return codes.sub(half).float()
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
    highest = _rounded(largest / quantization.top)
    if highest == 0.0 or not math.isfinite(highest):
        return highest
    scale = _beginning(values, highest, quantization)
    levels = levels_of(values / scale, quantization)
    error = squared_error(values, levels, scale)
    # Beyond it, the largest value would be nearer to the level below the top.
    bound = largest / (0.75 if quantization.scheme == "log" else quantization.top - 0.5)
    least = WORTH_A_TURN if _is_flat(quantization) else 1.0
    for _ in range(turns):
        better = _rounded(best_scale(values, levels))
        if better == scale or not 0.0 < better < bound:
            break
        its_levels = levels_of(values / better, quantization)
        its_error = squared_error(values, its_levels, better)
        if its_error >= least * error:
            break
        scale, levels, error = better, its_levels, its_error
    return scale


def _is_flat(quantization: Quantization) -> bool:
    """Whether the error hardly depends on the scale."""
    return quantization.scheme == "log" and quantization.bits >= 4


def _beginning(values: Tensor, highest: float, quantization: Quantization) -> float:
    """Of scales up to ``highest``, the best for a sample, or for normal values; the highest where nothing is better."""
    flat = values.reshape(-1)
    sample = flat[:: max(1, len(flat) // SAMPLE)]
    if _is_flat(quantization):
        on_levels = all(
            squared_error(some, nearest(some, highest, quantization), highest) == 0 for some in (sample, flat)
        )
        usual = _rounded(BEST_FOR_NORMAL * float(torch.linalg.vector_norm(flat)) / math.sqrt(len(flat)))
        return highest if on_levels or not 0.0 < usual < highest else usual
    best = highest
    for parts in (_COARSE, _FINE):
        scales = [min(highest, _rounded(best * part)) for part in parts]
        tried = torch.tensor(scales).to(values.device)[:, None]
        errors = (levels_of(sample / tried, quantization) * tried).sub_(sample).square_().sum(dim=1)
        best = min(zip(errors.cpu().tolist(), scales, strict=True), key=lambda each: each[0])[1]
    return best


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


def word_bits(bits: int) -> int:
    """Bits that one look into a table turns into values: a byte, or with 3 bits, of which a byte has no whole number,
    half of 3 bytes."""
    return 12 if bits == 3 else 8


@lru_cache(maxsize=32)
def word_table(quantization: Quantization) -> Tensor:
    """The levels of the values in each possible word, (2^`word_bits`, values), float32."""
    bits, width = quantization.bits, word_bits(quantization.bits)
    words = torch.arange(2**width)
    in_bytes = torch.stack([words & 255, words >> 8], dim=1)[:, : 1 + (width > 8)].to(torch.uint8)
    return table(quantization)[unpack(in_bytes, bits, width // bits).long()]


def words_of(packed: Tensor, bits: int) -> Tensor:
    """Packed rows (rows, bytes) as rows of words, int32."""
    if bits != 3:
        return packed.int()
    missing = -packed.shape[1] % 3
    first, second, third = F.pad(packed, (0, missing)).int().view(len(packed), -1, 3).unbind(2)
    words = torch.stack([first | (second & 15) << 8, second >> 4 | third << 4], dim=2)
    return words.view(len(packed), -1)


_AS_ONE = {1: torch.float32, 2: torch.complex64, 4: torch.complex128}
"""A type as large as so many values in float32: torch looks up numbers of any type, but copies rows slowly."""


def looked_up(packed: Tensor, values: Tensor, columns: int, bits: int) -> Tensor:
    """The values (rows, columns) of packed rows.

    Args:
        packed: (rows, `row_bytes`), uint8.
        values: of each word, as `word_table` has the levels, times the scale; float32.
    """
    words = words_of(packed, bits)
    found = values.view(_AS_ONE[values.shape[1]]).view(-1).index_select(0, words.view(-1))
    return found.view(torch.float32).view(len(packed), -1)[:, :columns]


def unpacked(
    packed: Tensor, scales: Tensor, heights: Sequence[int], columns: int, quantization: Quantization
) -> Tensor:
    """The values (rows, columns), float32, of packed rows.

    Args:
        packed: (rows, `row_bytes`), uint8.
        scales: of the matrices that stand beneath each other in them, (matrices,), float32.
        heights: rows of each.
    """
    levels = word_table(quantization)
    matrices = packed.split_with_sizes(list(heights))
    whole = [
        looked_up(each, levels * scale, columns, quantization.bits)
        for each, scale in zip(matrices, scales, strict=True)
    ]
    return whole[0] if len(whole) == 1 else torch.cat(whole)


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

    def unpack(self, packed: Tensor, scales: Tensor, quantization: Quantization) -> Tensor:
        """The parameter's values; see `pack`."""
        values = unpacked(packed, scales, self.heights, self.columns, quantization)
        return values.reshape(self.place.shape)


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
