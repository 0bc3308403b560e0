"""Which parameters a model names as hidden matrices: all matrices but embeddings and the output's, none twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nmt_async.model.parameters import FlatLayout

WORDS = {"source_embedding", "target_embedding", "output_weight"}
MODELS: list[dict[str, Any]] = [
    {"model": "transformer"}, {"model": "transformer", "decoder_autoreg": "ssru"}, {"model": "rnn"},
]  # fmt: skip


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: "-".join(kind.values()))
@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_every_matrix_is_hidden_or_of_words_and_none_is_named_twice(tiny, kind: dict[str, Any], tied: str) -> None:
    layout = FlatLayout(tiny(tied=tied, **kind))
    named = torch.zeros(layout.size, dtype=torch.int64)
    ends = 0
    for begin, rows, columns, _ in layout.hidden():
        assert begin >= ends  # in the vector's order
        ends = begin + rows * columns
        named[begin:ends] += 1
    for place in layout.places:
        hidden = len(place.shape) == 2 and place.name.removesuffix(".weight") not in WORDS
        assert (named[place.begin : place.end] == hidden).all(), place.name
        named[place.begin : place.end] = 0
    assert not named.any()


def test_projections_that_are_computed_at_once_are_apart(tiny) -> None:
    model = tiny()
    layout = FlatLayout(model)
    heights = {place.name: [rows for begin, rows, *_ in layout.hidden() if place.begin <= begin < place.end]
               for place in layout.places}  # fmt: skip
    width = model.output_weight.shape[1]
    fused = {name: rows for name, rows in heights.items() if name.endswith("key_value.weight")}
    assert {tuple(rows) for rows in fused.values()} == {(width,) * 3, (width,) * 2}


def test_an_attentions_output_is_cut_by_columns_since_its_heads_are_those(tiny) -> None:
    layout = FlatLayout(tiny())
    wide = {begin for begin, *_, is_wide in layout.hidden() if is_wide}
    assert wide == {place.begin for place in layout.places if place.name.endswith("attention.output.weight")}
    assert wide
