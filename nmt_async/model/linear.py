"""Linear layers whose weights can be laid out for repeated products with the same ones, as decoding has them.

Packed, a weight is a second copy in the order that oneDNN's kernels read (10 to 25 % faster), or in 8-bit integers
with a scale for each output, activations quantised as they come (dynamic quantisation; a third of the time). A copy
does not follow its weight: `packed` is held only while the parameters rest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 256
"""Rows of a product that a layout is chosen for; products of any number can be computed with it."""


class Product(Protocol):
    """``x`` (…, inputs) to (…, outputs), then through ReLU if that is asked for."""

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor: ...


Make = Callable[[Tensor, Tensor | None], Product]
"""From a weight (outputs, inputs) and a bias to their product."""


class OneDnnProduct:
    """A product in float32 on the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self._bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        activation = "relu" if relu else "none"
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, activation, [], ""))


class Int8Product:
    """A product of 8-bit integers on the CPU, float32 outside."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scales = (weight.detach().abs().amax(dim=1) / 127.0).clamp(min=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are to move to another package
            integers = torch.quantize_per_channel(
                weight.detach(), scales.double(), torch.zeros(len(scales), dtype=torch.int64), 0, torch.qint8
            )
            self._weight = torch.ops.quantized.linear_prepack(integers, None if bias is None else bias.detach())

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        compute = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        return cast(Tensor, compute(x, self._weight, reduce_range=False))


class Linear(nn.Linear):
    """A linear layer whose product may be packed."""

    product: Product | None = None

    def pack(self, make: Make | None) -> None:
        """Packs the weight; None: not any more."""
        self.product = None if make is None else make(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return F.linear(x, self.weight, self.bias) if self.product is None else self.product(x)

    def relu(self, x: Tensor) -> Tensor:
        """The same, then ReLU."""
        return F.relu(F.linear(x, self.weight, self.bias)) if self.product is None else self.product(x, relu=True)


@runtime_checkable
class Packable(Protocol):
    """A module with weights that can be packed."""

    def pack(self, make: Make | None) -> None: ...


def packs(weight: Tensor, precision: str = "float32") -> Make | None:
    """What packs such weights here; None where nothing does."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if precision == "int8":
        return Int8Product if torch.backends.quantized.engine in ("x86", "fbgemm", "onednn") else None
    return OneDnnProduct if hasattr(torch.ops.mkldnn, "_linear_pointwise") else None


def packs_model(model: nn.Module, precision: str) -> bool:
    """Whether all large matrices of the model can be packed in this precision here."""
    holds = any(isinstance(module, Packable) for module in model.modules())
    return holds and packs(next(model.parameters()), precision) is not None


@contextmanager
def packed(model: nn.Module, precision: str = "float32") -> Iterator[None]:
    """The model's linear layers compute with packed weights inside, where this machine has kernels for it.

    Nothing may change the parameters meanwhile.
    """
    layers = [module for module in model.modules() if isinstance(module, Packable)]
    make = packs(next(model.parameters()), precision)
    try:
        if make is not None:
            for layer in layers:
                layer.pack(make)
        yield
    finally:
        for layer in layers:
            layer.pack(None)
