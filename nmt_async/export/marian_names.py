"""The names of parameters in Marian's model files, of both its Transformers.

``transformer`` is the one of all versions (``src/models/transformer.h``); ``transformer-new``, since 1.12, the one
of its layer framework (``src/layers_new``), whose names are the C++ expressions that lead to the parameters.

They compute the same, but for two things. Translating with layer normalisation before sub-layers, version 1.12 of the
first does not normalise the keys and values of earlier positions, though it does in training and scoring. The second
adds 1e-5 to the variance in layer normalisation, the first 1e-6 as we do: scores differ by up to about 0.0002.
"""

from __future__ import annotations

from typing import Protocol

from nmt_async.model.configuration import ModelConfiguration

Pair = tuple[str, str]
"""Names of a matrix and its bias, or of a norm's scale and bias."""


class Names(Protocol):
    """The names of one of them.

    Sides are ``encoder`` and ``decoder``, layers count from 0, blocks are ``self`` or ``rnn``, ``context`` and ``ffn``.

    Attributes:
        flat: biases and norms have the shape (width,) instead of (1, width).
    """

    flat: bool

    def projection(self, side: str, layer: int, block: str, letter: str) -> Pair:
        """Of an attention's query, key, value or output (q, k, v, o)."""

    def ssru(self, layer: int) -> tuple[str, str, str]:
        """Of W, W_f and b_f in the decoder."""

    def feed_forward(self, side: str, layer: int, number: int) -> Pair:
        """Of the first or the second (1, 2) of the two layers."""

    def norm(self, side: str, layer: int, block: str) -> Pair:
        """Of the normalisation around a block."""

    def top(self, side: str) -> Pair:
        """Of the normalisation after all layers."""


class TransformerNames:
    """Of the type ``transformer``."""

    flat = False

    def __init__(self, configuration: ModelConfiguration) -> None:
        self._suffix = "_pre" if configuration.norm == "pre" else ""

    def projection(self, side: str, layer: int, block: str, letter: str) -> Pair:
        """See `Names`."""
        prefix = f"{side}_l{layer + 1}_{block}"
        return f"{prefix}_W{letter}", f"{prefix}_b{letter}"

    def ssru(self, layer: int) -> tuple[str, str, str]:
        """See `Names`."""
        prefix = f"decoder_l{layer + 1}_rnn"
        return f"{prefix}_W", f"{prefix}_Wf", f"{prefix}_bf"

    def feed_forward(self, side: str, layer: int, number: int) -> Pair:
        """See `Names`."""
        prefix = f"{side}_l{layer + 1}_ffn"
        return f"{prefix}_W{number}", f"{prefix}_b{number}"

    def norm(self, side: str, layer: int, block: str) -> Pair:
        """See `Names`."""
        end = {"ffn": "_ffn", "rnn": "" if self._suffix else "_ffn"}.get(block, "_Wo")
        prefix = f"{side}_l{layer + 1}_{block}{end}"
        return f"{prefix}_ln_scale{self._suffix}", f"{prefix}_ln_bias{self._suffix}"

    def top(self, side: str) -> Pair:
        """See `Names`."""
        return f"{side}_top_ln_scale", f"{side}_top_ln_bias"


LAYERS = {"encoder": "TransformerEncoderLayer", "decoder": "TransformerDecoderLayerWithCrossAttention"}
"""Classes of ``transformer-new``."""


class TransformerNewNames:
    """Of the type ``transformer-new``."""

    flat = True

    def __init__(self, configuration: ModelConfiguration) -> None:
        self._around = "preprocessor" if configuration.norm == "pre" else "postprocessor"
        # ReLU is one layer with the product before it and the dropout after it; the others are three.
        relu = configuration.activation == "relu"
        self._feed_forward = {1: (0, "LinearReluDropout" if relu else "Linear"), 2: (1 if relu else 3, "Linear")}

    def projection(self, side: str, layer: int, block: str, letter: str) -> Pair:
        """See `Names`."""
        kind = "crossAttention" if block == "context" else "selfAttention"
        return _of(f"{self._block(side, layer, block)}->{kind}->{letter}Proj")

    def ssru(self, layer: int) -> tuple[str, str, str]:
        """See `Names`."""
        cell = f"{self._block('decoder', layer, 'rnn')}->rnn->cell"
        return f"{cell}->iProj->weight", *_of(f"{cell}->fProj")

    def feed_forward(self, side: str, layer: int, number: int) -> Pair:
        """See `Names`."""
        place, kind = self._feed_forward[number]
        return _of(f"{self._block(side, layer, 'ffn')}->layers->at({place})->as<marian::nn::{kind}>()")

    def norm(self, side: str, layer: int, block: str) -> Pair:
        """See `Names`."""
        return _of(f"{self._block(side, layer, block)}->{self._around}->norm")

    def top(self, side: str) -> Pair:
        """See `Names`."""
        return _of(f"{self._stack(side)}->postprocessor->norm")

    def _block(self, side: str, layer: int, block: str) -> str:
        own = "selfAttentionBlock" if side == "encoder" else "autoRegressiveBlock"
        name = {"self": own, "rnn": own, "context": "crossAttentionBlock", "ffn": "filterBlock"}[block]
        return f"{self._stack(side)}->layers->at({layer})->as<marian::nn::{LAYERS[side]}>()->{name}"

    def _stack(self, side: str) -> str:
        return f"TransformerBatch{side.capitalize()}->{side}"


def _of(module: str) -> Pair:
    return f"{module}->weight", f"{module}->bias"


NAMES: dict[str, type[TransformerNames] | type[TransformerNewNames]] = {
    "transformer": TransformerNames,
    "transformer-new": TransformerNewNames,
}
"""By Marian's ``type``."""
