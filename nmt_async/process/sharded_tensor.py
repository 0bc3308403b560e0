"""Vectors of which several devices own a part each, computed with as if they were one.

The last dimension is cut into *parts*, each a tensor on its device. So what is written for one vector, as all of
`sync/` is, works on them unchanged, and each device computes what belongs to its own part (the operations are in
`nmt_async.process.sharded_operations`):

- What goes element by element is computed part by part. Nothing leaves a device, and no device waits for another.
- A norm is combined on the first part's device of the norms of the parts, and read once.
- A slice that lies within one part is that part's own, a plain tensor, so that a matrix can be multiplied there. A row
  of several, and a slice of more than one part, are such tensors again. All of these are views.
- A copy from a plain tensor or to one is one copy for each part. `to` a device and `cpu` give a whole plain tensor.
- Without dimensions, it is a number of which each device has its own copy.

Every other operation is refused, so that nothing is computed by way of a copy that nobody sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shard:
    """A part of a vector, and whose it is.

    Attributes:
        device: that owns it.
        begin, end: its first element, and the one after its last.
    """

    device: torch.device
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.end - self.begin


class ShardedTensor(Tensor):
    """A matrix (rows, size) or a vector (size,) in parts, or a number on each of their devices.

    Its `device` is that of its first part, since a tensor has to have one.

    Args:
        parts: (rows, size of the part) or (size of the part,) each, in their order; at least one.

    Attributes:
        parts: these.
    """

    parts: tuple[Tensor, ...]

    @staticmethod
    def __new__(cls, parts: Sequence[Tensor]) -> ShardedTensor:
        first = parts[0]
        shape = (*first.shape[:-1], sum(part.shape[-1] for part in parts)) if first.dim() else ()
        made: ShardedTensor = Tensor._make_wrapper_subclass(cls, shape, dtype=first.dtype, device=first.device)
        made.parts = tuple(parts)
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"ShardedTensor({list(self.parts)})"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of the parts; none for a number."""
        return tuple(part.shape[-1] for part in self.parts if part.dim())

    def stretches(self) -> Iterator[tuple[Tensor, int, int]]:
        """Each part, with its begin and its end in the last dimension."""
        bounds = pairwise(accumulate(self.sizes, initial=0))
        return ((part, begin, end) for part, (begin, end) in zip(self.parts, bounds, strict=True))

    def whole(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
        """A plain copy, with one copy for each part."""
        return torch.empty(self.shape, dtype=self.dtype if dtype is None else dtype, device=device).copy_(self)

    def cut(self, vectors: Tensor) -> ShardedTensor:
        """Plain ``vectors`` (..., size), cut as this is, each part in this one's type and on its device."""
        return ShardedTensor([vectors[..., begin:end].to(part) for part, begin, end in self.stretches()])

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.cpu:
            return args[0].whole("cpu")
        if function is Tensor.to:
            moved = _moved(*args, **kwargs)
            if moved is not None:
                return moved
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        from nmt_async.process.sharded_operations import computed  # which knows this class

        return computed(operation, args, kwargs or {})


def _moved(tensor: Tensor, where: Any = None, *rest: Any, **options: Any) -> Tensor | None:
    """`Tensor.to`, where it names another tensor or a device; None where it names a type alone.

    Torch itself would do nothing for a device that the tensor says it is on, although only its first part is there.
    """
    if isinstance(where, Tensor):
        if not isinstance(tensor, ShardedTensor):
            assert isinstance(where, ShardedTensor)
            return where.cut(tensor)
        return tensor.to(where.dtype) if isinstance(where, ShardedTensor) else tensor.whole(where.device, where.dtype)
    if isinstance(where, torch.dtype):
        rest, where = (where, *rest), None
    device = options.get("device", where)
    if device is None:
        return None
    assert isinstance(tensor, ShardedTensor)
    return tensor.whole(device, options.get("dtype", rest[0] if rest else None))
