"""Packed weights compute what the weights compute, and leave no trace."""

from __future__ import annotations

import pytest
import torch

from nmt_async.model.linear import Linear, packed, packs_model


def logits(model, batch):
    with torch.inference_mode():
        return model(batch)[0]


@pytest.mark.parametrize(
    "changes", [{"activation": "relu"}, {"activation": "gelu"}, {"decoder_autoreg": "ssru"}], ids=str
)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 0.2)])
def test_a_packed_model_computes_the_same(tiny, random_batch, changes, precision, tolerance):
    model = tiny(**changes).float().eval()
    batch = random_batch([5, 3, 8], [4, 6, 2])
    plain = logits(model, batch)
    with packed(model, precision):
        inside = logits(model, batch)
    assert (inside - plain).abs().max() < tolerance
    assert not torch.equal(inside, plain) or precision == "float32"
    assert torch.equal(logits(model, batch), plain)


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
    for model in (tiny(), tiny(model="rnn").float()):
        assert not packs_model(model, "int8")
    model, batch = tiny().eval(), random_batch([5], [4])
    plain = logits(model, batch)
    with packed(model, "float32"):
        assert torch.equal(logits(model, batch), plain)
