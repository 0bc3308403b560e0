"""A model's parameters as one flat vector, of which the model's own are views.

The server updates one vector, a pull hands one vector over, a push is one vector. Tied parameters stand in it
once. Each parameter begins at a multiple of 64 bytes; the gaps hold zeros and stay zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Elements: 64 bytes of float32, one cache line."""


@dataclass(frozen=True)
class Stack:
    """Matrices with equal inputs that stand beneath each other in one parameter, so that one product serves them all.

    Attributes:
        heights: rows of each.
        wide: their heads are columns.
    """

    heights: tuple[int, ...]
    wide: bool = False


@dataclass(frozen=True)
class Place:
    """Where one parameter lies in the flat vector."""

    name: str
    shape: tuple[int, ...]
    begin: int
    end: int


@runtime_checkable
class Stacked(Protocol):
    """A model that says which of its parameters are hidden matrices: neither an embedding nor the output's."""

    def stacks(self) -> dict[str, Stack]:
        """By the parameter's name."""


class FlatLayout:
    """The places of a model's parameters in one vector of `size` elements."""

    def __init__(self, model: nn.Module) -> None:
        self.places: list[Place] = []
        begin = 0
        for name, parameter in model.named_parameters():  # tied parameters come once
            end = begin + parameter.numel()
            self.places.append(Place(name, tuple(parameter.shape), begin, end))
            begin = -(-end // ALIGNMENT) * ALIGNMENT
        self.size = begin
        self._stacks = model.stacks() if isinstance(model, Stacked) else {}
        norms = (module.parameters() for module in model.modules() if isinstance(module, nn.LayerNorm))
        of_norms = {id(parameter) for parameters in norms for parameter in parameters}
        self._norms = {name for name, parameter in model.named_parameters() if id(parameter) in of_norms}

    @property
    def parameters(self) -> int:
        """Number of parameters, gaps not counted."""
        return sum(place.end - place.begin for place in self.places)

    @property
    def operations_per_token(self) -> float:
        """Floating-point operations of a gradient for each target token.

        A parameter is multiplied once with a token, and twice on the way back (Kaplan et al. 2020, table 1).
        """
        return 6.0 * self.parameters

    def hidden(self) -> Iterator[tuple[int, int, int, bool]]:
        """Begin, rows, columns and whether it is wide, of each hidden matrix; stacked ones count by themselves."""
        for place in self.places:
            stack = self._stacks.get(place.name)
            if stack is not None:
                begin, columns = place.begin, place.shape[1]
                for height in stack.heights:
                    yield begin, height, columns, stack.wide
                    begin += height * columns

    def heights(self, place: Place) -> tuple[int, ...]:
        """Rows of each of the matrices that stand beneath each other in a matrix of the model."""
        stack = self._stacks.get(place.name)
        return (place.shape[0],) if stack is None else stack.heights

    def is_norm(self, place: Place) -> bool:
        """Whether it is the gain or the bias of a layer normalisation."""
        return place.name in self._norms

    def views(self, vector: Tensor) -> list[Tensor]:
        """The parameters' views into ``vector`` (size,), in the order of `places`."""
        return [vector[place.begin : place.end].view(place.shape) for place in self.places]

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The parameters' views into ``vector`` (size,) by name, as a checkpoint stores them."""
        return dict(zip((place.name for place in self.places), self.views(vector), strict=True))

    @torch.no_grad()
    def gather(self, model: nn.Module) -> Tensor:
        """A new vector (size,) with a copy of the model's parameters, float32."""
        vector = torch.zeros(self.size)
        for view, parameter in zip(self.views(vector), model.parameters(), strict=True):
            view.copy_(parameter)
        return vector

    @torch.no_grad()
    def scatter(self, named: dict[str, Tensor], vector: Tensor) -> None:
        """Writes parameters given by name into ``vector`` (size,).

        Raises:
            KeyError: a parameter is absent. ValueError: one has another shape.
        """
        for name, view in self.named(vector).items():
            if tuple(named[name].shape) != tuple(view.shape):
                raise ValueError(f"{name} has shape {tuple(named[name].shape)} instead of {tuple(view.shape)}")
            view.copy_(named[name])

    @torch.no_grad()
    def bind(self, model: nn.Module, vector: Tensor) -> None:
        """Makes the model's parameters views into ``vector``: from now on it computes with what stands there."""
        for view, parameter in zip(self.views(vector), model.parameters(), strict=True):
            parameter.data = view
