"""How a model's parameters begin: Glorot's variances, as in Marian, or T-Fixup's, for no layer normalisation.

**Glorot** (Glorot & Bengio 2010): uniform with a variance of 2 / (inputs + outputs), each matrix for itself; embeddings
and the output's matrix, uniform too, have 1 / width, as Marian's. Biases are zero.

**T-Fixup** (Huang, Pérez, Ba & Volkovs 2020, section 3) bounds how far the first updates move a Transformer's output,
whatever its depth. So it needs neither layer normalisation nor warm-up. With N encoder and M decoder layers:

- Matrices are Glorot's. Embeddings are normal, with a standard deviation of width^-1/2.
- In the decoder the values' and the output's matrix of both attentions and both matrices of a feed-forward layer are
  multiplied by (9 M)^-1/4, and so is the target's embedding. The bound has three terms for each of the three sub-layers
  of a layer, each a product of four such factors: 3 · 3 · M · (9 M)^-1 = 1.
- In the encoder the same matrices are multiplied by 0.67 N^-1/4, and the source's embedding by (9 N)^-1/4. With a
  factor s of the matrices and x of the embedding, N layers of two sub-layers come to 2 N (s^4 + 2 s^2 x^2) = 1.

The work has N = M. Where they differ, the source's embedding takes the deeper side's factor, since what the encoder
gives out is a factor of the decoder's terms, too. A matrix that both embeddings share takes that factor. One that is
the output's matrix as well is the same matrix there, so the output's begins smaller: the authors' program does no
other. An output's matrix of its own is normal with a standard deviation of width^-1/2, as in their program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

GLOROT, T_FIXUP = "glorot", "t-fixup"

SCALED = {"query_key_value": (False, False, True), "query": (False,), "key_value": (False, True)}
"""Which of the matrices in a linear layer of that name T-Fixup multiplies; in the others, each."""


def initialisation_for(norm: str) -> str:
    """What a Transformer begins with where nobody says it, by the place of its layer normalisation."""
    return T_FIXUP if norm == "none" else GLOROT


def t_fixup_factors(layer: str, enc_depth: int, dec_depth: int) -> list[float]:
    """By what T-Fixup multiplies each of the matrices that stand beneath each other in a linear layer.

    Args:
        layer: its name in the Transformer, such as ``encoder.0.attention.query_key_value``.
        enc_depth, dec_depth: encoder and decoder layers.
    """
    factor = 0.67 * enc_depth**-0.25 if layer.startswith("encoder.") else embedding_factor(dec_depth)
    return [factor if scaled else 1.0 for scaled in SCALED.get(layer.rpartition(".")[2], (True,))]


def embedding_factor(layers: int) -> float:
    """By what T-Fixup multiplies an embedding, and the decoder's matrices: for so many layers."""
    return float((9 * layers) ** -0.25)


@torch.no_grad()
def glorot(weight: Tensor, generator: torch.Generator, factor: float = 1.0) -> None:
    """Glorot uniform for a matrix (outputs, inputs), multiplied by ``factor``."""
    limit = factor * (6.0 / (weight.shape[1] + weight.shape[0])) ** 0.5
    weight.uniform_(-limit, limit, generator=generator)


@torch.no_grad()
def glorot_stacked(weight: Tensor, generator: torch.Generator, factors: Iterable[float]) -> None:
    """The same for each of the matrices, as many as factors, that stand beneath each other in ``weight``."""
    listed = list(factors)
    for part, factor in zip(weight.chunk(len(listed)), listed, strict=True):
        glorot(part, generator, factor)


@torch.no_grad()
def by_width(embedding: Tensor, generator: torch.Generator) -> None:
    """Uniform with a variance of 1 / width for a matrix (vocabulary, width): Marian's Glorot of an embedding."""
    limit = math.sqrt(3.0 / embedding.shape[1])
    embedding.uniform_(-limit, limit, generator=generator)


@torch.no_grad()
def normal_by_width(embedding: Tensor, generator: torch.Generator, factor: float = 1.0) -> None:
    """Normal with a standard deviation of ``factor`` / √width for a matrix (vocabulary, width)."""
    embedding.normal_(0.0, factor * embedding.shape[1] ** -0.5, generator=generator)


def once(matrices: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The matrices in their order, one that is shared once."""
    return list({id(matrix): matrix for matrix in matrices}.values())
