"""Matrices that stay packed in memory while a model computes with them.

A product unpacks some rows, multiplies, and unpacks the next into the same memory: no matrix is ever whole in float32.
An embedding unpacks the rows that are asked for. All else is done with an unpacked copy of the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from nmt_async.model.quantization import looked_up, unpacked, word_table
from nmt_async.model.quantization_options import Quantization

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

BLOCK = 2**18
"""Values that a product unpacks at once: 1 MiB in float32, which a core's cache holds."""


class PackedMatrix(Tensor):
    """A matrix (rows, columns) that counts as float32 and holds codes.

    Args:
        packed: (rows, bytes), uint8; see `nmt_async.model.quantization.pack`.
        scales: of the matrices that stand beneath each other in it, (matrices,), float32.
        heights: rows of each.
        columns: of the matrix.
        quantization: what the codes mean.
    """

    packed: Tensor
    scales: Tensor
    heights: Sequence[int]
    quantization: Quantization

    @staticmethod
    def __new__(
        cls: type[PackedMatrix], packed: Tensor, scales: Tensor, heights: Sequence[int], columns: int,
        quantization: Quantization,
    ) -> PackedMatrix:  # fmt: skip
        """Has the shape of the matrix, and no memory of its own."""
        made: PackedMatrix = Tensor._make_wrapper_subclass(cls, (len(packed), columns), dtype=torch.float32)
        made.packed, made.scales, made.heights, made.quantization = packed, scales, heights, quantization
        return made

    def __init__(
        self, packed: Tensor, scales: Tensor, heights: Sequence[int], columns: int, quantization: Quantization
    ) -> None:
        pass

    def unpack(self) -> Tensor:
        """The whole matrix in float32."""
        return unpacked(self.packed, self.scales, self.heights, self.shape[1], self.quantization)

    def rows(self, indexes: Tensor) -> Tensor:
        """The rows of ``indexes`` (…,), as (…, columns) in float32."""
        if len(self.heights) > 1:
            return self.unpack()[indexes]
        packed = self.packed.index_select(0, indexes.reshape(-1))
        found = unpacked(packed, self.scales, (len(packed),), self.shape[1], self.quantization)
        return found.view(*indexes.shape, self.shape[1])

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x`` (…, columns) times the matrix transposed, plus the bias: (…, rows)."""
        bits, columns, levels = self.quantization.bits, self.shape[1], word_table(self.quantization)
        at_once, begin, parts = max(1, BLOCK // max(1, columns)), 0, []
        for height, scale in zip(self.heights, self.scales, strict=True):
            values, end = levels * scale, begin + height
            while begin < end:
                until = min(end, begin + at_once)
                block = looked_up(self.packed[begin:until], values, columns, bits)
                parts.append(F.linear(x, block, None if bias is None else bias[begin:until]))
                begin = until
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Products and embeddings unpack what they need; see `__torch_dispatch__` for the rest."""
        kwargs = kwargs or {}
        if function is F.linear and not isinstance(args[0], PackedMatrix):
            return _linear(*args, **kwargs)
        if function is F.embedding and len(args) == 2 and not kwargs:
            return args[1].rows(args[0])
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        """Any other operation, on an unpacked copy."""
        if function is torch.ops.aten.detach.default:
            whole = args[0]
            return PackedMatrix(whole.packed, whole.scales, whole.heights, whole.shape[1], whole.quantization)
        given, named = tree_map(dense, (tuple(args), dict(kwargs or {})))
        return function(*given, **named)


def _linear(x: Tensor, weight: PackedMatrix, bias: Tensor | None = None) -> Tensor:
    return weight.product(x, bias)


def dense(value: T) -> T | Tensor:
    """A packed matrix unpacked; anything else as it is."""
    return value.unpack() if isinstance(value, PackedMatrix) else value


def parameters_named(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """The modules, and their attributes, that have each parameter; under the first of its names."""
    first: dict[int, str] = {}
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for prefix, module in model.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = first.setdefault(id(parameter), f"{prefix}.{attribute}".removeprefix("."))
                found.setdefault(name, []).append((module, attribute))
    return found


def set_parameter(places: Sequence[tuple[nn.Module, str]], value: Tensor) -> None:
    """Makes ``value`` the parameter at all its places."""
    parameter = nn.Parameter(value, requires_grad=False)
    for module, attribute in places:
        setattr(module, attribute, parameter)


def is_packed(model: nn.Module) -> bool:
    """Whether matrices of the model are packed."""
    return any(isinstance(parameter, PackedMatrix) for parameter in model.parameters())


def on_device(model: M, device: torch.device) -> M:
    """The model, moved; on a GPU it computes with unpacked matrices from now on."""
    if device.type == "cpu" and is_packed(model):
        return model  # packed matrices are the CPU's, and loaded there
    if is_packed(model):
        for places in parameters_named(model).values():
            module, attribute = places[0]
            parameter: Tensor | None = module._parameters[attribute]
            if isinstance(parameter, PackedMatrix):
                set_parameter(places, parameter.unpack())
    return model.to(device)
