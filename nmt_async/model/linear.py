"""Linear layers whose weights can be laid out for repeated products with the same ones, as decoding has them.

Packed, a weight is a second copy in the order that oneDNN's kernels read (10 to 25 % faster), or on Intel's processors
those of MKL (which lose less time with each of many small products), or in 8-bit integers
with a scale for each output, activations quantised as they come (dynamic quantisation; a third of the time). A copy
does not follow its weight: `packed` is held only while the parameters rest. A quantised model that stays packed in
memory (`nmt_async.model.packed_matrix`) gets no float32 copy, and an 8-bit one where that is asked for.

8-bit kernels for processors without VNNI instructions (`vpdpbusd`) multiply two activations (0 to 255) by two weights
and add both products in 16 bits, where a sum above 32,767 becomes 32,767. Which kernel torch takes is asked of the
kernel itself: `largest_weight` has it compute the largest sums, and the weights are as large as it can bear.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt_async.allocation import blocks_apart
from nmt_async.model.kernels import Arithmetic, has_one_dnn, linear, mkl_is_faster, product
from nmt_async.model.packed_matrix import dense, is_packed

ROWS = 256
"""Rows of a product that a layout is chosen for; products of any number can be computed with it."""


class Product(Protocol):
    """``x`` (…, inputs) to (…, outputs), then through ReLU if that is asked for."""

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor: ...


LARGEST_ACTIVATION = 255
ALWAYS_EXACT = 64
"""The largest 8-bit weight whose products are exact on every processor: 2 · 255 · 64 = 32,640 fits into 16 bits."""

LARGEST_WEIGHTS = (127, ALWAYS_EXACT)
"""What the largest weight of an output may become, the finest first."""

Make = Callable[[Tensor, Tensor | None], Product]
"""From a weight (outputs, inputs) and a bias to their product."""


class OneDnnProduct:
    """A product in float32 on the CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self._bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return product(x, self._weight, self._bias, relu)

    @staticmethod
    def is_here() -> bool:
        """Whether torch has such products."""
        return has_one_dnn()


class MklProduct:
    """The same by MKL, which lays a weight out for products of any number of rows, whatever number it is told."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._plain = weight.detach()
        with blocks_apart():  # MKL asks for 8 MB and more, and writes as much of it as the weight has
            self._weight = torch.ops.mkl._mkl_reorder_linear_weight(self._plain, ROWS)
        self._bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if not rows:
            return F.linear(x, self._plain, self._bias)
        result: Tensor = torch.ops.mkl._mkl_linear(x, self._weight, self._plain, self._bias, rows)
        return result.relu_() if relu else result

    @staticmethod
    def is_here() -> bool:
        """Whether torch has such products."""
        return hasattr(torch.ops.mkl, "_mkl_linear")


class Int8Product:
    """A product of 8-bit integers on the CPU, float32 outside.

    Call one always with ReLU, or always without: oneDNN keeps what the first call was.

    Args:
        largest: the integer that the largest weight of each output becomes.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, largest: int) -> None:
        scales = (weight.detach().abs().amax(dim=1) / largest).clamp(min=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are to move to another package
            integers = torch.quantize_per_channel(
                weight.detach(), scales.double(), torch.zeros(len(scales), dtype=torch.int64), 0, torch.qint8
            )
            self._weight = torch.ops.quantized.linear_prepack(integers, None if bias is None else bias.detach())

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        compute = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        return cast(Tensor, compute(x, self._weight, reduce_range=False))


def largest_weight() -> int | None:
    """The first of `LARGEST_WEIGHTS` with which torch's 8-bit kernels compute the largest sums right on this processor.

    The kernels are those of ``torch.backends.quantized.engine``. None where it has none, or computes right with
    neither.
    """
    x = torch.full((4, 64), float(LARGEST_ACTIVATION))
    for largest in LARGEST_WEIGHTS:
        weight = torch.full((32, 64), float(largest))
        weight[::2] *= -1
        try:
            found = Int8Product(weight, None, largest)(x)
        except RuntimeError:
            return None
        if torch.allclose(found, x @ weight.T, rtol=1e-3, atol=0.0):  # one pair in 32 that saturates takes 1.5 %
            return largest
    return None


class Linear(nn.Linear):
    """A linear layer whose product may be packed."""

    product: Product | None = None
    arithmetic = Arithmetic()

    def pack(self, make: Make | None) -> None:
        """Packs the weight; None: not any more."""
        self.product = None if make is None else make(dense(self.weight), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        if self.product is not None:
            return self.product(x)
        if self.arithmetic.fused:
            return linear(x, self.weight, self.bias, dtype=self.arithmetic.dtype)
        return F.linear(x, self.weight, self.bias)

    def relu(self, x: Tensor) -> Tensor:
        """The same, then ReLU; trained in bfloat16, what comes out is of that type."""
        if self.product is not None:
            return self.product(x, relu=True)
        if self.arithmetic.fused:
            return linear(x, self.weight, self.bias, relu=True, dtype=self.arithmetic.dtype)
        return F.relu(F.linear(x, self.weight, self.bias))


@runtime_checkable
class Packable(Protocol):
    """A module with weights that can be packed."""

    def pack(self, make: Make | None) -> None: ...


def packs(weight: Tensor, precision: str = "float32") -> Make | None:
    """What packs such weights here; None where nothing does."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if precision == "int8":
        largest = largest_weight()
        return None if largest is None else partial(Int8Product, largest=largest)
    if mkl_is_faster() and MklProduct.is_here():
        return MklProduct
    return OneDnnProduct if OneDnnProduct.is_here() else None


def not_in_int8(model: nn.Module) -> str | None:
    """Why the large matrices of the model cannot be computed in int8 here; None if they can."""
    weight = next(model.parameters())
    if not any(isinstance(module, Packable) for module in model.modules()):
        return "only Transformers compute in it"
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return "only float32 models on a CPU compute in it"
    if packs(weight, "int8") is None:
        return "torch has no 8-bit kernels that compute right on this processor"
    return None


@contextmanager
def packed(model: nn.Module, precision: str = "float32") -> Iterator[None]:
    """The model's linear layers compute with packed weights inside, where this machine has kernels for it.

    Nothing may change the parameters meanwhile.
    """
    layers = [module for module in model.modules() if isinstance(module, Packable)]
    make = packs(next(model.parameters()), precision)
    if precision == "float32" and is_packed(model):
        make = None
    try:
        if make is not None:
            for layer in layers:
                layer.pack(make)
        yield
    finally:
        for layer in layers:
            layer.pack(None)
