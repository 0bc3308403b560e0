from __future__ import annotations

import pytest
import torch

from nmt_async.model.flat import ALIGNMENT, FlatLayout


@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_gathered_parameters_scatter_back_unchanged(tiny, tied):
    model, other = tiny(seed=1, tied=tied).float(), tiny(seed=2, tied=tied).float()
    layout = FlatLayout(model)
    vector = torch.zeros(layout.size)
    layout.scatter(layout.named(layout.gather(model)), vector)
    layout.bind(other, vector)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in other.state_dict().items())
    assert layout.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_bound_model_computes_with_the_vector(tiny, random_batch):
    model = tiny().float().eval()
    layout = FlatLayout(model)
    vector = layout.gather(model)
    batch = random_batch([3, 5], [4, 2])
    before, _ = model(batch)
    layout.bind(model, vector)
    assert torch.equal(model(batch)[0], before)
    vector.zero_()
    assert torch.equal(model(batch)[0], torch.zeros_like(before))
    assert model.output_weight.data_ptr() == model.source_embedding.weight.data_ptr()


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
