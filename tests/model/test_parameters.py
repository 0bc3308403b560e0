from __future__ import annotations

import pytest
import torch

from nmt_async.model.configuration import MODELS
from nmt_async.model.parameters import ALIGNMENT, FlatLayout

pytestmark = pytest.mark.numeric


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_gathered_parameters_scatter_back_unchanged(tiny, kind, tied):
    model, other = (tiny(seed=seed, model=kind, tied=tied).float() for seed in (1, 2))
    layout = FlatLayout(model)
    vector = torch.zeros(layout.size)
    layout.scatter(layout.named(layout.gather(model)), vector)
    layout.bind(other, vector)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    assert layout.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MODELS)
def test_a_bound_model_computes_with_the_vector(tiny, random_batch, kind):
    model = tiny(model=kind).float().eval()
    layout = FlatLayout(model)
    vector = layout.gather(model)
    batch = random_batch([3, 5], [4, 2])
    before, _ = model(batch)
    layout.bind(model, vector)
    assert torch.equal(model(batch)[0], before)
    vector.zero_()
    assert torch.equal(model(batch)[0], torch.zeros_like(before))
    assert dict(model.named_parameters(remove_duplicate=False))["output_weight"].data_ptr() in [
        view.data_ptr() for view in layout.views(vector)
    ]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_bound_from_one_vector_to_the_next_has_the_gradients_of_one_that_was_never_bound(
    tiny, random_batch, kind
):
    batch = random_batch([3, 5], [4, 2])
    model = tiny(model=kind).float().train()
    layout = FlatLayout(model)
    layout.bind(model, torch.zeros(layout.size))
    for seed in (1, 2):
        other = tiny(seed=seed, model=kind).float().train()
        layout.bind(model, layout.gather(other))
        for one in (model, other):
            one.zero_grad()
            one(batch)[0].square().sum().backward()
        for (name, parameter), expected in zip(model.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(parameter.grad, expected.grad), name


def test_parameters_begin_on_cache_lines_and_gaps_are_zero(tiny):
    model = tiny(target_vocabulary=17, source_vocabulary=11, tied="none").float()
    layout = FlatLayout(model)
    vector = layout.gather(model)
    assert all(place.begin % ALIGNMENT == 0 for place in layout.places)
    inside = torch.zeros(layout.size, dtype=torch.bool)
    for place in layout.places:
        assert not inside[place.begin : place.end].any()
        inside[place.begin : place.end] = True
    assert (~inside).any()
    assert not vector[~inside].any()


def test_a_parameter_of_another_shape_or_missing_is_refused(tiny):
    model = tiny().float()
    layout = FlatLayout(model)
    vector = layout.gather(model)
    named = dict(layout.named(vector.clone()))
    with pytest.raises(ValueError, match="output_bias has shape"):
        layout.scatter({**named, "output_bias": torch.zeros(3)}, vector)
    del named["output_bias"]
    with pytest.raises(KeyError, match="output_bias"):
        layout.scatter(named, vector)
