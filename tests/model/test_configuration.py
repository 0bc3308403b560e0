from __future__ import annotations

import dataclasses

import pytest

from nmt_async.errors import UserError
from nmt_async.model.configuration import MODELS, OF_ONE_MODEL, ModelConfiguration, ModelOptions


@pytest.mark.parametrize(
    ("changes", "joint", "message"),
    [
        ({"dim_emb": 30, "heads": 4}, True, "--dim-emb 30"),
        ({"dim_emb": 3, "heads": 1}, True, "--dim-emb 3"),
        ({"dim_emb": 0}, True, "--dim-emb: 0"),
        ({"heads": 0}, True, "--heads: 0"),
        ({"enc_depth": 0}, True, "--enc-depth: 0"),
        ({"dropout": 1.0}, True, "--dropout: 1.0"),
        ({"dropout": float("nan")}, True, "--dropout: nan"),
        ({"model": "rnn", "dim_rnn": 0}, True, "--dim-rnn: 0"),
        ({"model": "rnn", "dim_emb": 0}, True, "--dim-emb: 0"),
        ({"model": "rnn", "dec_depth": 0}, True, "--dec-depth: 0"),
        ({"tied_embeddings": "all"}, False, "--tied-embeddings all"),
    ],
)
def test_sizes_that_do_not_fit_are_named_by_their_option(changes, joint, message):
    with pytest.raises(UserError) as caught:
        ModelOptions(**changes).configuration(100, 100, joint)
    assert message in str(caught.value)


@pytest.mark.parametrize(("joint", "tied"), [(True, "all"), (False, "target")])
def test_embeddings_are_tied_as_the_vocabulary_allows(joint, tied):
    assert ModelOptions().configuration(100, 120, joint).tied == tied


def test_what_is_given_wins_over_the_preset():
    configuration = ModelOptions(preset="base", enc_depth=2, dropout=0.0).configuration(100, 100, joint=True)
    assert (configuration.enc_depth, configuration.dec_depth, configuration.dropout) == (2, 6, 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_a_configuration_survives_its_mapping(model):
    configuration = ModelOptions(model=model, preset="tiny").configuration(100, 100, joint=True)
    assert ModelConfiguration.from_mapping(configuration.as_mapping()) == configuration


def test_a_mapping_that_names_no_model_and_no_recurrence_is_a_transformers_with_self_attention():
    configuration = ModelOptions(preset="tiny").configuration(100, 100, joint=True)
    values = configuration.as_mapping()
    assert (values.pop("model"), values.pop("decoder_autoreg")) == ("transformer", "self-attention")
    assert ModelConfiguration.from_mapping(values) == configuration


def test_a_mapping_that_an_earlier_version_saved_is_read_and_saved_as_it_was():
    values = {
        "model": "transformer", "source_vocabulary": 100, "target_vocabulary": 100, "dim_emb": 16, "heads": 2,
        "dim_ffn": 24, "enc_depth": 2, "dec_depth": 1, "norm": "post", "activation": "relu", "dropout": 0.1,
        "tied": "all", "max_positions": 1024, "decoder_autoreg": "self-attention",
    }  # fmt: skip
    assert ModelConfiguration.from_mapping(values).as_mapping() == values


def test_no_layer_normalisation_and_an_ssru_are_refused_together():
    values = ModelOptions(preset="tiny", norm="none").configuration(100, 100, joint=True).as_mapping()
    with pytest.raises(ValueError, match="SSRUs and no layer normalisation"):
        ModelConfiguration.from_mapping({**values, "decoder_autoreg": "ssru"})
    with pytest.raises(UserError, match="--norm none does not go with --decoder-autoreg ssru"):
        ModelOptions(norm="none", decoder_autoreg="ssru").configuration(100, 100, joint=True)


def test_a_way_to_read_earlier_words_that_is_not_known_is_refused():
    values = ModelOptions(preset="tiny").configuration(100, 100, joint=True).as_mapping()
    with pytest.raises(ValueError, match="decoder_autoreg is 'sru'"):
        ModelConfiguration.from_mapping({**values, "decoder_autoreg": "sru"})


def test_a_mapping_holds_what_means_something_in_its_model():
    values = ModelOptions(model="rnn", preset="tiny").configuration(100, 100, joint=True).as_mapping()
    assert values.keys().isdisjoint({"heads", "dim_ffn", "norm", "activation", "max_positions", "decoder_autoreg"})
    assert values["dim_rnn"] == 160


@pytest.mark.parametrize(
    ("model", "option", "value", "other"),
    [
        ("rnn", "heads", 4, "transformer"),
        ("rnn", "dim_ffn", 512, "transformer"),
        ("rnn", "norm", "pre", "transformer"),
        ("rnn", "norm", "post", "transformer"),
        ("rnn", "activation", "relu", "transformer"),
        ("rnn", "decoder_autoreg", "ssru", "transformer"),
        ("transformer", "dim_rnn", 64, "rnn"),
    ],
)
def test_an_option_of_another_model_is_refused(model, option, value, other):
    with pytest.raises(UserError) as caught:
        ModelOptions(model=model, **{option: value}).configuration(100, 100, joint=True)
    flag = "--" + option.replace("_", "-")
    assert str(caught.value) == f"{flag} means nothing with --model {model}; leave it out, or give --model {other}."


def test_what_a_model_reads_is_either_every_models_or_one_models():
    assert set(OF_ONE_MODEL.values()) == set(MODELS)
    assert OF_ONE_MODEL.keys() < {field.name for field in dataclasses.fields(ModelConfiguration)}
