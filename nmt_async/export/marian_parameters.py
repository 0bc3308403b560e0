"""A Transformer's parameters in Marian's model file: their names and where each stands, and back, bit for bit.

Marian has two Transformers. ``transformer`` is the one of all versions (``src/models/transformer.h``);
``transformer-new``, since 1.12, is the one of its layer framework (``src/layers_new``). The names of its parameters are
the C++ expressions that lead to them. Both compute the same, but for two things. Translating with layer normalisation
before sub-layers, version 1.12 of the first does not normalise the keys and values of earlier positions, though it does
in training and scoring. The second adds 1e-5 to the variance in layer normalisation, the first 1e-6 as we do: scores
differ by up to about 0.0002.

Marian multiplies from the right, so its matrices are ours transposed; it keeps query, key and value apart, which lie
beneath each other here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nmt_async.model import ModelConfiguration

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


@dataclass(frozen=True)
class Place:
    """One of Marian's parameters.

    Attributes:
        marian: its name there.
        ours: the name of our parameter that holds it.
        shape: in Marian's file.
        first: the row of ours at which it begins.
        transposed: it is a matrix that Marian multiplies from the right.
    """

    marian: str
    ours: str
    shape: tuple[int, ...]
    first: int = 0
    transposed: bool = False

    def view(self, ours: Tensor) -> Tensor:
        """Its part of ``ours``, a view in Marian's shape."""
        rows = self.shape[-1] if self.transposed or ours.dim() == 1 else self.shape[0]
        part = ours[self.first : self.first + rows]
        return part.t() if self.transposed else part.view(self.shape)


def places(configuration: ModelConfiguration, kind: str) -> list[Place]:
    """All parameters of a Transformer; together they cover every element of ours once.

    Args:
        kind: Marian's ``type``, of `NAMES`.
    """
    names: Names = NAMES[kind](configuration)
    found = list(_embeddings(configuration))
    for side, depth in (("encoder", configuration.enc_depth), ("decoder", configuration.dec_depth)):
        for layer in range(depth):
            found += _layer(configuration, names, side, layer)
        if configuration.norm == "pre":
            found += _norm(configuration, names, names.top(side), f"{side}_top")
    return found


def to_marian(expected: list[Place], named: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Our parameters by their names, as Marian's by theirs, float32."""
    return {place.marian: place.view(named[place.ours].float()).contiguous().numpy() for place in expected}


def from_marian(expected: list[Place], arrays: Mapping[str, np.ndarray], named: Mapping[str, Tensor]) -> None:
    """Writes Marian's parameters, of the shapes that the places say, into ours."""
    for place in expected:
        place.view(named[place.ours]).copy_(torch.from_numpy(arrays[place.marian]))


def _embeddings(configuration: ModelConfiguration) -> Iterator[Place]:
    width = configuration.dim_emb
    source, target = (configuration.source_vocabulary, width), (configuration.target_vocabulary, width)
    # Tied matrices are one parameter, which has the name under which the model registers it first.
    if configuration.tied == "all":
        yield Place("Wemb", "output_weight", target)
    else:
        yield Place("encoder_Wemb", "source_embedding.weight", source)
        tied = configuration.tied == "target"
        yield Place("decoder_Wemb", "output_weight" if tied else "target_embedding.weight", target)
        if not tied:
            yield Place("decoder_ff_logit_out_Wt", "output_weight", target)
    yield Place("decoder_ff_logit_out_b", "output_bias", (1, configuration.target_vocabulary))


def _layer(configuration: ModelConfiguration, names: Names, side: str, layer: int) -> Iterator[Place]:
    width, inner, module = configuration.dim_emb, configuration.dim_ffn, f"{side}.{layer}"
    attentions = {}
    if side == "decoder" and configuration.decoder_autoreg == "ssru":
        yield from _ssru(configuration, names, layer)
    else:
        attentions["self"] = (
            "attention",
            {"q": ("query_key_value", 0), "k": ("query_key_value", 1), "v": ("query_key_value", 2), "o": ("output", 0)},
        )
    if side == "decoder":
        attentions["context"] = (
            "cross_attention",
            {"q": ("query", 0), "k": ("key_value", 0), "v": ("key_value", 1), "o": ("output", 0)},
        )
    for block, (attention, parts) in attentions.items():
        for letter, (part, number) in parts.items():
            pair = names.projection(side, layer, block, letter)
            yield from _linear(names, pair, f"{module}.{attention}.{part}", (width, width), number * width)
        yield from _norm(configuration, names, names.norm(side, layer, block), f"{module}.around_{attention}.norm")
    yield from _linear(names, names.feed_forward(side, layer, 1), f"{module}.feed_forward.inner", (width, inner))
    yield from _linear(names, names.feed_forward(side, layer, 2), f"{module}.feed_forward.outer", (inner, width))
    yield from _norm(configuration, names, names.norm(side, layer, "ffn"), f"{module}.around_feed_forward.norm")


def _ssru(configuration: ModelConfiguration, names: Names, layer: int) -> Iterator[Place]:
    width, module = configuration.dim_emb, f"decoder.{layer}.ssru"
    inputs, forget, bias = names.ssru(layer)
    yield Place(inputs, f"{module}.input_and_forget.weight", (width, width), transposed=True)
    yield Place(forget, f"{module}.input_and_forget.weight", (width, width), width, transposed=True)
    yield Place(bias, f"{module}.forget_bias", _row(names, width))
    yield from _norm(configuration, names, names.norm("decoder", layer, "rnn"), f"decoder.{layer}.around_ssru.norm")


def _linear(names: Names, pair: Pair, module: str, shape: tuple[int, int], first: int = 0) -> Iterator[Place]:
    yield Place(pair[0], f"{module}.weight", shape, first, transposed=True)
    yield Place(pair[1], f"{module}.bias", _row(names, shape[1]), first)


def _norm(configuration: ModelConfiguration, names: Names, pair: Pair, module: str) -> Iterator[Place]:
    if configuration.norm == "none":
        return
    for name, ours in zip(pair, ("weight", "bias"), strict=True):
        yield Place(name, f"{module}.{ours}", _row(names, configuration.dim_emb))


def _row(names: Names, width: int) -> tuple[int, ...]:
    return (width,) if names.flat else (1, width)
