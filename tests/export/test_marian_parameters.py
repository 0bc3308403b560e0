"""Where each parameter stands in Marian's files: every number once, and back as it was."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_async.export.marian_configuration import read, written
from nmt_async.export.marian_parameters import NAMES, from_marian, places, to_marian
from nmt_async.model.build import build_model
from nmt_async.model.configuration import DECODER_AUTOREG, ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.options import yaml_mapping

WAYS = [*itertools.product(["pre", "post"], DECODER_AUTOREG), ("none", "self-attention")]
"""Where a model normalises, and how its decoder reads earlier words."""

configurations = st.builds(
    lambda vocabulary, heads, width, ffn, depths, way, activation, tied: ModelConfiguration(
        vocabulary[0], vocabulary[0] if tied == "all" else vocabulary[1], 2 * heads * width, heads, ffn, *depths,
        way[0], activation, 0.1, tied, decoder_autoreg=way[1],
    ),
    st.tuples(st.integers(3, 9), st.integers(3, 9)), st.integers(1, 3), st.integers(1, 2), st.integers(1, 9),
    st.tuples(st.integers(1, 3), st.integers(1, 3)), st.sampled_from(WAYS),
    st.sampled_from(["relu", "swish", "gelu"]), st.sampled_from(["all", "target", "none"]),
)  # fmt: skip


@settings(max_examples=40)
@given(configuration=configurations, kind=st.sampled_from(sorted(NAMES)))
def test_every_number_goes_to_marian_once_and_comes_back_as_it_was(
    configuration: ModelConfiguration, kind: str
) -> None:
    layout = FlatLayout(build_model(configuration))
    vector = torch.zeros(layout.size)
    for number, view in enumerate(layout.views(vector)):
        view.copy_(torch.arange(view.numel()).view(view.shape) + 10_000 * number + 1)
    expected = places(configuration, kind)
    arrays = to_marian(expected, layout.named(vector))
    assert {place.marian: place.shape for place in expected} == {name: each.shape for name, each in arrays.items()}
    assert sum(array.size for array in arrays.values()) == layout.parameters
    back = torch.zeros(layout.size)
    from_marian(expected, arrays, layout.named(back))
    assert torch.equal(back, vector)


@given(configuration=configurations)
def test_marians_words_say_the_whole_configuration(configuration: ModelConfiguration) -> None:
    values = yaml_mapping(written(configuration).encode(), "here")
    assert read(values) == configuration
    pre, attends = configuration.norm == "pre", configuration.decoder_autoreg == "self-attention"
    assert values["type"] == ("transformer-new" if pre and attends else "transformer")
