"""How a model's matrices are quantised, and the options that say it. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import GIVEN, option
from nmt_async.reading import as_dataclass

QUANTIZATION = "Quantisation"

BITS = (2, 3, 4, 8)
SCHEMES = ("log", "linear")


@dataclass(frozen=True)
class Quantization:
    """How a model's matrices are quantised; see `nmt_async.model.quantization`.

    Attributes:
        bits: of a value, one of `BITS`.
        scheme: one of `SCHEMES`.
        biases: the biases are quantised, too; else they stay in float32, as gains and biases of norms always do.

    Raises:
        ValueError: there is no such quantisation.
    """

    bits: int
    scheme: str = "log"
    biases: bool = False

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"{shown(self.bits)} bits are not among {', '.join(map(str, BITS))}")
        if self.scheme not in SCHEMES:
            raise ValueError(f"the scheme {shown(self.scheme)} is not among {', '.join(SCHEMES)}")

    def __str__(self) -> str:
        return f"{self.bits}-bit {self.scheme}{', biases too' if self.biases else ''}"

    @property
    def top(self) -> int:
        """The highest level in units of the scale."""
        return 1 if self.scheme == "log" else int(2 ** (self.bits - 1)) - 1

    @property
    def lowest(self) -> float:
        """The lowest magnitude of a level in units of the scale."""
        if self.scheme == "linear":
            return 0.0
        return float(2.0 ** -min(2 ** (self.bits - 1) - 1, 126))  # float32 has no lower one that is not rounded

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for a model's description."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Quantization:
        """What `as_mapping` gave.

        Raises:
            TypeError, ValueError: there is no such quantisation.
        """
        return as_dataclass(cls, values)


def bits_typed(text: str) -> int:
    """The number of bits that was typed.

    Raises:
        UserError: no model is quantised to so many.
    """
    if text not in map(str, BITS):
        raise UserError(f"{shown(text)} is no number of bits that models are quantised to; choose 2, 3, 4 or 8.")
    return int(text)


@dataclass(frozen=True)
class QuantizeOptions:
    """The options of quantize."""

    bits: int = option(
        4, "Of each value of a matrix. 4 bits make a file about an eighth as large.",
        group=QUANTIZATION, parse=bits_typed, metavar="2|3|4|8",
    )  # fmt: skip
    scheme: str = option(
        "log", "log: a sign and a power of two, times a scale for each matrix; linear: whole numbers times a scale.",
        group=QUANTIZATION, choices=SCHEMES,
    )  # fmt: skip
    biases: bool = option(
        False, "Quantise biases, too. That saves little and costs quality, most of all in log.", group=QUANTIZATION
    )  # fmt: skip

    def quantization(self) -> Quantization:
        """What the options say."""
        return Quantization(self.bits, self.scheme, self.biases)


@dataclass(frozen=True)
class RetrainingOptions:
    """The options of train that quantise."""

    quantize_bits: int | None = option(
        None, "Train a model whose matrices have so few bits: gradients are computed on quantised parameters, and what "
        "that leaves out stays with the server. Mostly with --init-from.",
        group=QUANTIZATION, parse=bits_typed, metavar="2|3|4|8",
    )  # fmt: skip
    quantize_scheme: str = option(
        "log", "As quantize has it.", group=QUANTIZATION, choices=SCHEMES, only_with={"quantize_bits": GIVEN}
    )
    quantize_biases: bool = option(
        False, "Quantise biases, too.", group=QUANTIZATION, only_with={"quantize_bits": GIVEN}
    )

    def quantization(self) -> Quantization | None:
        """What the options say; None: nothing is quantised."""
        if self.quantize_bits is None:
            return None
        return Quantization(self.quantize_bits, self.quantize_scheme, self.quantize_biases)
