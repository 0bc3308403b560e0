"""Tensors in parts: an operation is that of the whole, others are refused, and nothing is copied without a word."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from apart import APART, apart
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nmt_async.process.sharded_tensor import ShardedTensor

ROWS, SIZE = 3, 12
CPU = torch.device("cpu")


def whole(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(seed))


def in_parts(matrix: Tensor, *ends: int) -> ShardedTensor:
    cuts = pairwise((0, *(ends or (5,)), matrix.shape[-1]))
    return ShardedTensor([matrix[..., begin:end].clone() for begin, end in cuts])


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum of rows": lambda x: x[0] + x[1],
    "in place": lambda x: x[0].mul_(2.0).add_(x[1], alpha=0.5).abs_().sqrt_(),
    "mix": lambda x: x[0].lerp_(x[1], 0.25).addcmul_(x[1], x[2], value=3.0).addcdiv_(x[0], x[1] + 9.0),
    "comparison": lambda x: (x[0] > 0.0) & x[1].isfinite(),
    "out": lambda x: torch.mul(x[0], 2.0, out=x[2]),
    "another type": lambda x: x.to(torch.bfloat16),
    "rows": lambda x: torch.stack([x[2], x[0]]),
    "some rows": lambda x: x[1:],
    "each row": lambda x: [row.mul(2.0) for row in x][1],
    "a slice": lambda x: x[1][2:9],
    "a slice of rows": lambda x: x[:, 2:9],
    "written slice": lambda x: (x[0][3:7].fill_(7.0), x)[1],
    "slice added to": lambda x: (x[0].__setitem__(slice(2, 8), x[0][2:8] + x[1][2:8]), x)[1],
    "zeros": lambda x: torch.zeros_like(x[0]) + x.new_zeros(x.shape)[0] + x[0].new_full((SIZE,), 2.0),
    "zeros of its shape": lambda x: x[0].new_zeros(5, SIZE),
    "split": lambda x: torch.cat(x[0].split_with_sizes([1, 8, 3])),
    "joined": lambda x: torch.cat([x[0][:0], x[0][0:3], x[0][8:10]]),
    "numbers of places": lambda x: x[0].index_add_(0, torch.tensor([0, 4, 5, 11]), torch.tensor([1.0, 2.0, 3.0, 4.0])),
    "times a number of it": lambda x: x[0] * torch.linalg.vector_norm(x[1], ord=float("inf")),
    "for each device a number": lambda x: x[0] * x[0].new_full((), 3.0),
}


@pytest.mark.parametrize("ends", [(5,), (2, 9), (1, 2, 3)], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_is_that_of_the_whole(operation: Callable[[Tensor], Tensor], ends: tuple[int, ...]) -> None:
    made, expected = operation(in_parts(whole(), *ends)), operation(whole())
    assert made.shape == expected.shape
    assert made.dtype == expected.dtype
    assert torch.equal(made.cpu(), expected)


def test_what_they_write_is_in_the_parts() -> None:
    """Rows and slices are views."""
    tensor, expected = in_parts(whole()), whole()
    for each in (tensor, expected):
        each[1].fill_(1.0)
        each[2][3:8].fill_(2.0)
        each[0][1:2].fill_(3.0)
    assert torch.equal(tensor.cpu(), expected)
    first = tensor[0][1:4]
    assert type(first) is Tensor, "within a part it is that part's own"
    first.view(3, 1).mul_(2.0)
    assert torch.equal(tensor.parts[0][0, 1:4], 2.0 * expected[0, 1:4])


def test_a_norm_differs_by_rounding_alone() -> None:
    for order in (2.0, 1.0, float("inf")):
        norms = [torch.linalg.vector_norm(each, ord=order) for each in (whole(), in_parts(whole(), 3, 7))]
        torch.testing.assert_close(norms[0], norms[1])


def test_a_copy_to_a_device_is_whole_also_where_a_part_lies() -> None:
    tensor = in_parts(whole())
    ways = [tensor.cpu(), tensor.to("cpu"), tensor.to(CPU), tensor.to("cpu", copy=True), tensor.to(device="cpu")]
    for copied in ways:
        assert type(copied) is Tensor
        assert torch.equal(copied, whole())
    assert tensor.to("cpu", torch.bfloat16).dtype is torch.bfloat16
    assert tensor.to(whole().double()).dtype is torch.float64
    assert tensor.to(tensor) is tensor
    back = whole(1)[0].to(tensor)
    assert isinstance(back, ShardedTensor)
    assert torch.equal(back.cpu(), whole(1)[0])
    assert torch.equal(torch.empty(ROWS, SIZE).copy_(tensor), whole())


@given(begin=st.integers(-15, 15), end=st.integers(-15, 15), ends=st.sets(st.integers(1, SIZE - 1), min_size=1))
def test_any_slice_is_that_of_the_whole(begin: int, end: int, ends: set[int]) -> None:
    vector = in_parts(whole(), *sorted(ends))[0][begin:end]
    assert torch.equal(vector.cpu(), whole()[0][begin:end])


REFUSED: dict[str, Callable[[Tensor], object]] = {
    "cumsum": lambda x: x[0].cumsum(0),
    "sum": lambda x: x.sum(),
    "matrix product": lambda x: x @ x.T,
    "view": lambda x: x.view(SIZE, ROWS),
    "steps": lambda x: x[0][::2],
    "norm of each row": lambda x: torch.linalg.vector_norm(x, dim=1),
    "stack of columns": lambda x: torch.stack([x[0], x[1]], dim=1),
    "another size": lambda x: x.new_zeros(4),
    "one element": lambda x: x[0][3],
    "zeros elsewhere": lambda x: torch.zeros_like(x, device="cpu"),
    "random": lambda x: torch.rand_like(x),
    "list of norms": lambda x: torch._foreach_norm([x[0]]),
}


@pytest.mark.parametrize("operation", REFUSED.values(), ids=REFUSED)
def test_what_is_not_computed_on_parts_is_refused_by_name(operation: Callable[[Tensor], object]) -> None:
    with pytest.raises(NotImplementedError, match=r"aten\..* is not computed on a tensor that lies on several devices"):
        operation(in_parts(whole()))


def test_what_is_not_cut_alike_is_refused() -> None:
    with pytest.raises(ValueError, match="cut at different places"):
        in_parts(whole()).add_(in_parts(whole(), 6))
    for one, other in ((in_parts(whole()), whole()), (whole(), in_parts(whole()))):
        with pytest.raises(ValueError, match="another is not"):
            one.add_(other)
    with pytest.raises(ValueError, match="shape"):
        in_parts(whole()).copy_(whole()[:, :4])
    with pytest.raises(ValueError, match="shape"):
        whole().copy_(in_parts(whole())[0])


def test_each_part_is_computed_where_it_is_and_copied_by_itself() -> None:
    with apart() as counted:
        for places in ((APART, CPU, APART), (CPU, APART, CPU)):
            tensor = ShardedTensor([torch.zeros(ROWS, 4, device=place) for place in places])
            there = sum(place is APART for place in places)
            counted.clear()
            tensor.copy_(whole())
            assert counted == {"copied": there}
            tensor[0].add_(tensor[1]).mul_(3.0)
            step = [tensor[0].new_full((), 2.0)]
            torch._foreach_add_(step, 1)
            (tensor[1] * step[0]).add_(tensor[0][0:SIZE])
            assert counted == {"copied": there}
            expected = whole()
            expected[0].add_(expected[1]).mul_(3.0)
            counted.clear()
            assert float(torch.linalg.vector_norm(tensor)) == pytest.approx(float(torch.linalg.vector_norm(expected)))
            assert counted["copied"] == sum(place is not places[0] for place in places)
            assert counted["read"] == (places[0] is APART), "once, of all parts"
            counted.clear()
            assert torch.equal(tensor.cpu(), expected)
            assert counted == {"copied": there}
