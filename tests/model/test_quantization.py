"""Few bits: what is packed comes back, scales are fitted, and a packed matrix computes as its unpacked one does."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from nmt_async.model import FlatLayout, ModelConfiguration, build_model
from nmt_async.model.packed_matrix import PackedMatrix, dense, is_packed, on_device, parameters_named
from nmt_async.model.quantization import (
    Quantized,
    best_scale,
    codes_of,
    fit,
    levels_of,
    nearest,
    pack,
    quantise_vector,
    quantised,
    quantized_places,
    row_bytes,
    squared_error,
    table,
    unpack,
)
from nmt_async.model.quantization_options import BITS, SCHEMES, Quantization

quantizations = st.builds(Quantization, st.sampled_from(BITS), st.sampled_from(SCHEMES))
sizes = st.tuples(st.integers(1, 9), st.integers(1, 37))
ALL = [Quantization(bits, scheme) for bits in BITS for scheme in SCHEMES]


def matrix(shape: tuple[int, int], seed: int, spread: float = 1.0) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.sign() * values.abs() ** spread * 0.1


@given(st.sampled_from(BITS), sizes, st.integers(0, 2**31))
def test_what_is_packed_comes_back(bits: int, shape: tuple[int, int], seed: int) -> None:
    codes = torch.randint(0, 2**bits, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (shape[0], row_bytes(shape[1], bits))
    assert torch.equal(unpack(packed, bits, shape[1]), codes)


def test_two_values_lie_in_a_byte_the_first_in_the_lower_half() -> None:
    assert pack(torch.tensor([[0x3, 0xA, 0xF]], dtype=torch.uint8), 4).tolist() == [[0xA3, 0x0F]]
    assert pack(torch.tensor([[0b101, 0b011, 0b110]], dtype=torch.uint8), 3).tolist() == [[0b10011101, 0b1]]


@pytest.mark.parametrize("quantization", ALL, ids=str)
def test_every_level_has_its_code(quantization: Quantization) -> None:
    codes = torch.arange(2**quantization.bits)
    levels = table(quantization)
    if quantization.scheme == "linear":  # one more below zero than above is never used
        codes, levels = codes[1:], levels[1:]
    elif quantization.bits == 8:  # 2^-127 is no ordinary float32
        kept = codes % 128 != 127
        codes, levels = codes[kept], levels[kept]
    assert len(set(levels.tolist())) == len(levels)
    assert torch.equal(levels_of(levels, quantization), levels)
    assert torch.equal(codes_of(levels, quantization).long(), codes)


@given(quantizations, st.integers(0, 2**31))
def test_the_level_is_the_nearest(quantization: Quantization, seed: int) -> None:
    ratios = matrix((5, 30), seed, 2.0) * 20
    levels = table(quantization)[1 if quantization.scheme == "linear" else 0 :]
    distances = (ratios[..., None] - levels).abs().amin(dim=-1)
    assert torch.allclose((ratios - levels_of(ratios, quantization)).abs(), distances, atol=1e-7)


@given(quantizations, sizes, st.integers(0, 2**31), st.sampled_from([0.5, 1.0, 3.0]))
def test_no_turn_of_fitting_makes_the_error_larger(
    quantization: Quantization, shape: tuple[int, int], seed: int, spread: float
) -> None:
    values = matrix(shape, seed, spread)
    errors = []
    for turns in range(8):
        scale = fit(values, quantization, turns)
        errors.append(squared_error(values, nearest(values, scale, quantization), scale))
    assert all(later <= earlier for earlier, later in itertools.pairwise(errors)), errors


@pytest.mark.parametrize(
    "quantization", [Quantization(4, "log"), Quantization(8, "log"), Quantization(4, "linear")], ids=str
)
def test_the_scale_moves_as_slowly_as_the_values_do(quantization: Quantization) -> None:
    """Else training would move all values of a matrix at once, from one update to the next."""
    for seed in range(8):
        values = matrix((64, 64), seed)
        steps = torch.Generator().manual_seed(seed + 99)
        scales = []
        for _ in range(40):
            scales.append(fit(values, quantization))
            values = values + 0.002 * torch.randn(values.shape, generator=steps)
        assert max(abs(math.log2(later / earlier)) for earlier, later in itertools.pairwise(scales)) < 0.15


@given(quantizations, st.integers(0, 2**31))
def test_the_scale_is_a_fixed_point_of_the_turns(quantization: Quantization, seed: int) -> None:
    values = matrix((40, 37), seed)
    scale = fit(values, quantization, 1000)
    levels = nearest(values, scale, quantization)
    again = best_scale(values, levels)
    here = squared_error(values, levels, scale)
    there = squared_error(values, nearest(values, again, quantization), again)
    # Beyond it, the largest value would be nearer to the level below the top.
    bound = float(values.abs().max()) / (0.75 if quantization.scheme == "log" else quantization.top - 0.5)
    least = 0.99 if quantization.scheme == "log" and quantization.bits >= 4 else 1.0
    assert math.isclose(scale, again, rel_tol=2**-16) or there > least * here or again >= bound


@given(quantizations, sizes, st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_a_matrix_on_the_grid_comes_back_exactly(
    quantization: Quantization, shape: tuple[int, int], seed: int, size: float
) -> None:
    once, twice = torch.empty(shape), torch.empty(shape)
    scale = quantised(matrix(shape, seed) * size, quantization, once)
    assert quantised(once, quantization, twice) == scale
    assert torch.equal(once, twice)


@pytest.mark.parametrize("quantization", ALL, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3, 1e-40, 3e38])
def test_a_matrix_of_one_value_comes_back(quantization: Quantization, value: float) -> None:
    values, out = torch.full((3, 5), value), torch.empty(3, 5)
    quantised(values, quantization, out)
    if abs(value) < 1e-30:  # what float32 can hardly hold becomes zero
        assert not out.any()
    else:
        assert torch.allclose(out, values, rtol=2**-16)


@given(quantizations, sizes, st.integers(0, 2**31))
def test_a_parameter_is_packed_as_it_is_quantised(
    quantization: Quantization, shape: tuple[int, int], seed: int
) -> None:
    place = FlatLayout(torch.nn.Linear(shape[1], shape[0], bias=False)).places[0]
    quantized = Quantized(place, (1, shape[0] - 1) if shape[0] > 1 else (1,))
    values, out = matrix(shape, seed), torch.empty(shape)
    for its, mine in zip(quantized.matrices(values.flatten()), quantized.matrices(out.view(-1)), strict=True):
        quantised(its, quantization, mine)
    packed, scales = quantized.pack(values, quantization)
    assert torch.equal(quantized.unpack(packed, scales, quantization), out)


def test_less_is_lost_with_more_bits_and_with_a_scale_that_is_fitted() -> None:
    values = matrix((200, 64), 3)
    for scheme in SCHEMES:
        lost = []
        for bits in BITS:
            quantization = Quantization(bits, scheme)
            scale = fit(values, quantization)
            lost.append(squared_error(values, nearest(values, scale, quantization), scale))
            largest = float(values.abs().max()) / quantization.top
            assert lost[-1] < squared_error(values, nearest(values, largest, quantization), largest)
        assert lost == sorted(lost, reverse=True)


@pytest.mark.parametrize("quantization", [Quantization(4), Quantization(3, "linear")], ids=str)
def test_a_packed_matrix_computes_as_its_unpacked_one(quantization: Quantization) -> None:
    values = matrix((700, 512), 5)
    place = FlatLayout(torch.nn.Linear(512, 700, bias=False)).places[0]
    quantized = Quantized(place, (300, 400))
    packed, scales = quantized.pack(values, quantization)
    weight = PackedMatrix(packed, scales, quantized.heights, 512, quantization)
    whole = weight.unpack()
    x, bias, words = torch.randn(2, 5, 512), torch.randn(700), torch.tensor([[0, 699, 4], [299, 300, 4]])
    assert weight.shape == whole.shape
    assert weight.dtype == torch.float32
    assert torch.allclose(F.linear(x, weight, bias), F.linear(x, whole, bias), atol=1e-5)
    assert torch.equal(F.embedding(words, weight), F.embedding(words, whole))
    assert torch.equal(weight + 1.0, whole + 1.0)
    assert torch.equal(weight.detach().t(), whole.t())
    assert torch.equal(dense(weight), whole)


@pytest.mark.parametrize("model", ["transformer", "rnn"])
def test_a_model_says_what_of_it_is_quantised(model: str) -> None:
    own = {"heads": 2, "dim_ffn": 8, "norm": "pre", "activation": "relu"} if model == "transformer" else {"dim_rnn": 6}
    configuration = ModelConfiguration.from_mapping(
        {"model": model, "source_vocabulary": 9, "target_vocabulary": 11, "dim_emb": 4, "enc_depth": 1, "dec_depth": 1,
         "dropout": 0.0, "tied": "none", **own}
    )  # fmt: skip
    built = build_model(configuration)
    layout = FlatLayout(built)
    shapes = {place.name: place.shape for place in layout.places}
    matrices = {each.place.name for each in quantized_places(layout, Quantization(4))}
    assert matrices == {name for name, shape in shapes.items() if len(shape) == 2}
    left = shapes.keys() - {each.place.name for each in quantized_places(layout, Quantization(4, biases=True))}
    assert left == {name for name in shapes if "norm" in name or "_top" in name}
    assert all(sum(each.heights) == shapes[each.place.name][0] for each in quantized_places(layout, Quantization(4)))
    vector = layout.gather(built)
    out = torch.empty_like(vector)
    quantise_vector(vector, layout, Quantization(4), out)
    for name, view in layout.named(out).items():
        assert torch.equal(view, layout.named(vector)[name]) == (name not in matrices)


def test_parameters_are_found_at_all_their_places() -> None:
    configuration = ModelConfiguration(9, 9, 4, 2, 8, 1, 1, "pre", "relu", 0.0, "all")
    model = build_model(configuration)
    places = parameters_named(model)
    assert list(places) == [name for name, _ in model.named_parameters()]
    assert len(places["output_weight"]) == 3
    assert not is_packed(model)
    assert on_device(model, torch.device("cpu")) is model
