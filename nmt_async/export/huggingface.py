"""A Transformer as a folder that ``transformers.MarianMTModel`` and ``MarianTokenizer`` load.

    model.safetensors, config.json, generation_config.json
    source.spm, target.spm, vocab.json (target_vocab.json), tokenizer_config.json

That model has no zero vector before the first word: decoding starts with the padding token, which we add behind the
subwords with an embedding of zeros, as the conversion of OPUS-MT's models does. Its output bias keeps it from being
chosen and from taking a share of the probabilities. Its positions are a table, written out because its own ones divide
the exponent by d/2 where Marian's divide by d/2 - 1. Its layer normalisation has an epsilon of 1e-5 where ours has
1e-6, which no option changes: scores differ by about as much.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nmt_async.checkpoints import LoadedModel
from nmt_async.errors import UserError
from nmt_async.export.marian_vocabularies import as_listed
from nmt_async.model import ModelConfiguration
from nmt_async.model.layers import sinusoid_positions
from nmt_async.model.transformer import Transformer
from nmt_async.text.vocabulary import END, UNKNOWN, Vocabulary
from nmt_async.translate import DecodingOptions
from nmt_async.writing import write_whole

NEVER = -1e9
"""Output bias of what is never chosen."""


def reason_against(configuration: ModelConfiguration) -> str | None:
    """Why MarianMTModel cannot hold such a model; None if it can."""
    if configuration.model != "transformer":
        return "MarianMTModel is a Transformer, and this model is recurrent"
    if configuration.decoder_autoreg != "self-attention":
        return "MarianMTModel's decoder has self-attention, and this model's has an SSRU"
    if configuration.norm != "post":
        where = "before" if configuration.norm == "pre" else "nowhere"
        return f"MarianMTModel normalises after each sub-layer, and this model {where} (train it with --norm post)"
    return None


def export_huggingface(loaded: LoadedModel, folder: Path) -> None:
    """Writes the files into ``folder``, which is there and empty.

    Raises:
        UserError: MarianMTModel cannot hold this model.
    """
    configuration, model = loaded.configuration, loaded.model
    reason = reason_against(configuration)
    if reason is not None:
        raise UserError(f"{loaded.folder} cannot be exported to Hugging Face: {reason}.")
    assert isinstance(model, Transformer)
    padding = max(configuration.source_vocabulary, configuration.target_vocabulary)
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in _tensors(model, padding)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _configuration(configuration, padding))
    _write_json(folder / "generation_config.json", _generation(padding))
    _write_tokenizer(loaded, folder, padding)


def _tensors(model: Transformer, padding: int) -> Iterator[tuple[str, Tensor]]:
    """The parameters by their names there; tied ones once."""
    configuration = model.configuration
    positions = sinusoid_positions(configuration.max_positions, configuration.dim_emb)
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", positions.clone()
    if configuration.tied == "all":
        yield "model.shared.weight", _padded(model.output_weight, padding)
    else:
        yield "model.encoder.embed_tokens.weight", _padded(model.source_embedding.weight, padding)
        yield "model.decoder.embed_tokens.weight", _padded(model.target_embedding.weight, padding)
        if configuration.tied == "none":
            yield "lm_head.weight", _padded(model.output_weight, padding)
    bias = torch.full((1, padding + 1), NEVER)
    bias[0, : configuration.target_vocabulary] = model.output_bias.detach()
    yield "final_logits_bias", bias
    for side, layers in (("encoder", model.encoder), ("decoder", model.decoder)):
        for number, layer in enumerate(layers):
            for name, tensor in _layer(layer):
                yield f"model.{side}.layers.{number}.{name}", tensor


def _layer(layer: Any) -> Iterator[tuple[str, Tensor]]:
    attention = layer.attention
    yield from _stacked(attention.query_key_value, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
    yield from _stacked(attention.output, ("self_attn.out_proj",))
    yield from _norm(layer.around_attention.norm, "self_attn_layer_norm")
    if hasattr(layer, "cross_attention"):
        cross = layer.cross_attention
        yield from _stacked(cross.query, ("encoder_attn.q_proj",))
        yield from _stacked(cross.key_value, ("encoder_attn.k_proj", "encoder_attn.v_proj"))
        yield from _stacked(cross.output, ("encoder_attn.out_proj",))
        yield from _norm(layer.around_cross_attention.norm, "encoder_attn_layer_norm")
    yield from _stacked(layer.feed_forward.inner, ("fc1",))
    yield from _stacked(layer.feed_forward.outer, ("fc2",))
    yield from _norm(layer.around_feed_forward.norm, "final_layer_norm")


def _stacked(linear: nn.Linear, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """The parts that lie beneath each other in ``linear``, apart."""
    weights, biases = linear.weight.chunk(len(names)), linear.bias.chunk(len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{name}.weight", weight.clone()
        yield f"{name}.bias", bias.clone()


def _norm(norm: nn.LayerNorm, name: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", norm.weight
    yield f"{name}.bias", norm.bias


def _padded(embedding: Tensor, padding: int) -> Tensor:
    """The matrix with rows of zeros up to the padding token's."""
    rows = embedding.new_zeros(padding + 1, embedding.shape[1])
    rows[: len(embedding)] = embedding.detach()
    return rows


def _configuration(configuration: ModelConfiguration, padding: int) -> dict[str, Any]:
    sides = ("encoder", "decoder")
    depths = {"encoder": configuration.enc_depth, "decoder": configuration.dec_depth}
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": padding + 1,
        "decoder_vocab_size": padding + 1,
        "d_model": configuration.dim_emb,
        **{f"{side}_layers": depths[side] for side in sides},
        **{f"{side}_attention_heads": configuration.heads for side in sides},
        **{f"{side}_ffn_dim": configuration.dim_ffn for side in sides},
        "activation_function": configuration.activation,
        "dropout": configuration.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "max_position_embeddings": configuration.max_positions,
        "scale_embedding": True,
        "static_position_embeddings": True,
        "share_encoder_decoder_embeddings": configuration.tied == "all",
        "tie_word_embeddings": configuration.tied != "none",
        "pad_token_id": padding,
        "decoder_start_token_id": padding,
        "eos_token_id": END,
        "forced_eos_token_id": END,
        "bos_token_id": None,
        "use_cache": True,
        "dtype": "float32",
    }


def _generation(padding: int) -> dict[str, Any]:
    """How `translate` searches when nobody says otherwise, in their words."""
    options = DecodingOptions()
    return {
        "num_beams": options.beam_size,
        "length_penalty": options.normalize,
        "early_stopping": False,
        "max_length": options.max_length,
        "bad_words_ids": [[padding], [UNKNOWN]],
        "pad_token_id": padding,
        "decoder_start_token_id": padding,
        "eos_token_id": END,
        "forced_eos_token_id": END,
        "bos_token_id": None,
    }


def _write_tokenizer(loaded: LoadedModel, folder: Path, padding: int) -> None:
    source, target = loaded.source_vocabulary, loaded.target_vocabulary
    separate = not source.is_same_as(target)
    for name, vocabulary in (("source.spm", source), ("target.spm", target)):
        shutil.copyfile(vocabulary.path, folder / name)
    _write_json(folder / "vocab.json", _indexes(source, padding))
    if separate:
        _write_json(folder / "target_vocab.json", _indexes(target, padding))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "MarianTokenizer",
            "separate_vocabs": separate,
            "model_max_length": DecodingOptions().max_length,
            "clean_up_tokenization_spaces": False,
            "unk_token": "<unk>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
        },
    )


def _indexes(vocabulary: Vocabulary, padding: int) -> dict[str, int]:
    # The tokenizer itself takes a language's token off the text before it splits it.
    names = map(as_listed, vocabulary.all_pieces)
    return {**{name: index for index, name in enumerate(names)}, "<pad>": padding}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_whole(path, json.dumps(values, indent=2, ensure_ascii=False))
