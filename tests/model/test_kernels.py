"""The fused kernels of training compute what torch's own do, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.build import build_model
from nmt_async.model.configuration import BFLOAT16, FLOAT32, FUSED, TORCH, ModelConfiguration
from nmt_async.model.kernels import (
    TOKENS_AT_ONCE,
    Arithmetic,
    compute_with,
    dropped,
    kernels_for,
    linear,
    mask_like,
    not_in_bfloat16,
    plus_dropped,
    projected_cross_entropy,
)
from nmt_async.model.loss import smoothed_cross_entropy, training_loss
from nmt_async.model.translation_model import TranslationModel
from nmt_async.text.batch import Batch

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(kernels_for(torch.device("cpu")) != FUSED, reason="torch has no oneDNN here"),
]
EPSILON = 2.0**-24
"""Of float32: half of the distance from 1 to the next number."""
ROUNDING = 2.0**-8
"""Of bfloat16, likewise."""
NO_BFLOAT16 = not_in_bfloat16(torch.device("cpu"))
in_bfloat16 = pytest.mark.skipif(NO_BFLOAT16 is not None, reason=f"no bfloat16 here: {NO_BFLOAT16}")


@pytest.fixture(params=[False, True], ids=["oneDNN", "MKL"], autouse=True)
def multiplier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose products training takes: those of either kind of processor."""
    if request.param and not torch.backends.mkl.is_available():
        pytest.skip("torch has no MKL here")
    monkeypatch.setattr("nmt_async.model.kernels.mkl_is_faster", lambda: request.param)


def tensors(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(index)) for index, shape in enumerate(shapes)]


def assert_within(found: Tensor, exact: Tensor, terms: int, size: float) -> None:
    """``found`` is ``exact`` but for rounding in a sum of so many ``terms``, each of about the ``size``."""
    assert float((found - exact).abs().max()) <= 8 * EPSILON * terms * size


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("shape", "outputs"), [((5, 7, 16), 24), ((3, 200), 100), ((40, 96), 300), ((1, 1, 128), 128), ((0, 3, 8), 4)]
)
def test_a_linear_layer_and_its_gradients(shape: tuple[int, ...], outputs: int, biased: bool, relu: bool) -> None:
    x, weight, bias, upper = tensors(shape, (outputs, shape[-1]), (outputs,), (*shape[:-1], outputs))
    if relu:  # no sum is so near to zero that rounding decides whether it is above
        bias += torch.where(bias > 0, 1.0, -1.0) * 50 * shape[-1]
    given_ = [x, weight, bias] if biased or relu else [x, weight]
    found_in, exact_in = [each.clone().requires_grad_() for each in given_], [each.double() for each in given_]
    for each in exact_in:
        each.requires_grad_()
    found = linear(*found_in[:2], found_in[2] if len(found_in) > 2 else None, relu)
    exact = F.linear(*exact_in[:2], exact_in[2] if len(exact_in) > 2 else None)
    exact = F.relu(exact) if relu else exact
    assert found.shape == exact.shape
    rows = x.numel() // shape[-1]
    found.backward(upper)
    exact.backward(upper.double())
    if rows:
        assert_within(found.detach(), exact.detach(), shape[-1], 10.0 if not relu else 50.0 * shape[-1])
    for mine, its, terms in zip(found_in, exact_in, (outputs, rows, rows), strict=False):
        assert mine.grad is not None
        assert its.grad is not None
        if mine.numel():
            assert_within(mine.grad, its.grad, max(1, terms), 16.0)


@pytest.mark.parametrize("tokens", [1, TOKENS_AT_ONCE - 1, TOKENS_AT_ONCE, 2 * TOKENS_AT_ONCE + 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_loss_in_chunks_and_its_gradients(tokens: int, smoothing: float, factor: float) -> None:
    hidden, weight, bias = tensors((tokens, 32), (50, 32), (50,))
    targets = torch.randint(50, (tokens,), generator=torch.Generator().manual_seed(9))
    found_in = [each.clone().requires_grad_() for each in (hidden, weight, bias)]
    exact_in = [each.double().requires_grad_() for each in (hidden, weight, bias)]
    found = projected_cross_entropy(*found_in, targets, smoothing)
    exact = F.cross_entropy(F.linear(*exact_in), targets, label_smoothing=smoothing, reduction="sum")
    (factor * found).backward()
    (factor * exact).backward()
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=1e-6)
    for mine, its in zip(found_in, exact_in, strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        # Logits are sums of 32 terms of about 1 to 10, so their powers are off by some hundred units in the last place.
        assert torch.allclose(mine.grad.double(), its.grad, rtol=1e-3, atol=2e-4)


def test_logits_beyond_float32_s_powers_have_a_loss() -> None:
    hidden, weight = torch.full((3, 8), 100.0), torch.eye(8) * torch.arange(8)[:, None]
    loss = projected_cross_entropy(hidden, weight, torch.zeros(8), torch.tensor([7, 7, 0]), 0.0)
    assert float(loss) == pytest.approx(700.0)


@given(st.integers(1, 4000), st.sampled_from([0.1, 0.3, 0.5, 0.00001]), st.integers(0, 2**31))
def test_a_mask_keeps_as_many_as_it_says(count: int, dropout: float, seed: int) -> None:
    torch.manual_seed(seed)
    mask = mask_like(torch.empty(7, count), dropout)
    kept = int((mask != 0).sum())
    expected, spread = 7 * count * (1 - dropout), (7 * count * dropout * (1 - dropout)) ** 0.5
    assert abs(kept - expected) <= 7 * spread + 1
    assert set(mask.unique().tolist()) <= {0.0, float(torch.tensor(2**16 / (2**16 - round(dropout * 2**16))))}
    torch.manual_seed(seed)
    assert torch.equal(mask, mask_like(torch.empty(7, count), dropout))


def test_numbers_of_a_mask_do_not_hang_together() -> None:
    torch.manual_seed(1)
    zeros = (mask_like(torch.empty(400_000), 0.3) == 0).double() - 0.3
    spread = 0.3 * 0.7 / 400_000**0.5
    for distance in (1, 2, 3, 4, 5, 8, 64):
        assert abs(float((zeros[distance:] * zeros[:-distance]).mean())) < 5 * spread


@pytest.mark.parametrize("fused", [True, False])
def test_without_dropout_nothing_is_drawn(fused: bool) -> None:
    x, inner = tensors((3, 4), (3, 4))
    state = torch.get_rng_state()
    if fused:
        assert torch.equal(dropped(x, 0.0, fused), x)
        assert torch.equal(plus_dropped(x, inner, 0.0, fused), x + inner)
        assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert float((plus_dropped(x, inner, 0.5, fused) - x).count_nonzero()) < x.numel()


KINDS = [("transformer", "pre"), ("transformer", "post"), ("transformer", "none"), ("ssru", "pre"), ("rnn", "pre")]


def small_model_and_batch(kind: str, norm: str) -> tuple[TranslationModel, Batch]:
    shared = {"source_vocabulary": 40, "target_vocabulary": 40, "dim_emb": 16, "dropout": 0.0, "tied": "all"}
    sizes = {"heads": 2, "dim_ffn": 32, "enc_depth": 2, "dec_depth": 2, "norm": norm, "activation": "swish"}
    if kind == "rnn":
        configuration = ModelConfiguration(**shared, **{**sizes, "heads": 1}, model="rnn", dim_rnn=16)
    else:
        autoreg = "ssru" if kind == "ssru" else "self-attention"
        configuration = ModelConfiguration(**shared, **sizes, decoder_autoreg=autoreg)
    model = build_model(configuration).train()
    lengths = torch.tensor([7, 5, 7, 2])
    rows = torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(3))
    return model, Batch(rows, lengths, rows.flip(1), lengths)


def loss_and_gradients(model: TranslationModel, batch: Batch, arithmetic: Arithmetic) -> tuple[float, list[Tensor]]:
    compute_with(model, arithmetic)
    model.zero_grad()
    loss = training_loss(model, batch, 0.1, arithmetic)
    loss.backward()
    gradients = [each.grad.clone() for each in model.parameters() if each.grad is not None]
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    return float(loss.detach()), gradients


@pytest.mark.parametrize(("kind", "norm"), KINDS)
def test_a_model_has_the_same_gradient(kind: str, norm: str) -> None:
    model, batch = small_model_and_batch(kind, norm)
    gradients = {}
    for kernels in (TORCH, FUSED):
        loss, each = loss_and_gradients(model, batch, Arithmetic(kernels))
        gradients[kernels] = [loss, *each]
    assert gradients[FUSED][0] == pytest.approx(gradients[TORCH][0], rel=1e-6)
    for mine, its in zip(gradients[FUSED][1:], gradients[TORCH][1:], strict=True):
        # Sums of some thousand products, in another order.
        assert torch.allclose(mine, its, rtol=1e-3, atol=2e-4 * float(its.abs().max()))
    logits, targets = model(batch)
    assert float(smoothed_cross_entropy(logits, targets, 0.1).detach()) == pytest.approx(gradients[TORCH][0], rel=1e-6)


@in_bfloat16
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("shape", "outputs"), [((5, 7, 16), 24), ((3, 200), 100), ((40, 96), 300), ((0, 3, 8), 4)])
def test_a_linear_layer_in_bfloat16_rounds_what_it_multiplies_and_what_comes_out(
    shape: tuple[int, ...], outputs: int, relu: bool
) -> None:
    given_ = tensors(shape, (outputs, shape[-1]), (outputs,), (*shape[:-1], outputs))
    rounded = [each.bfloat16().double() for each in given_]
    found_in, exact_in = ([each.clone().requires_grad_() for each in some[:3]] for some in (given_, rounded))
    found = linear(*found_in, relu, torch.bfloat16)
    exact = F.linear(*exact_in)
    if relu:
        assert found.dtype == torch.bfloat16
        exact = exact * (found > 0)  # a sum near zero may come out on the other side of it
    found.backward(given_[3].to(found.dtype))
    exact.backward(rounded[3])
    rows = given_[0].numel() // shape[-1]
    sums = [(found.detach(), exact.detach(), shape[-1])] if rows else []
    sums += [
        (mine.grad, its.grad, terms) for mine, its, terms in zip(found_in, exact_in, (outputs, rows, rows), strict=True)
    ]
    for mine, its, terms in sums:
        assert mine is not None
        assert its is not None
        assert mine.dtype == torch.float32 or mine is sums[0][0]
        within = ROUNDING * its.abs() + 8 * EPSILON * max(1, terms) * 16.0
        assert bool(((mine.double() - its).abs() <= within).all())


@in_bfloat16
@pytest.mark.parametrize("kernels", [FUSED, TORCH])
@pytest.mark.parametrize(("kind", "norm"), KINDS[:-1])
def test_a_model_in_bfloat16_has_nearly_the_same_gradient(kernels: str, kind: str, norm: str) -> None:
    model, batch = small_model_and_batch(kind, norm)
    exact, exact_gradients = loss_and_gradients(model, batch, Arithmetic(kernels, FLOAT32))
    found, gradients = loss_and_gradients(model, batch, Arithmetic(kernels, BFLOAT16))
    assert found != exact
    assert found == pytest.approx(exact, rel=ROUNDING)
    mine, its = (torch.cat([each.flatten() for each in some]).double() for some in (gradients, exact_gradients))
    # Each number is off by a few roundings, which do not hang together.
    assert float((mine - its).norm() / its.norm()) < 8 * ROUNDING


def test_a_processor_held_to_older_instructions_has_no_bfloat16() -> None:
    code = (
        "import torch; from nmt_async.model.kernels import not_in_bfloat16; print(not_in_bfloat16(torch.device('cpu')))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "instructions" in found.stdout
