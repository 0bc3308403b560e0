"""A model as a folder that CTranslate2 loads (checked with its version 4.8.5), exact for our Transformer.

    model.bin, config.json                             parameters and configuration
    shared_vocabulary.json, or source_ and target_     the subwords in the order of their indexes
    vocabulary.model, or source.model and target.model SentencePiece, for whoever encodes lines

In int8 no weight is above 64, on any processor: CTranslate2 chooses its kernels itself and does not say which, an
exported model goes from one machine to another, and with 64 no kernel can overflow (`nmt_async.model.linear`).

CTranslate2 knows Marian's decoder, whose first input is a zero vector (its `start_from_zero_embedding`). Two of
our conventions are not its own and are written out: positions, as a table, and the epsilon of layer normalisation.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from nmt_async.checkpoints.model_folder import JOINT_VOCABULARY, SOURCE_VOCABULARY, TARGET_VOCABULARY, LoadedModel
from nmt_async.errors import UserError
from nmt_async.export.options import QUANTIZATIONS
from nmt_async.model.attention import CrossAttention, SelfAttention
from nmt_async.model.decoder_layers import AttentionDecoderLayer
from nmt_async.model.layers import NORM_EPSILON, Embedding, EncoderLayer, FeedForward, sinusoid_positions
from nmt_async.model.linear import ALWAYS_EXACT
from nmt_async.model.transformer import Transformer
from nmt_async.text import Vocabulary

LONGEST = 4096
"""Positions in the table, or the model's own number if that is more: CTranslate2 computes none beyond it."""


def export_ctranslate2(loaded: LoadedModel, folder: Path, quantization: str = "float32") -> None:
    """Writes the model into ``folder``, which is made, or is empty.

    Args:
        loaded: the model; it is not changed.
        quantization: one of `QUANTIZATIONS`; int8 are the weights of linear layers and embeddings, a scale for each
            row (about a quarter of the size).

    Raises:
        UserError: CTranslate2 is not installed or cannot hold this model.
    """
    reason = unsupported(loaded)
    if reason is not None:
        raise UserError(f"{loaded.folder} cannot be exported to CTranslate2: {reason}.")
    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization {quantization!r} is not known; choose one of {', '.join(QUANTIZATIONS)}.")
    spec = _specification(loaded)
    if quantization == "int8":
        import_ctranslate2().specs.model_spec.visit_spec(spec, _quantize)
    spec.validate()
    spec.optimize(quantization if quantization != "int8" else None)
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))
    for name, vocabulary in _vocabularies(loaded).items():
        shutil.copyfile(vocabulary.path, folder / name)


def unsupported(loaded: LoadedModel) -> str | None:
    """Why CTranslate2 cannot hold this model; None if it can."""
    if not isinstance(loaded.model, Transformer):
        kind = loaded.configuration.model
        return f"it holds Transformers only, and this model is of type {'ensemble' if kind == 'transformer' else kind}"
    if loaded.configuration.decoder_autoreg != "self-attention":
        return "CTranslate2's decoders have self-attention, and this model's has an SSRU"
    if loaded.configuration.norm == "none":
        return "CTranslate2 adds a sub-layer's input to its output only where it normalises; this model does so nowhere"
    if loaded.configuration.heads > np.iinfo(np.int16).max:
        return f"it counts at most {np.iinfo(np.int16).max:,} heads"
    return None


def import_ctranslate2() -> Any:
    """The module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import ctranslate2
    except ImportError as error:
        raise UserError(
            f"CTranslate2 cannot be used ({error}); install it: pip install 'nmt-async[ctranslate2]'."
        ) from None
    return ctranslate2


def _vocabularies(loaded: LoadedModel) -> dict[str, Vocabulary]:
    if loaded.source_vocabulary.path == loaded.target_vocabulary.path:
        return {JOINT_VOCABULARY: loaded.source_vocabulary}
    return {SOURCE_VOCABULARY: loaded.source_vocabulary, TARGET_VOCABULARY: loaded.target_vocabulary}


def _specification(loaded: LoadedModel) -> Any:
    specs = import_ctranslate2().specs
    configuration, model = loaded.configuration, loaded.model
    assert isinstance(model, Transformer)
    activations = {"relu": specs.Activation.RELU, "swish": specs.Activation.SWISH, "gelu": specs.Activation.GELU}
    spec = specs.TransformerSpec.from_config(
        (configuration.enc_depth, configuration.dec_depth),
        configuration.heads,
        pre_norm=configuration.norm == "pre",
        activation=activations[configuration.activation],
        alignment_heads=0,  # the mean of all
    )
    positions = _array(sinusoid_positions(max(LONGEST, configuration.max_positions), configuration.dim_emb))
    _embedding(spec.encoder.embeddings[0], spec.encoder, model.source_embedding, positions)
    _embedding(spec.decoder.embeddings, spec.decoder, model.target_embedding, positions)
    spec.decoder.start_from_zero_embedding = True
    spec.decoder.projection.weight = _array(model.output_weight)
    spec.decoder.projection.bias = _array(model.output_bias)
    if configuration.norm == "pre":
        _norm(spec.encoder.layer_norm, model.encoder_top)
        _norm(spec.decoder.layer_norm, model.decoder_top)
    for written, encoder_layer in zip(spec.encoder.layer, model.encoder, strict=True):
        _encoder_layer(written, encoder_layer)
    for written, decoder_layer in zip(spec.decoder.layer, model.decoder, strict=True):
        _decoder_layer(written, decoder_layer)
    spec.register_source_vocabulary(list(loaded.source_vocabulary.all_pieces))
    spec.register_target_vocabulary(list(loaded.target_vocabulary.all_pieces))
    # No piece begins a sentence; the one named here is looked up, then replaced by the zero vector.
    spec.config.bos_token = spec.config.decoder_start_token = spec.config.eos_token
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = NORM_EPSILON
    return spec


def _embedding(written: Any, side: Any, embedding: Embedding, positions: Any) -> None:
    written.weight = _array(embedding.weight)
    side.position_encodings.encodings = positions


def _encoder_layer(written: Any, layer: nn.Module) -> None:
    assert isinstance(layer, EncoderLayer)
    _self_attention(written.self_attention, layer.attention, layer.around_attention.norm)
    _feed_forward(written.ffn, layer.feed_forward, layer.around_feed_forward.norm)


def _decoder_layer(written: Any, layer: nn.Module) -> None:
    assert isinstance(layer, AttentionDecoderLayer)
    _self_attention(written.self_attention, layer.attention, layer.around_attention.norm)
    _cross_attention(written.attention, layer.cross_attention, layer.around_cross_attention.norm)
    _feed_forward(written.ffn, layer.feed_forward, layer.around_feed_forward.norm)


def _self_attention(written: Any, attention: SelfAttention, norm: nn.Module) -> None:
    _norm(written.layer_norm, norm)
    _linear(written.linear[0], attention.query_key_value)
    _linear(written.linear[1], attention.output)


def _cross_attention(written: Any, attention: CrossAttention, norm: nn.Module) -> None:
    _norm(written.layer_norm, norm)
    _linear(written.linear[0], attention.query)
    _linear(written.linear[1], attention.key_value)
    _linear(written.linear[2], attention.output)


def _feed_forward(written: Any, layer: FeedForward, norm: nn.Module) -> None:
    _norm(written.layer_norm, norm)
    _linear(written.linear_0, layer.inner)
    _linear(written.linear_1, layer.outer)


def _linear(written: Any, linear: nn.Linear) -> None:
    written.weight, written.bias = _array(linear.weight), _array(linear.bias)


def _norm(written: Any, norm: nn.Module) -> None:
    assert isinstance(norm, nn.LayerNorm)
    written.gamma, written.beta = _array(norm.weight), _array(norm.bias)


def _quantize(part: Any, name: str, weight: Any) -> None:
    """Makes the matrix of linear layers and embeddings one of 8-bit integers, with a scale for each row.

    Args:
        part: of the specification.
        name: of the array in it; others than those are left as they are.
        weight: the array.
    """
    if not name.endswith("/weight") or not hasattr(part, "weight_scale"):
        return
    part.weight_scale = (ALWAYS_EXACT / np.abs(weight).max(axis=1).clip(min=1e-12)).astype(np.float32)
    part.weight = np.rint(weight * part.weight_scale[:, None]).astype(np.int8)


def _array(tensor: Tensor) -> Any:
    return tensor.detach().float().cpu().numpy()
