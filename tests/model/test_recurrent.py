from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nmt_async.model.configuration import PRESETS, ModelOptions
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.recurrent import RecurrentModel, additive_attention, gru_cell
from nmt_async.model.transformer import Transformer
from nmt_async.search.beam import beam_search
from nmt_async.search.options import Search
from nmt_async.text.batch import Batch, pad

pytestmark = pytest.mark.numeric

LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=5)


def alone(batch, row):
    return batch._rows(slice(row, row + 1))


def gradients(model, batch):
    model.zero_grad()
    logits, targets = model(batch)
    smoothed_cross_entropy(logits, targets, 0.1).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dec_depth", [1, 2])
@given(lengths=LENGTHS)
@settings(max_examples=15)
def test_a_batch_is_the_sum_of_its_sentences(tiny, random_batch, dec_depth, lengths):
    model = tiny(model="rnn", dec_depth=dec_depth)
    batch = random_batch([source for source, _ in lengths], [target for _, target in lengths])
    with torch.no_grad():
        one_by_one = torch.cat([model(alone(batch, row))[0] for row in range(len(batch))])
        torch.testing.assert_close(model(batch)[0], one_by_one)
    together = gradients(model, batch)
    parts = [gradients(model, alone(batch, row)) for row in range(len(batch))]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, torch.stack([part[name] for part in parts]).sum(dim=0))


def test_what_stands_in_padding_means_nothing(tiny, random_batch):
    model = tiny(model="rnn")
    batch = random_batch([3, 7], [6, 2])
    before, (logits, targets) = gradients(model, batch), model(batch)
    batch.source[0, 3:] = 5
    batch.target[1, 2:] = 7
    after, (changed, changed_targets) = gradients(model, batch), model(batch)
    torch.testing.assert_close(changed, logits)
    assert torch.equal(changed_targets, targets)
    torch.testing.assert_close(after, before)


def test_a_word_is_predicted_from_earlier_words_only(tiny, random_batch):
    model = tiny(model="rnn").eval()
    batch = random_batch([4], [6])
    with torch.no_grad():
        logits, _ = model(batch)
        batch.target[0, 3] = (batch.target[0, 3] + 1) % 13
        changed, _ = model(batch)
    torch.testing.assert_close(changed[:4], logits[:4])
    assert not torch.allclose(changed[4], logits[4])


def test_every_source_word_counts_for_every_target_word(tiny, random_batch):
    model = tiny(model="rnn").eval()
    batch = random_batch([5], [3])
    with torch.no_grad():
        logits, _ = model(batch)
        for position in range(5):
            source = batch.source.clone()
            source[0, position] = (source[0, position] + 1) % 13
            changed, _ = model(Batch(source, batch.source_lengths, batch.target, batch.target_lengths))
            assert not torch.isclose(changed, logits).all(dim=1).any()


def test_all_parameters_have_gradients(tiny, random_batch):
    found = gradients(tiny(model="rnn", tied="none", dec_depth=3), random_batch([3, 7], [6, 2]))
    assert [name for name, gradient in found.items() if not gradient.any()] == []


def test_the_cell_is_torchs():
    torch.manual_seed(1)
    torchs = nn.GRUCell(5, 7).double()
    x, hidden = torch.randn(4, 5).double(), torch.randn(4, 7).double()
    inputs = nn.functional.linear(x, torchs.weight_ih, torchs.bias_ih)
    states = nn.functional.linear(hidden, torchs.weight_hh, torchs.bias_hh)
    torch.testing.assert_close(gru_cell(inputs, states, hidden), torchs(x, hidden))


def test_attention_is_a_distribution_over_the_words_that_match():
    keys = torch.tensor([[[4.0, 0.0], [-4.0, 0.0], [4.0, 0.0]], [[0.0, 4.0], [0.0, -4.0], [0.0, 4.0]]])
    mask = torch.tensor([[[0.0, 0.0, 0.0]], [[0.0, 0.0, -math.inf]]])
    weights = additive_attention(torch.zeros(2, 1, 2), keys, torch.tensor([50.0, 50.0]), mask)
    torch.testing.assert_close(weights, torch.tensor([[[0.5, 0.0, 0.5]], [[1.0, 0.0, 0.0]]]))


@pytest.mark.parametrize(("tied", "matrices"), [("all", 1), ("target", 2), ("none", 3)])
def test_tied_parameters_appear_once(tiny, tied, matrices):
    model = tiny(model="rnn", tied=tied)
    assert sum(tuple(parameter.shape) == (13, 16) for parameter in model.parameters()) == matrices


@pytest.mark.parametrize("preset", PRESETS["rnn"])
def test_presets_have_about_as_many_parameters_as_the_transformers(monkeypatch, preset):
    sizes = []
    for model in (RecurrentModel, Transformer):
        monkeypatch.setattr(model, "initialise", lambda *_: None)  # shapes only: the meta device holds no values
        kind = "rnn" if model is RecurrentModel else "transformer"
        with torch.device("meta"):
            made = model(ModelOptions(model=kind, preset=preset).configuration(8000, 8000, joint=True))
        sizes.append(sum(parameter.numel() for parameter in made.parameters()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.12)


def test_an_untrained_model_knows_about_nothing(random_batch):
    options = ModelOptions(model="rnn", preset="tiny")
    model = RecurrentModel(options.configuration(1000, 1000, joint=True)).eval()
    with torch.no_grad():
        logits, targets = model(random_batch([9] * 8, [12] * 8, vocabulary=1000))
    loss = smoothed_cross_entropy(logits, targets, 0.0) / len(targets)
    assert math.log(1000) * 0.98 < loss.item() < math.log(1000) * 1.05


def test_dropout_depends_on_the_generators_seed_alone(tiny, random_batch):
    model = tiny(model="rnn", dropout=0.3).train()
    batch = random_batch([3, 7], [6, 2])
    outputs = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        outputs.append(model(batch)[0].detach())
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_the_same_seed_gives_the_same_parameters_whatever_was_drawn_before(tiny):
    torch.manual_seed(1)
    one = tiny(model="rnn", seed=3).state_dict()
    torch.manual_seed(2)
    two = tiny(model="rnn", seed=3).state_dict()
    other = tiny(model="rnn", seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns_to_say_sentences_backwards():
    torch.manual_seed(1)
    options = ModelOptions(model="rnn", preset="tiny", dim_emb=32, dim_rnn=48, dropout=0.0)
    model = RecurrentModel(options.configuration(12, 12, joint=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def pairs(count):
        rows = [torch.randint(2, 12, (int(length),)).tolist() for length in torch.randint(1, 6, (count,))]
        return [[*row, 0] for row in rows], [[*reversed(row), 0] for row in rows]

    for _ in range(250):
        sources, targets = pairs(32)
        logits, correct = model(Batch(*pad(sources), *pad(targets)))
        optimizer.zero_grad()
        (smoothed_cross_entropy(logits, correct, 0.0) / len(correct)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    sources, targets = pairs(50)
    with torch.inference_mode():
        found = beam_search(model.eval(), *pad(sources), Search(beam_size=3))
    right = sum([*hypotheses[0].ids, 0] == target for hypotheses, target in zip(found, targets, strict=True))
    assert right >= 45
