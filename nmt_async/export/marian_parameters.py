"""Where each of a Transformer's parameters stands in Marian's model file, and back, bit for bit.

Marian multiplies from the right, so its matrices are ours transposed; it keeps query, key and value apart, which lie
beneath each other here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nmt_async.export.marian_names import NAMES, Names, Pair
from nmt_async.model.configuration import ModelConfiguration


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
    for name, ours in zip(pair, ("weight", "bias"), strict=True):
        yield Place(name, f"{module}.{ours}", _row(names, configuration.dim_emb))


def _row(names: Names, width: int) -> tuple[int, ...]:
    return (width,) if names.flat else (1, width)
