from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.model.configuration import DECODER_AUTOREG, NORMS, PRESETS, ModelOptions
from nmt_async.model.layers import sinusoid_positions
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.transformer import Transformer

pytestmark = pytest.mark.numeric

LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=5)


def alone(batch, row):
    return batch._rows(slice(row, row + 1))


@pytest.mark.parametrize(
    ("norm", "decoder_autoreg"), [*itertools.product(["pre", "post"], DECODER_AUTOREG), ("none", "self-attention")]
)
@given(lengths=LENGTHS)
@settings(max_examples=15, deadline=None)
def test_padding_does_not_change_a_sentences_logits(tiny, random_batch, norm, decoder_autoreg, lengths):
    model = tiny(norm=norm, decoder_autoreg=decoder_autoreg).eval()
    batch = random_batch([source for source, _ in lengths], [target for _, target in lengths])
    with torch.no_grad():
        together, _ = model(batch)
        one_by_one = torch.cat([model(alone(batch, row))[0] for row in range(len(batch))])
    torch.testing.assert_close(together, one_by_one)


@pytest.mark.parametrize("decoder_autoreg", DECODER_AUTOREG)
def test_what_stands_in_padding_means_nothing(tiny, random_batch, decoder_autoreg):
    model = tiny(decoder_autoreg=decoder_autoreg).eval()
    batch = random_batch([3, 7], [6, 2])
    with torch.no_grad():
        logits, targets = model(batch)
        batch.source[0, 3:] = 5
        batch.target[1, 2:] = 7
        changed, changed_targets = model(batch)
    torch.testing.assert_close(changed, logits)
    assert torch.equal(changed_targets, targets)


@pytest.mark.parametrize("decoder_autoreg", DECODER_AUTOREG)
def test_a_word_is_predicted_from_earlier_words_only(tiny, random_batch, decoder_autoreg):
    model = tiny(decoder_autoreg=decoder_autoreg).eval()
    batch = random_batch([4], [6])
    with torch.no_grad():
        logits, _ = model(batch)
        batch.target[0, 3] = (batch.target[0, 3] + 1) % 13
        changed, _ = model(batch)
    torch.testing.assert_close(changed[:4], logits[:4])
    assert not torch.allclose(changed[4], logits[4])


@pytest.mark.parametrize(("tied", "matrices"), [("all", 1), ("target", 2), ("none", 3)])
def test_tied_parameters_appear_once(tiny, tied, matrices):
    model = tiny(tied=tied)
    assert sum(tuple(parameter.shape) == (13, 16) for _, parameter in model.named_parameters()) == matrices


@pytest.mark.parametrize(
    ("preset", "millions"), [("tiny", 1.958), ("small", 7.585), ("base", 48.247), ("big", 184.565)]
)
def test_presets_have_the_parameters_of_their_sizes(monkeypatch, preset, millions):
    monkeypatch.setattr(Transformer, "initialise", lambda *_: None)  # shapes only: the meta device holds no values
    with torch.device("meta"):
        model = Transformer(ModelOptions(preset=preset).configuration(8000, 8000, joint=True))
    sizes = PRESETS["transformer"][preset]
    d, inner = sizes["dim_emb"], sizes["dim_ffn"]
    attention, feed_forward, norm = 4 * (d * d + d), 2 * d * inner + inner + d, 2 * d
    encoder = attention + feed_forward + 2 * norm
    decoder = 2 * attention + feed_forward + 3 * norm
    expected = 8000 * d + 8000 + sizes["enc_depth"] * encoder + sizes["dec_depth"] * decoder + 2 * norm
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert expected == pytest.approx(millions * 1e6, rel=1e-3)


def test_positions_are_sines_then_cosines_with_marians_timescales():
    width, position, i = 16, 11, 3
    table = sinusoid_positions(20, width)
    timescale = 10000.0 ** (-i / (width / 2 - 1))
    assert table[position, i].item() == pytest.approx(math.sin(position * timescale), abs=1e-6)
    assert table[position, width // 2 + i].item() == pytest.approx(math.cos(position * timescale), abs=1e-6)


def test_a_table_that_is_too_short_grows_to_what_a_long_one_holds(tiny, random_batch):
    batch = random_batch([30], [30])
    with torch.no_grad():
        short, _ = tiny(max_positions=4).eval()(batch)
        long, _ = tiny(max_positions=64).eval()(batch)
    torch.testing.assert_close(short, long)


@pytest.mark.parametrize("norm", NORMS)
def test_an_untrained_model_knows_about_nothing(random_batch, norm):
    options = ModelOptions(preset="tiny", norm=norm)
    model = Transformer(options.configuration(1000, 1000, joint=True)).eval()
    with torch.no_grad():
        logits, targets = model(random_batch([9] * 8, [12] * 8, vocabulary=1000))
    loss = smoothed_cross_entropy(logits, targets, 0.0) / len(targets)
    assert math.log(1000) * 0.9 < loss.item() < math.log(1000) * 1.3


def test_dropout_depends_on_the_generators_seed_alone(tiny, random_batch):
    model = tiny(dropout=0.3).train()
    batch = random_batch([3, 7], [6, 2])
    outputs = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        outputs.append(model(batch)[0].detach())
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_the_same_seed_gives_the_same_parameters_whatever_was_drawn_before(tiny):
    torch.manual_seed(1)
    one = tiny(seed=3).state_dict()
    torch.manual_seed(2)
    two = tiny(seed=3).state_dict()
    other = tiny(seed=4).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
