"""What a translation's subwords looked at, beside what the forward pass looks at."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from definitions import KINDS, decode, random_model, random_sources

from nmt_async.errors import UserError
from nmt_async.model import recurrent
from nmt_async.search.ensemble import Ensemble
from nmt_async.search.options import SamplingMethod, Search
from nmt_async.text.batch import Batch, pad
from nmt_async.text.vocabulary import END
from nmt_async.translate.formats import AlignmentForm, links

pytestmark = pytest.mark.numeric

SEARCH = Search(beam_size=3, normalize=0.6, max_length_factor=1.0, extra_length=4, wanted=3, alignment=True)


@pytest.fixture
def looked_at(monkeypatch):
    """Attention (target_length, source_length) of the forward pass over one pair, as it was computed there."""

    def of_transformer(model, batch):
        attention, seen = model.decoder[-1].cross_attention, {}
        hooks = [
            module.register_forward_hook(lambda _, __, result, name=name: seen.update({name: result}))
            for name, module in (("query", attention.query), ("key_value", attention.key_value))
        ]
        model(batch)
        for hook in hooks:
            hook.remove()
        width = seen["query"].shape[2] // attention.heads
        query, key = seen["query"][0, :, :width], seen["key_value"][0, :, :width]  # of the first head
        return torch.softmax(query @ key.t() / math.sqrt(width), dim=1)

    def of_recurrent(model, batch):
        seen, compute = [], recurrent.additive_attention
        with monkeypatch.context() as patch:
            patch.setattr(recurrent, "additive_attention", lambda *x: seen.append(compute(*x)) or seen[-1])
            model(batch)
        return torch.cat(seen, dim=1)[0]

    def compute(kind, model, source, ids):
        batch = Batch(*pad([source.numpy()]), *pad([[*ids, END]]))
        with torch.no_grad():
            return (of_recurrent if kind == "rnn" else of_transformer)(model, batch)

    return compute


@pytest.mark.parametrize("sampling", [None, SamplingMethod()], ids=["search", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_alignment_is_what_the_forward_pass_looks_at(kind, sampling, looked_at):
    model = random_model(3, 60, eagerness=1.0, kind=kind)
    sources = random_sources(7, 60, [3, 9, 1, 5, 2])
    search = Search(
        beam_size=3,
        normalize=0.6,
        max_length_factor=1.0,
        extra_length=4,
        wanted=3,
        alignment=True,
        output_sampling=sampling,
    )
    for source, hypotheses in zip(sources, decode(model, sources, search), strict=True):
        for hypothesis in hypotheses:
            expected = looked_at(kind, model, source, hypothesis.ids)
            assert expected.shape == (len(hypothesis.ids) + 1, len(source))
            torch.testing.assert_close(torch.tensor(hypothesis.alignment).double(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_alignments_changes_no_translation_and_an_ensemble_has_its_first_models(kind):
    model, other = random_model(3, 60, 1.0, kind), random_model(4, 60, 1.0, "rnn")
    sources = random_sources(7, 60, [3, 9, 1])
    found = decode(model, sources, SEARCH)
    plain = decode(model, sources, dataclasses.replace(SEARCH, alignment=False))
    assert [[each.ids for each in n_best] for n_best in found] == [[each.ids for each in n_best] for n_best in plain]
    assert all(each.alignment is None for n_best in plain for each in n_best)
    assert decode(Ensemble([model, other], [1.0, 0.0]), sources, SEARCH) == found


ROWS = ((0.7, 0.2, 0.1), (0.25, 0.5, 0.25), (0.45, 0.1, 0.45))


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("soft", "0.7,0.2,0.1 0.25,0.5,0.25 0.45,0.1,0.45"),
        ("hard", "0-0 0-2 1-1"),
        ("1", "0-0 0-2 1-1"),
        ("0.4", "0-0 0-2 1-1 2-2"),
        ("0.2", "0-0 0-1 0-2 1-1 2-1 2-2"),
    ],
)
def test_an_alignment_is_written_as_marian_writes_it(form, text):
    assert AlignmentForm.parse(form).text(ROWS) == text
    assert AlignmentForm.parse(str(AlignmentForm.parse(form))) == AlignmentForm.parse(form)


def test_nothing_is_aligned_with_nothing():
    assert links(()) == []


@pytest.mark.parametrize("text", ["", "0", "-0.5", "1.5", "nan", "firm"])
def test_what_is_no_form_is_refused(text):
    with pytest.raises(UserError, match="is no form of alignment; give soft, hard or"):
        AlignmentForm.parse(text)
