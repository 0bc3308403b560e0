from __future__ import annotations

import pytest

from nmt_async.errors import UserError
from nmt_async.model.configuration import ModelConfiguration, ModelOptions


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


def test_a_configuration_survives_its_mapping():
    configuration = ModelOptions(preset="tiny").configuration(100, 100, joint=True)
    assert ModelConfiguration(**configuration.as_mapping()) == configuration
