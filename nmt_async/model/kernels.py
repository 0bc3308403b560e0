"""What training computes with on a CPU in the place of torch's own kernels: the same sums, up to rounding, sooner.

**Products** of a linear layer and of its gradients go to oneDNN. Torch's own go to MKL, which takes the kernels of AVX2
on processors of AMD, whatever they have. On Intel's it is the faster one in float32, and stays (`mkl_is_faster`). **The
loss** is computed for some hundred tokens at a time, with the gradient
of the logits in their place (see `nmt_async.model.loss`), so that no matrix (tokens, vocabulary) is ever whole. **Masks
of dropout** are made of 16 random bits a number, where torch's take 32 or more.

They are called ``fused``, torch's own ``torch``. A run notes with which it computed, since the last bits depend on it.

**In bfloat16** (`Arithmetic`), matrices are rounded to 8 binary digits before they are multiplied, and products after
it; sums within a product are float32. Parameters, gradients, what is added to and normalised, attention's own products
and the loss stay float32. On a GPU, and with torch's kernels, torch's autocast does the like.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from nmt_async.model.configuration import BFLOAT16, FLOAT32, FUSED, TORCH

SMALLEST_SIDE = 96
"""Of a gradient of a weight; torch's own product is faster for smaller ones."""

TOKENS_AT_ONCE = 256
"""Of the loss: a row of logits is read and written some ten times, so a chunk of them is to stay in the cache."""


@dataclass(frozen=True)
class Arithmetic:
    """What training computes with.

    Attributes:
        kernels: fused or torch.
        precision: in which matrices are multiplied, float32 or bfloat16.
    """

    kernels: str = TORCH
    precision: str = FLOAT32

    @property
    def fused(self) -> bool:
        """Whether the kernels are the fused ones."""
        return self.kernels == FUSED

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices that are multiplied."""
        return torch.bfloat16 if self.precision == BFLOAT16 else torch.float32

    def casting(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within, torch's own kernels multiply in this precision."""
        return torch.autocast(device.type, self.dtype, enabled=not self.fused and self.dtype != torch.float32)


def not_in_bfloat16(device: torch.device) -> str | None:
    """Why matrices are not multiplied in bfloat16 on this device; None if they are."""
    if device.type == "cuda":
        return None if torch.cuda.is_bf16_supported(including_emulation=False) else f"{device} cannot compute in it"
    known = torch.cpu.get_capabilities()
    if not (known.get("avx512_bf16") or known.get("amx_bf16")):
        return "this processor has no instructions for it (AVX512-BF16 or AMX)"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "torch is held to older instructions of this processor (ONEDNN_MAX_CPU_ISA)"
    return None


def has_one_dnn() -> bool:
    """Whether torch has the products of oneDNN here."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def mkl_is_faster() -> bool:
    """Whether MKL's products in float32 are faster than those of oneDNN: on Intel's processors.

    It is asked of the processor's name and not of a clock, so that a run computes the same each time.
    """
    try:
        intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        intel = False
    return intel and bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]


def kernels_for(device: torch.device, wanted: str | None = None) -> str:
    """Those that training computes with on a device: the ``wanted`` ones, or if nobody says which, the faster ones."""
    if wanted is not None:
        return wanted
    return FUSED if device.type == "cpu" and has_one_dnn() else TORCH


@runtime_checkable
class Computing(Protocol):
    """A module that can compute with either kernels."""

    arithmetic: Arithmetic


def compute_with(model: nn.Module, arithmetic: Arithmetic) -> None:
    """From here on the model computes so."""
    for module in model.modules():
        if isinstance(module, Computing):
            module.arithmetic = arithmetic


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """``x`` (…, inputs) times ``weight`` (outputs, inputs) transposed, by oneDNN; no gradient goes through it.

    Args:
        weight: as it is, or in the order that oneDNN's kernels read.
    """
    activation = "relu" if relu else "none"
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], ""))


def _by_mkl(dtype: torch.dtype) -> bool:
    """Whether MKL multiplies matrices of that type in training."""
    return dtype == torch.float32 and mkl_is_faster()


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """(rows, inputs) of the ``gradient`` (rows, outputs) of a product with ``weight`` (outputs, inputs)."""
    return gradient @ weight if _by_mkl(gradient.dtype) else product(gradient, weight.t())


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """(outputs, inputs) of the ``gradient`` (rows, outputs) of a product with ``x`` (rows, inputs)."""
    outputs, inputs = gradient.shape[1], x.shape[1]
    if _by_mkl(x.dtype) or min(outputs, inputs) < SMALLEST_SIDE:
        return gradient.t() @ x
    if outputs > inputs:  # oneDNN is faster where the longer side is that of the columns
        return product(x.t(), gradient.t()).t()
    return product(gradient.t(), x.t())


class _Linear(Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dtype: torch.dtype) -> Tensor:
        rows, context.given = x.reshape(-1, x.shape[-1]).to(dtype), x.dtype
        result = product(rows, weight.to(dtype), None if bias is None else bias.to(dtype), relu)
        context.save_for_backward(rows, weight, result if relu else None)
        context.biased = bias is not None
        result = result.view(*x.shape[:-1], len(weight))
        return result if relu else result.to(weight.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        rows, weight, result = context.saved_tensors
        whole, dtype = gradient.shape, rows.dtype
        gradient = gradient.reshape(-1, whole[-1]).to(dtype)
        if result is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        of_x = None
        if context.needs_input_grad[0]:
            of_x = input_gradient(gradient, weight.to(dtype)).view(*whole[:-1], rows.shape[1]).to(context.given)
        of_bias = gradient.sum(0, dtype=weight.dtype) if context.biased else None
        return of_x, weight_gradient(gradient, rows).to(weight.dtype), of_bias, None, None


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False, dtype: torch.dtype = torch.float32
) -> Tensor:
    """As `torch.nn.functional.linear` on the CPU, then ReLU if that is asked for.

    Args:
        x: (…, inputs), float32, or what came out of ReLU.
        weight, bias: (outputs, inputs) and (outputs,), float32.
        dtype: in which matrices are multiplied. What comes out of ReLU stays in it, since another product follows.

    Returns:
        (…, outputs).
    """
    return cast(Tensor, _Linear.apply(x, weight, bias, relu, dtype))  # type: ignore[no-untyped-call]


class _SummedWeightGradient:
    """As `weight_gradient`, summed over chunks of the rows.

    Args:
        weight: (outputs, inputs), float32.
        dtype: in which matrices are multiplied.
    """

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self._by_mkl = _by_mkl(dtype)
        self._sum = torch.zeros_like(weight if self._by_mkl else weight.t(), memory_format=torch.contiguous_format)

    def add(self, gradient: Tensor, x: Tensor) -> None:
        """Adds that of a chunk: ``gradient`` (rows, outputs), ``x`` (rows, inputs)."""
        if self._by_mkl:
            self._sum.addmm_(gradient.t(), x)
        else:
            self._sum.add_(product(x.t(), gradient.t()))

    @property
    def total(self) -> Tensor:
        """(outputs, inputs), row after row, as what it is added to lies: adding crosswise takes longer than turning it
        round first.
        """
        return self._sum if self._by_mkl else self._sum.t().contiguous()


class _ProjectedCrossEntropy(Function):
    @staticmethod
    def forward(
        context: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        vocabulary = len(weight)
        loss = hidden.new_zeros((), dtype=torch.float64)
        of_hidden = torch.empty_like(hidden)
        of_weight = _SummedWeightGradient(weight, dtype)
        of_bias = hidden.new_zeros(vocabulary)
        rounded, rounded_bias = weight.to(dtype), bias.to(dtype)
        for begin in range(0, len(hidden), TOKENS_AT_ONCE):
            rows = hidden[begin : begin + TOKENS_AT_ONCE].to(dtype)
            correct = targets[begin : begin + TOKENS_AT_ONCE, None]
            logits = product(rows, rounded, rounded_bias).to(hidden.dtype)
            largest = logits.amax(dim=1, keepdim=True)
            of_correct = logits.gather(1, correct).sum(dtype=torch.float64)
            mean = logits.mean(dim=1).sum(dtype=torch.float64) if smoothing else 0.0
            powers = logits.sub_(largest).exp_()
            sums = powers.sum(dim=1, keepdim=True)
            normalisers = (sums.log() + largest).sum(dtype=torch.float64)
            loss += normalisers - (1.0 - smoothing) * of_correct - smoothing * mean
            gradient = powers.div_(sums)
            if smoothing:
                gradient.sub_(smoothing / vocabulary)
            gradient.scatter_add_(1, correct, gradient.new_full((1, 1), smoothing - 1.0).expand(len(rows), 1))
            of_bias.add_(gradient.sum(0))
            gradient = gradient.to(dtype)
            of_hidden[begin : begin + TOKENS_AT_ONCE] = input_gradient(gradient, rounded)
            of_weight.add(gradient, rows)
        context.save_for_backward(of_hidden, of_weight.total, of_bias)
        return loss.float()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        of_hidden, of_weight, of_bias = context.saved_tensors
        if float(gradient) != 1.0:
            of_hidden, of_weight, of_bias = of_hidden * gradient, of_weight * gradient, of_bias * gradient
        return of_hidden, of_weight, of_bias, None, None, None


def projected_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The loss of `nmt_async.model.loss.smoothed_cross_entropy`, of logits that are never whole; its gradient is
    computed at once.

    Args:
        hidden: (tokens, d).
        weight, bias: that make logits of it, (vocabulary, d) and (vocabulary,).
        targets: (tokens,), int64.
        smoothing: probability spread over all subwords alike.
        dtype: in which matrices are multiplied.
    """
    loss = _ProjectedCrossEntropy.apply(hidden, weight, bias, targets, smoothing, dtype)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss)


STEPS = 2**16
"""Of the random numbers that a mask is made of."""


def dropped(x: Tensor, dropout: float, fused: bool) -> Tensor:
    """``x`` with dropout, as training has it."""
    return x * mask_like(x, dropout) if fused and dropout else F.dropout(x, dropout)


def plus_dropped(x: Tensor, inner: Tensor, dropout: float, fused: bool) -> Tensor:
    """``x`` plus ``inner`` with dropout."""
    if not (fused and dropout):
        return x + F.dropout(inner, dropout)
    return torch.addcmul(x, inner, mask_like(inner, dropout))


def mask_like(x: Tensor, dropout: float) -> Tensor:
    """A mask of dropout of the shape of ``x``: 0, or 1 / (1 - p), where p is ``dropout`` up to half of 2^-16."""
    zeros = round(dropout * STEPS)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= zeros - STEPS // 2
    return kept.view(x.shape).to(x.dtype).mul_(STEPS / (STEPS - zeros))
