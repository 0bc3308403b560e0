"""A decoder that goes step by step computes what the forward pass computes at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nmt_async.model.translation_model import compact

pytestmark = pytest.mark.numeric

KINDS = {"transformer": {}, "ssru": {"decoder_autoreg": "ssru"}, "rnn": {"model": "rnn"}}


def forced(model, batch, beam=1):
    """Logits (sentences, beam, target_length, vocabulary) of a state that is fed the targets in every hypothesis."""
    state = model.start(batch.source, batch.source_lengths)
    steps, previous = [], None
    for position in range(batch.target.shape[1]):
        steps.append(model.step(state, previous).view(len(batch), state.beam, -1).expand(-1, beam, -1))
        if state.beam != beam:
            state.reorder(torch.zeros(len(batch), beam, dtype=torch.int64))
        previous = batch.target[:, position].repeat_interleave(beam)
    return torch.stack(steps, dim=2)


def at_once(model, batch):
    """Logits (sentences, target_length, vocabulary) of the forward pass; zero at padding."""
    logits, _ = model(batch)
    result = logits.new_zeros(*batch.target.shape, logits.shape[1])
    result[torch.arange(batch.target.shape[1]) < batch.target_lengths[:, None]] = logits
    return result


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre"},
        {"norm": "post"},
        {"norm": "none"},
        {"decoder_autoreg": "ssru", "norm": "pre"},
        {"decoder_autoreg": "ssru", "norm": "post"},
        {"model": "rnn"},
        {"model": "rnn", "dec_depth": 1},
        {"model": "rnn", "dec_depth": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", ["all", "target", "none"])
@pytest.mark.parametrize("beam", [1, 3])
def test_steps_give_the_logits_of_the_forward_pass(tiny, random_batch, changes, tied, beam):
    model = tiny(**changes, tied=tied).eval()
    batch = random_batch([3, 7, 1, 5], [6, 6, 6, 6])
    with torch.no_grad():
        stepped, whole = forced(model, batch, beam), at_once(model, batch)
    for hypothesis in range(beam):
        torch.testing.assert_close(stepped[:, hypothesis], whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [9, 70])  # so long that slots are given up several times
def test_a_reordered_hypothesis_goes_on_from_its_parents_past(tiny, random_batch, kind, length):
    model = tiny(**KINDS[kind]).eval()
    batch = random_batch([4, 2], [2, 2])
    generator = torch.Generator().manual_seed(5)
    beam = 3
    prefixes = torch.empty(2, 1, 0, dtype=torch.int64)
    with torch.no_grad():
        state = model.start(batch.source, batch.source_lengths)
        logits = model.step(state, None)
        for _ in range(length):
            parents = torch.randint(0, state.beam, (2, beam), generator=generator)
            words = torch.randint(1, 13, (2, beam), generator=generator)
            state.reorder(parents)
            past = prefixes.gather(1, parents[:, :, None].expand(-1, -1, prefixes.shape[2]))
            prefixes = torch.cat([past, words[:, :, None]], dim=2)
            logits = model.step(state, words.view(-1))
        for hypothesis in range(beam):
            target = torch.cat([prefixes[:, hypothesis], torch.zeros(2, 1, dtype=torch.int64)], dim=1)
            lengths = torch.full((2,), length + 1)
            whole = at_once(model, type(batch)(batch.source, batch.source_lengths, target, lengths))
            torch.testing.assert_close(logits.view(2, beam, -1)[:, hypothesis], whole[:, -1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [[1, 3], [0, 1, 2], [3, 1], [2]])
def test_forgotten_sentences_leave_the_others_as_they_were(tiny, random_batch, kind, kept):
    model = tiny(**KINDS[kind]).eval()
    batch = random_batch([3, 7, 2, 5], [2, 2, 2, 2])
    words = torch.tensor([[2, 3], [4, 5], [6, 7], [8, 9]])
    with torch.no_grad():
        whole, part = (model.start(batch.source, batch.source_lengths) for _ in range(2))
        for state in (whole, part):
            model.step(state, None)
            state.reorder(torch.zeros(4, 2, dtype=torch.int64))
            model.step(state, words.view(-1))
        part.keep(torch.tensor(kept))
        assert part.sentences == len(kept)
        expected = model.step(whole, words.view(-1)).view(4, 2, -1)[kept]
        torch.testing.assert_close(model.step(part, words[kept].view(-1)).view(len(kept), 2, -1), expected)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_few_sentences_move_when_others_are_finished(finished):
    kept = compact(torch.tensor(finished)).tolist()
    assert sorted(kept) == [sentence for sentence, done in enumerate(finished) if not done]
    assert sum(place != sentence for place, sentence in enumerate(kept)) <= sum(finished)


def test_keys_and_values_of_the_source_are_not_repeated_for_hypotheses(tiny, random_batch):
    model = tiny().eval()
    batch = random_batch([3, 7], [2, 2])
    with torch.no_grad():
        state = model.start(batch.source, batch.source_lengths)
        before = [layer.memory_key.data_ptr() for layer in state.layers]
        model.step(state, None)
        state.reorder(torch.zeros(2, 5, dtype=torch.int64))
        model.step(state, torch.ones(10, dtype=torch.int64))
    assert [layer.memory_key.data_ptr() for layer in state.layers] == before
    assert all(layer.memory_key.shape[0] == 2 for layer in state.layers)


def test_a_translation_may_outgrow_cache_and_position_table_and_training_goes_on(tiny, random_batch):
    model = tiny(max_positions=4)
    batch = random_batch([3], [90])
    with torch.inference_mode():
        stepped = forced(model.eval(), batch)
    torch.testing.assert_close(stepped[:, 0].clone(), at_once(model, batch).detach())
    logits, _ = model.train()(batch)
    logits.sum().backward()


def test_slots_that_are_in_nobodys_past_are_given_up(tiny, random_batch):
    model = tiny().eval()
    batch = random_batch([4, 2], [2, 2])
    with torch.no_grad():
        state = model.start(batch.source, batch.source_lengths)
        model.step(state, None)
        for _ in range(100):
            state.reorder(torch.zeros(2, 5, dtype=torch.int64))  # all have the same parent
            model.step(state, torch.full((10,), 3))
    assert state.used < 240  # of 501 that were filled
