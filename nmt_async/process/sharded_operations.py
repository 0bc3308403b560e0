"""What operations are on tensors in parts (`nmt_async.process.sharded_tensor`); all others are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from nmt_async.process.sharded_tensor import ShardedTensor

aten: Any = torch.ops.aten

BY_ELEMENT = {
    aten.abs_.default, aten.zero_.default, aten.fill_.Scalar, aten.fill_.Tensor, aten.zeros_like.default,
    aten.empty_like.default, aten.detach.default, aten.alias.default,
}  # fmt: skip
"""Operations that go element by element beside those of which torch says it itself."""

ON_LISTS = ("_foreach_", "_fused_adam_")
"""How the names of operations begin that change some of their lists of tensors, element by element."""


def computed(operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The result of an operation of which an argument is in parts.

    Raises:
        NotImplementedError: it is none of those that tensors in parts have.
        ValueError: the arguments are not cut at the same places, or one of them is not cut at all.
    """
    known = KNOWN.get(operation)
    if known is not None:
        return known(operation, *arguments, **options)
    if operation in BY_ELEMENT or torch.Tag.pointwise in operation.tags:
        return _by_element(operation, arguments, options)
    name = operation._schema.name.removeprefix("aten::")
    if name.startswith(ON_LISTS) and name.endswith("_"):
        return _on_lists(operation, arguments, options)
    made = operation.decompose(*arguments, **options)  # in inference mode, also what consists of others comes whole
    if made is NotImplemented:
        raise refused(operation)
    return made


def refused(operation: Any, why: str = "") -> NotImplementedError:
    """What is raised for an operation that is not computed on parts."""
    how = f" {why}" if why else ""
    return NotImplementedError(f"{operation}{how} is not computed on a tensor that lies on several devices in parts")


def _by_element(operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if options.get("device") is not None:
        raise refused(operation, "on another device")
    leaves, form = tree_flatten((arguments, options))
    cut = _common_cut(operation, leaves)
    made = []
    for number, part in enumerate(cut.parts):
        given, named = tree_unflatten([_at(leaf, number, part) for leaf in leaves], form)
        made.append(operation(*given, **named))
    written = _written(operation, arguments, options)
    return ShardedTensor(made) if written is None else written


def _common_cut(operation: Any, leaves: Sequence[Any]) -> ShardedTensor:
    """One of the tensors in parts, all of which are cut alike; a number takes part in any cut into so many."""
    sharded = sorted((leaf for leaf in leaves if isinstance(leaf, ShardedTensor)), key=lambda leaf: -leaf.dim())
    cut = sharded[0]
    for leaf in leaves:
        if isinstance(leaf, ShardedTensor):
            if len(leaf.parts) != len(cut.parts) or (leaf.dim() and leaf.sizes != cut.sizes):
                raise ValueError(f"{operation}: the tensors are cut at different places")
        elif isinstance(leaf, Tensor) and leaf.dim():
            raise ValueError(f"{operation}: one tensor is cut into parts on several devices, and another is not")
    return cut


def _at(leaf: Any, number: int, part: Tensor) -> Any:
    """What an argument is for the part of this number: of a tensor in parts its own, of a number a copy there."""
    if isinstance(leaf, ShardedTensor):
        return leaf.parts[number]
    if isinstance(leaf, Tensor) and not leaf.is_cpu and leaf.device != part.device:
        return leaf.to(part.device)
    return leaf


def _written(operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The argument that an operation writes and returns; None where it makes a new tensor."""
    for number, declared in enumerate(operation._schema.arguments):
        if declared.alias_info is not None and declared.alias_info.is_write:
            return arguments[number] if number < len(arguments) else options[declared.name]
    return None


def _on_lists(operation: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Changes lists of tensors, some of which are in parts: one call for each device, of all that lies there."""
    lists = [argument for argument in arguments if isinstance(argument, list | tuple)]
    entries = [_entry(operation, entry) for entry in zip(*filter(None, lists), strict=True)]
    at: dict[torch.device, list[tuple[Tensor, ...]]] = {}
    for entry in (part for parts in entries for part in parts):
        at.setdefault(entry[0].device, []).append(entry)
    for there in at.values():
        columns = iter([list(column) for column in zip(*there, strict=True)])
        given = [
            (next(columns) if argument else []) if isinstance(argument, list | tuple) else argument
            for argument in arguments
        ]
        operation(*given, **options)


def _entry(operation: Any, tensors: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """What stands at one place of all lists, part by part."""
    if not any(isinstance(tensor, ShardedTensor) for tensor in tensors):
        yield tensors
        return
    for number, part in enumerate(_common_cut(operation, tensors).parts):
        yield tuple(_at(tensor, number, part) for tensor in tensors)


def _copy(operation: Any, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(target, ShardedTensor):
        if isinstance(source, ShardedTensor) or not source.dim():
            return _by_element(operation, (target, source, non_blocking), {})  # type: ignore[no-any-return]
        if source.shape[-1] != target.shape[-1]:
            raise ValueError(f"{operation}: {tuple(source.shape)} is no shape to be cut as {tuple(target.shape)} is")
        for part, begin, end in target.stretches():
            part.copy_(source[..., begin:end], non_blocking)
    elif target.shape != source.shape:
        raise ValueError(f"{operation}: shapes {tuple(target.shape)} and {tuple(source.shape)} are not the same")
    elif isinstance(source, ShardedTensor):
        if not source.dim():
            return target.copy_(source.parts[0], non_blocking)
        for part, begin, end in source.stretches():
            target[..., begin:end].copy_(part, non_blocking)
    return target


def _to_copy(operation: Any, tensor: ShardedTensor, **options: Any) -> Tensor:
    """In another type, in parts; or on one device, and then whole."""
    if options.get("device") is None:
        return _by_element(operation, (tensor,), options)  # type: ignore[no-any-return]
    return tensor.whole(options["device"], options.get("dtype"))


def _slice(
    operation: Any, tensor: ShardedTensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    if dim % tensor.dim() < tensor.dim() - 1:
        return ShardedTensor([operation(part, dim, start, end, step) for part in tensor.parts])
    if step != 1:
        raise refused(operation, "with a step")
    first, last, _ = slice(start, end).indices(tensor.shape[-1])
    covered = [
        part[..., max(first, begin) - begin : min(last, finish) - begin]
        for part, begin, finish in tensor.stretches()
        if max(first, begin) < min(last, finish)
    ]
    if len(covered) == 1:
        return covered[0]
    # Nothing of it is on no device: it stays in parts, so that what is joined with it becomes so, too.
    return ShardedTensor(covered or [tensor.parts[0][..., :0]])


def _select(operation: Any, tensor: ShardedTensor, dim: int, index: int) -> ShardedTensor:
    if dim % tensor.dim() == tensor.dim() - 1:
        raise refused(operation, "of one element")
    return ShardedTensor([operation(part, dim, index) for part in tensor.parts])


def _unbind(operation: Any, tensor: ShardedTensor, dim: int = 0) -> list[ShardedTensor]:
    if dim % tensor.dim() == tensor.dim() - 1:
        raise refused(operation, "into elements")
    return [ShardedTensor(row) for row in zip(*(operation(part, dim) for part in tensor.parts), strict=True)]


def _split(operation: Any, tensor: ShardedTensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    if sum(sizes) != tensor.shape[dim]:
        raise ValueError(f"{operation}: parts of {list(sizes)} are not {tensor.shape[dim]} together")
    split, begin = [], 0
    for size in sizes:
        split.append(_slice(aten.slice.Tensor, tensor, dim, begin, begin + size))
        begin += size
    return split


def _new(operation: Any, tensor: ShardedTensor, shape: Sequence[int], *rest: Any, **options: Any) -> ShardedTensor:
    """Of the same size in the last dimension, which is cut alike, or a number for each device."""
    if options.get("device") is not None or (shape and (not tensor.dim() or shape[-1] != tensor.shape[-1])):
        raise refused(operation, "of another size")
    last = [[part.shape[-1]] if shape else [] for part in tensor.parts]
    shapes = [[*shape[:-1], *size] for size in last]
    return ShardedTensor(
        [operation(part, size, *rest, **options) for part, size in zip(tensor.parts, shapes, strict=True)]
    )


def _norm(
    operation: Any, tensor: ShardedTensor, order: float = 2, dim: Any = None, keepdim: bool = False, *,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Of all elements: the norm of the norms of the parts, on the first one's device, where it can be read at once."""
    if dim is not None or keepdim:
        raise refused(operation, "along a dimension")
    norms = [operation(part, order, dtype=dtype) for part in tensor.parts]
    there: Tensor = operation(torch.stack([norm.to(norms[0].device) for norm in norms]), order)
    return there


def _read(operation: Any, number: ShardedTensor) -> Any:
    return operation(number.parts[0])


def _stack(operation: Any, tensors: Sequence[Tensor], dim: int = 0) -> ShardedTensor:
    """Rows beneath each other."""
    cut = _common_cut(operation, tensors)
    if dim or any(tensor.dim() != cut.dim() for tensor in tensors):
        raise refused(operation, "of other than rows")
    parts = zip(*(tensor.parts for tensor in tensors if isinstance(tensor, ShardedTensor)), strict=True)
    return ShardedTensor([operation(list(rows), 0) for rows in parts])


def _join(operation: Any, tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Vectors behind each other, each of which stays where it is."""
    if dim or any(tensor.dim() != 1 for tensor in tensors):
        raise refused(operation, "of other than vectors")
    parts = [part for each in tensors for part in (each.parts if isinstance(each, ShardedTensor) else (each,))]
    return ShardedTensor([part.clone() for part in parts if len(part)] or [parts[0].clone()])


def _index_add(
    operation: Any, target: Tensor, dim: int, places: Tensor, numbers: Tensor, alpha: float = 1
) -> ShardedTensor:  # fmt: skip
    """Adds numbers of some places, which lie on one device, to a vector.

    Each device gets all of them, and adds zeros where they are another one's: to know how many are its own, the process
    would have to wait for a device. Places are taken modulo the part, so that zeros do not all go to one place.
    """
    if not isinstance(target, ShardedTensor) or target.dim() != 1 or dim:
        raise refused(operation, "to other than a vector")
    if isinstance(places, ShardedTensor) or isinstance(numbers, ShardedTensor):
        raise refused(operation, "of numbers in parts")
    for part, begin, end in target.stretches():
        here, added = places.to(part.device), numbers.to(part.device)
        elsewhere = (here < begin) | (here >= end)
        operation(part, 0, (here - begin).remainder_(end - begin), added.masked_fill(elsewhere, 0.0), alpha=alpha)
    return target


KNOWN: dict[Any, Callable[..., Any]] = {
    aten.copy_.default: _copy,
    aten._to_copy.default: _to_copy,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.unbind.int: _unbind,
    aten.split_with_sizes.default: _split,
    aten.new_zeros.default: _new,
    aten.new_empty.default: _new,
    aten.new_full.default: _new,
    aten.linalg_vector_norm.default: _norm,
    aten._local_scalar_dense.default: _read,
    aten.stack.default: _stack,
    aten.cat.default: _join,
    aten.index_add_.default: _index_add,
}
"""Operations that do not go element by element."""
