"""Packed weights compute what the weights compute, and leave no trace."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nmt_async.model import linear
from nmt_async.model.linear import (
    ALWAYS_EXACT,
    LARGEST_ACTIVATION,
    Int8Product,
    Linear,
    MklProduct,
    OneDnnProduct,
    largest_weight,
    not_in_int8,
    packed,
    packs,
)

pytestmark = pytest.mark.numeric

WITHOUT_VNNI = {"FBGEMM_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""Environment in which torch's 8-bit kernels are those of an x86 processor without VNNI."""

INT8_ERROR = 0.05
"""Of a model's logits in int8, the root of the mean square, relative to that of the logits.

A weight is rounded to a 64th of its output's largest. Weights that are drawn uniformly up to that have a standard
deviation of 1/√3 of it and an error of 1/(64 √12), which is 0.8 % of them; the 255 steps of an activation span 4 to 5
standard deviations, so that its error is 0.5 %. Together that is 1 % a product. Errors of 20 products in a row are
independent, so that √20 of it is left.
"""


def logits(model, batch):
    with torch.inference_mode():
        return model(batch)[0]


@pytest.mark.parametrize(
    "changes", [{"activation": "relu"}, {"activation": "gelu"}, {"decoder_autoreg": "ssru"}], ids=str
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("int8", INT8_ERROR)])
def test_a_packed_model_computes_the_same(tiny, random_batch, changes, precision, tolerance):
    model = tiny(**changes).float().eval()
    batch = random_batch([5, 3, 8], [4, 6, 2])
    plain = logits(model, batch)
    with packed(model, precision):
        inside = logits(model, batch)
    assert (inside - plain).square().mean().sqrt() < tolerance * plain.square().mean().sqrt()
    assert not torch.equal(inside, plain) or precision == "float32"
    assert torch.equal(logits(model, batch), plain)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", [MklProduct, OneDnnProduct])
def test_a_packed_product_of_any_number_of_rows_is_right(kind, biased):
    if not kind.is_here():
        pytest.skip("torch has no such products here")
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(130, 48, generator=generator)
    bias = torch.randn(130, generator=generator) if biased else None
    product = kind(weight, bias)
    for shape in ((0,), (1,), (7,), (64,), (256,), (300,), (5, 3), (2, 0), (1, 1)):
        x = torch.randn(*shape, 48, generator=generator)
        right = torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
        # A sum of 48 products of numbers around 1 has some 7 as its deviation, 1e-5 is its float32 rounding at worst.
        torch.testing.assert_close(product(x), right.float(), rtol=1e-5, atol=2e-5)
        torch.testing.assert_close(product(x, relu=True), right.relu().float(), rtol=1e-5, atol=2e-5)
        scattered = torch.randn(*shape, 2, 48, generator=generator)[..., 1, :]
        right = torch.nn.functional.linear(scattered.double(), weight.double(), None if bias is None else bias.double())
        torch.testing.assert_close(product(scattered), right.float(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("intel", [True, False])
def test_weights_are_packed_for_the_faster_library(intel, monkeypatch):
    if not (MklProduct.is_here() and OneDnnProduct.is_here()):
        pytest.skip("torch has not both here")
    monkeypatch.setattr(linear, "mkl_is_faster", lambda: intel)
    assert packs(torch.ones(2, 2)) is (MklProduct if intel else OneDnnProduct)


def test_the_next_packing_sees_changed_parameters(tiny, random_batch):
    model, batch = tiny().float().eval(), random_batch([5], [4])
    with packed(model):
        logits(model, batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    plain = logits(model, batch)
    with packed(model):
        torch.testing.assert_close(logits(model, batch), plain)


def test_nothing_stays_packed_after_an_error(tiny):
    model = tiny().float()
    with pytest.raises(ZeroDivisionError), packed(model, "int8"):
        raise ZeroDivisionError
    assert model.output_product is None
    assert all(layer.product is None for layer in model.modules() if isinstance(layer, Linear))


def test_double_precision_and_recurrent_models_are_left_as_they_are(tiny, random_batch):
    assert not_in_int8(tiny()) == "only float32 models on a CPU compute in it"
    assert not_in_int8(tiny(model="rnn").float()) == "only Transformers compute in it"
    assert not_in_int8(tiny().float()) is None
    model, batch = tiny().eval(), random_batch([5], [4])
    plain = logits(model, batch)
    with packed(model, "float32"):
        assert torch.equal(logits(model, batch), plain)


@pytest.fixture(params=[name for name in ("x86", "onednn") if name in torch.backends.quantized.supported_engines])
def engine(request, monkeypatch):
    """Torch's 8-bit kernels: those for processors with AVX2, and those for others."""
    monkeypatch.setattr(torch.backends.quantized, "engine", request.param)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("largest", [None, ALWAYS_EXACT], ids=["as chosen here", "64"])
@pytest.mark.parametrize("rows", [1, 5, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (7, 40), (64, 33), (510, 300)])
def test_the_largest_sums_of_int8_products_are_exact(largest, rows, inputs, outputs):
    """With scales of 1 all is integers below 2^24. Where a sum of two products saturates they come out smaller."""
    largest = largest or largest_weight()
    assert largest is not None
    generator = torch.Generator().manual_seed(inputs)
    x = LARGEST_ACTIVATION * torch.randint(0, 2, (rows, inputs), generator=generator).float()
    x[0] = LARGEST_ACTIVATION
    weight = largest * (2.0 * torch.randint(0, 2, (outputs, inputs), generator=generator) - 1.0)
    weight[0] = largest
    assert torch.equal(Int8Product(weight, None, largest)(x), x @ weight.T)
    assert torch.equal(Int8Product(weight, None, largest)(x, relu=True), (x @ weight.T).relu())


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="VNNI is of x86")
def test_without_vnni_weights_have_one_bit_less():
    """A process of its own, since torch reads the environment once; where it is not heeded the number is 127."""
    done = subprocess.run(
        [sys.executable, "-c", "from nmt_async.model.linear import largest_weight; print(largest_weight())"],
        env={**os.environ, **WITHOUT_VNNI}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{ALWAYS_EXACT}\n", "")


def has_vnni():
    processor = Path("/proc/cpuinfo")
    return processor.exists() and "avx512_vnni" in processor.read_text()


@pytest.mark.skipif(not has_vnni() or "FBGEMM_ENABLE_INSTRUCTIONS" in os.environ, reason="the processor has no VNNI")
def test_with_vnni_weights_have_all_their_bits():
    assert largest_weight() == 127


def test_kernels_that_compute_wrong_are_not_used(tiny, monkeypatch):
    """No 8-bit weight can be 200, so that what is computed with it is wrong."""
    monkeypatch.setattr(linear, "LARGEST_WEIGHTS", (200,))
    assert largest_weight() is None
    assert not_in_int8(tiny().float()) == "torch has no 8-bit kernels that compute right on this processor"
