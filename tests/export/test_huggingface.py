"""What is exported to Hugging Face translates with MarianMTModel as here."""

from __future__ import annotations

import pytest
import torch
from exported import RECURRENT, build

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.errors import UserError
from nmt_async.export.huggingface import export_huggingface
from nmt_async.export.verification import by_transformers, verified
from nmt_async.translate.options import DecodingOptions

pytestmark = pytest.mark.numeric


@pytest.fixture
def exported(saved, trained, tmp_path):
    """Exports a model of the sizes given; the loaded model and the folder."""

    def make(after_training=False, **sizes):
        loaded = load_model((trained if after_training else saved)(**sizes))
        export_huggingface(loaded, tmp_path)
        return loaded, tmp_path

    return make


@pytest.mark.filterwarnings("ignore:Recommended")
@pytest.mark.parametrize(("tied", "activation"), [("all", "relu"), ("target", "swish"), ("none", "gelu")])
def test_marian_mt_model_finds_the_same_translations_and_scores(exported, lines, tied, activation):
    pytest.importorskip("transformers")
    loaded, folder = exported(True, tied=tied, activation=activation)
    for beam_size, share in ((1, 0.95), *([(5, 0.95)] if tied == "all" else [])):  # searches differ in when they end
        options = DecodingOptions(beam_size=beam_size)
        found = verified(loaded, lines, by_transformers(folder, loaded, lines, options), options)
        assert found.share >= share
        assert found.score_difference < 1e-3  # layer normalisation has another epsilon there


@pytest.mark.parametrize("tied", ["all", "target", "none"])
def test_every_parameter_is_found_and_positions_are_ours(exported, tied):
    transformers = pytest.importorskip("transformers")
    loaded, folder = exported(tied=tied)
    transformers.logging.disable_progress_bar()
    model, said = transformers.MarianMTModel.from_pretrained(folder, output_loading_info=True)
    assert not any(said.values())
    assert torch.equal(model.model.encoder.embed_positions.weight, loaded.model.source_embedding.positions)
    start = model.config.decoder_start_token_id
    assert not model.get_decoder().embed_tokens.weight[start].any()


@pytest.mark.filterwarnings("ignore:Recommended")
def test_the_tokenizer_has_our_indexes_for_both_sides(exported, lines):
    transformers = pytest.importorskip("transformers")
    loaded, folder = exported(tied="none")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    worded = [line for line in lines if line.strip()]
    assert tokenizer(worded)["input_ids"] == loaded.source_vocabulary.encode_lines(worded)
    assert tokenizer(text_target=worded)["input_ids"] == loaded.target_vocabulary.encode_lines(worded)


def test_what_it_cannot_hold_is_refused_with_the_reason(saved, vocabularies, tmp_path):
    for norm, where in (("pre", "before"), ("none", "nowhere")):
        with pytest.raises(UserError, match=f"normalises after each sub-layer, and this model {where}"):
            export_huggingface(load_model(saved(norm=norm)), tmp_path)
    with pytest.raises(UserError, match="decoder has self-attention, and this model's has an SSRU"):
        export_huggingface(load_model(saved(decoder_autoreg="ssru")), tmp_path)
    recurrent = build(tmp_path / "rnn", vocabularies, **RECURRENT)
    with pytest.raises(UserError, match="is recurrent"):
        export_huggingface(load_model(recurrent), tmp_path)
