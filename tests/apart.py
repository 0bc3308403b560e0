"""A device that computes nothing itself: its tensors hold tensors of the CPU, which are computed with in their place.

As on a GPU, an operation on it takes tensors of this device alone, and zero-dimensional ones of the CPU; a number that
is read of one of its tensors, and a copy to it or from it, is counted. So on a machine without any GPU it is seen
whether something leaves its device, and how often the process would wait for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("apart")

APART = torch.device("apart", 0)

counted: Counter[str] = Counter()
"""``read``: numbers that the process waited for; ``copied``: tensors that went from one device to the other."""

COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}
READS = {torch.ops.aten._local_scalar_dense.default}


class ApartTensor(Tensor):
    """A tensor of that device.

    Attributes:
        inside: what it holds, of the CPU.
    """

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> ApartTensor:
        made = Tensor._make_wrapper_subclass(
            cls, inside.shape, inside.stride(), inside.storage_offset(), dtype=inside.dtype, device=APART
        )
        made.inside = inside
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented if _of_parts(types) else _computed(operation, args, kwargs or {})


class _Makes(TorchDispatchMode):
    """While it is on, what is asked for on that device is made there."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _of_parts(types):
            return NotImplemented
        with self:  # what consists of others comes whole where those parts are computed with
            made = operation.decompose(*args, **(kwargs or {}))
        return _computed(operation, args, kwargs or {}) if made is NotImplemented else made


def _of_parts(types: Any) -> bool:
    """Whether there is a tensor of another kind, as one whose parts may be of this device: it computes with these."""
    return any(each not in (ApartTensor, Tensor) for each in types)


def _computed(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    apart = [each for each in tensors if isinstance(each, ApartTensor)]
    wanted = kwargs.get("device")
    place = torch.device(wanted) if wanted is not None else APART if apart else torch.device("cpu")
    if operation in READS:
        counted.update(["read"] if apart else [])
    elif operation in COPIES:
        counted.update(["copied"] if len({each.device.type for each in tensors} | {place.type}) > 1 else [])
    elif apart and any(each.dim() for each in tensors if not isinstance(each, ApartTensor)):
        raise RuntimeError(f"{operation}: tensors are on two devices")
    if wanted is not None and place.type == APART.type:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = operation(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    if operation in READS:
        return result
    if operation in COPIES and wanted is None:
        place = args[0].device
    goes_apart = place.type == APART.type
    outside = {id(each.inside): each for each in apart}
    return tree_map(lambda each: _outside(each, outside, goes_apart), result)


def _inside(value: Any) -> Any:
    return value.inside if isinstance(value, ApartTensor) else value


def _outside(value: Any, known: dict[int, ApartTensor], apart: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    if id(value) in known:
        return known[id(value)]
    return ApartTensor(value) if apart else value


@contextmanager
def apart() -> Iterator[Counter[str]]:
    """Inside, tensors can be made on `APART`; what is counted there."""
    counted.clear()
    with _Makes():
        yield counted


def on_cpu(tensor: Tensor) -> Tensor:
    """What a tensor of that device holds; itself if it is one of the CPU."""
    inside: Tensor = _inside(tensor)
    return inside
