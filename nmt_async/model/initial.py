"""Initial parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def glorot(weight: Tensor, parts: int, generator: torch.Generator) -> None:
    """Glorot uniform for a matrix (parts * width, inputs) that holds ``parts`` alike beneath each other."""
    limit = (6.0 / (weight.shape[1] + weight.shape[0] // parts)) ** 0.5
    weight.uniform_(-limit, limit, generator=generator)


@torch.no_grad()
def by_width(embedding: Tensor, generator: torch.Generator) -> None:
    """Uniform with a variance of 1 / width for a matrix (vocabulary, width): Marian's Glorot of an embedding."""
    limit = math.sqrt(3.0 / embedding.shape[1])
    embedding.uniform_(-limit, limit, generator=generator)
