"""How parameters begin: with the variances of the formulas, and with the same numbers for the same seed, for ever."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import torch
from torch import nn

from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration, TrainedModelOptions
from nmt_async.model.initialisation import T_FIXUP, t_fixup_factors
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.transformer import Transformer, stacked_in

pytestmark = pytest.mark.numeric

UNIFORM, NORMAL = 1.8, 3.0
"""Fourth moments of the two distributions, in squares of their variance."""

SIZES: dict[str, Any] = {
    "dim_emb": 128, "heads": 4, "dim_ffn": 256, "enc_depth": 3, "dec_depth": 3, "norm": "none", "activation": "relu",
    "dropout": 0.1, "tied": "all", "source_vocabulary": 300, "target_vocabulary": 300,
}  # fmt: skip
RECURRENT: dict[str, Any] = {
    "model": "rnn", "dim_emb": 64, "dim_rnn": 48, "enc_depth": 2, "dec_depth": 2, "dropout": 0.1,
    "source_vocabulary": 300, "target_vocabulary": 300,
}  # fmt: skip


def transformer(initialisation: str | None = None, seed: int = 1, **changes: Any) -> Transformer:
    """A model whose matrices are large enough for their variances to be told."""
    model = build_model(ModelConfiguration.from_mapping({**SIZES, **changes}), seed, initialisation)
    assert isinstance(model, Transformer)
    return model


def assert_variance(matrix: torch.Tensor, expected: float, kurtosis: float) -> None:
    """That of a sample of n numbers strays by √((kurtosis - 1) / n) of itself; six times that is allowed."""
    numbers = matrix.detach().double()
    allowed = 6.0 * math.sqrt((kurtosis - 1.0) / numbers.numel())
    assert float(numbers.square().mean()) == pytest.approx(expected, rel=allowed)
    assert abs(float(numbers.mean())) < 6.0 * math.sqrt(expected / numbers.numel())


def glorot_variance(matrix: torch.Tensor) -> float:
    return 2.0 / sum(matrix.shape)


@pytest.mark.parametrize(("encoder", "decoder"), [(3, 3), (2, 5)])
def test_t_fixup_gives_each_matrix_the_variance_of_its_formula(encoder: int, decoder: int) -> None:
    model = transformer(enc_depth=encoder, dec_depth=decoder)
    scales = {"encoder": 0.67**2 * encoder**-0.5, "decoder": (9 * decoder) ** -0.5}  # of variances
    unscaled = {"attention.query_key_value": [0, 1], "cross_attention.query": [0], "cross_attention.key_value": [0]}
    seen = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            side, _, layer = name.split(".", 2)
            for number, part in enumerate(module.weight.chunk(stacked_in(name))):
                scale = 1.0 if number in unscaled.get(layer, []) else scales[side]
                assert_variance(part, scale * glorot_variance(part), UNIFORM)
                seen += 1
            assert not module.bias.any()
    assert seen == 6 * encoder + 10 * decoder


@pytest.mark.parametrize(("encoder", "decoder"), [(3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_t_fixup_gives_embeddings_the_variance_of_its_formula(tied: str, encoder: int, decoder: int) -> None:
    model = transformer(enc_depth=encoder, dec_depth=decoder, tied=tied)
    deeper, target = (9 * max(encoder, decoder)) ** -0.5 / 128, (9 * decoder) ** -0.5 / 128
    assert_variance(model.source_embedding.weight, deeper, NORMAL)
    assert_variance(model.target_embedding.weight, deeper if tied == "all" else target, NORMAL)
    assert_variance(model.output_weight, {"all": deeper, "target": target, "none": 1 / 128}[tied], NORMAL)


def test_the_factors_keep_the_sums_of_the_bound_at_one() -> None:
    """Huang et al. 2020: what their conditions sum to, with N layers on both sides."""
    for layers in (1, 2, 6, 12, 24):
        embedding = (9 * layers) ** -0.25
        (decoder,) = t_fixup_factors("decoder.0.attention.output", layers, layers)
        assert 3 * 3 * layers * decoder**2 * embedding**2 == pytest.approx(1)
        (encoder,) = t_fixup_factors("encoder.0.feed_forward.inner", layers, layers)
        rounded = 2 * layers * (encoder**4 + 2 * encoder**2 * embedding**2)
        assert rounded == pytest.approx(1, abs=2e-3)  # 0.67 stands for 0.6696


def test_glorot_gives_each_matrix_for_itself_its_variance() -> None:
    model = transformer("glorot")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            for part in module.weight.chunk(stacked_in(name)):
                assert_variance(part, glorot_variance(part), UNIFORM)
    assert_variance(model.output_weight, 1 / 128, UNIFORM)


@pytest.mark.parametrize(
    ("sizes", "digest"),
    [
        ({**SIZES, "norm": "pre"}, "8261608df2e82403"),
        ({**SIZES, "norm": "post", "tied": "none", "decoder_autoreg": "ssru"}, "ddad097aec6be5a6"),
        ({**RECURRENT, "tied": "target"}, "f80a58bc265c645f"),
    ],
    ids=["transformer", "ssru", "rnn"],
)
def test_a_seed_gives_the_numbers_that_it_gave_in_version_0_1(sizes: dict[str, Any], digest: str) -> None:
    """Else no old run could be replayed."""
    model = build_model(ModelConfiguration.from_mapping(sizes), 3)
    vector = FlatLayout(model).gather(model)
    assert hashlib.sha256(vector.numpy().tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_t_fixup_is_refused_where_there_is_layer_normalisation(norm: str) -> None:
    with pytest.raises(ValueError, match=f"'t-fixup' is no initialisation of a model with norm {norm}"):
        transformer(T_FIXUP, norm=norm)
    with pytest.raises(UserError, match=rf"--init t-fixup is for .* and --norm is {norm}; give --norm none"):
        TrainedModelOptions(norm=norm, init="t-fixup").configuration(10, 10, joint=True)


def test_an_initialisation_that_no_model_has_is_refused() -> None:
    with pytest.raises(ValueError, match="'orthogonal' is no initialisation"):
        transformer("orthogonal")
    recurrent = TrainedModelOptions(model="rnn", preset="tiny").configuration(10, 10, joint=True)
    with pytest.raises(ValueError, match="begins in one way only"):
        build_model(recurrent, initialisation="glorot")
    with pytest.raises(UserError, match="--init means nothing with --model rnn"):
        TrainedModelOptions(model="rnn", init="glorot").configuration(10, 10, joint=True)


def test_without_normalisation_t_fixup_is_what_nobody_needs_to_name() -> None:
    unnamed, named, other = (transformer(initialisation) for initialisation in (None, T_FIXUP, "glorot"))
    assert torch.equal(unnamed.output_weight, named.output_weight)
    assert not torch.equal(unnamed.output_weight, other.output_weight)
