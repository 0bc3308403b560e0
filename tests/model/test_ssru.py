"""The recurrence in the place of a decoder's self-attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nmt_async.model.configuration import ModelOptions
from nmt_async.model.layers import SSRU
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.transformer import Transformer

pytestmark = pytest.mark.numeric


def random_ssru(width):
    """In double precision, its bias not zero; fed with numbers so large that gates open and close."""
    generator = torch.Generator().manual_seed(width)
    unit = SSRU(width).double()
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return unit, 2.0 * torch.randn(3, 7, width, generator=generator, dtype=torch.float64)


def by_definition(unit, x):
    """Equations of Kim et al. 2019, one sentence and position after the other."""
    weight, forget_weight = unit.input_and_forget.weight.chunk(2)
    rows = []
    for sentence in x:
        cell, outputs = torch.zeros_like(sentence[0]), []
        for word in sentence:
            forget = 1.0 / (1.0 + torch.exp(-(forget_weight @ word + unit.forget_bias)))
            cell = forget * cell + (1.0 - forget) * (weight @ word)
            outputs.append(cell.clamp(min=0.0))
        rows.append(torch.stack(outputs))
    return torch.stack(rows)


@pytest.mark.parametrize("width", [1, 6])
def test_it_is_its_definition(width):
    unit, x = random_ssru(width)
    torch.testing.assert_close(unit(x), by_definition(unit, x), rtol=1e-12, atol=1e-12)


def test_steps_give_what_is_computed_at_once():
    unit, x = random_ssru(6)
    cell, outputs = torch.zeros(3, 6, dtype=torch.float64), []
    for word in x.unbind(1):
        output, cell = unit.step(word, cell)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs, dim=1), unit(x), rtol=1e-12, atol=1e-12)


def test_its_gradients_are_right():
    unit, x = random_ssru(4)
    weight, bias = unit.input_and_forget.weight.detach(), unit.forget_bias.detach()

    def compute(x, weight, bias):
        parameters = {"input_and_forget.weight": weight, "forget_bias": bias}
        return torch.func.functional_call(unit, parameters, (x,))

    assert torch.autograd.gradcheck(compute, tuple(each.requires_grad_() for each in (x, weight, bias)))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_all_parameters_of_a_model_have_gradients_and_none_is_attentions(tiny, random_batch, norm):
    model = tiny(decoder_autoreg="ssru", norm=norm, tied="none")
    logits, targets = model(random_batch([3, 7], [6, 2]))
    smoothed_cross_entropy(logits, targets, 0.1).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
    names = {name for name, _ in model.named_parameters() if name.startswith("decoder.0.")}
    assert {name.split(".")[2] for name in names} == {
        "ssru", "cross_attention", "feed_forward", "around_ssru", "around_cross_attention", "around_feed_forward",
    }  # fmt: skip


def test_a_model_has_two_matrices_where_attention_has_four(monkeypatch):
    monkeypatch.setattr(Transformer, "initialise", lambda *_: None)  # shapes only: the meta device holds no values
    counts = []
    for autoreg in ("self-attention", "ssru"):
        with torch.device("meta"):
            options = ModelOptions(preset="base", decoder_autoreg=autoreg)
            model = Transformer(options.configuration(8000, 8000, joint=True))
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
    assert counts[0] - counts[1] == 6 * (2 * 512 * 512 + 3 * 512)


def test_each_matrix_is_initialised_for_itself_and_the_bias_is_zero():
    model = Transformer(ModelOptions(preset="tiny", decoder_autoreg="ssru").configuration(100, 100, joint=True), seed=2)
    limit = (6.0 / (128 + 128)) ** 0.5
    for layer in model.decoder:
        for matrix in layer.ssru.input_and_forget.weight.chunk(2):
            assert 0.99 * limit < matrix.abs().max() <= limit
        assert not layer.ssru.forget_bias.any()


def test_it_learns_to_say_sentences_backwards(random_batch):
    """What it remembers of its own words suffices to know which comes next."""
    torch.manual_seed(1)
    options = ModelOptions(preset="tiny", dim_emb=32, dim_ffn=64, dropout=0.0, norm="post", decoder_autoreg="ssru")
    model = Transformer(options.configuration(12, 12, joint=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def backwards(seed):
        batch = random_batch([5] * 32, [5] * 32, seed, vocabulary=12)
        batch.target[:, :-1] = batch.source[:, :-1].flip(1)
        return batch

    for seed in range(300):
        logits, correct = model(backwards(seed))
        optimizer.zero_grad()
        (smoothed_cross_entropy(logits, correct, 0.0) / len(correct)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        logits, correct = model.eval()(backwards(1000))
    assert (logits.argmax(dim=1) == correct).float().mean() > 0.95
