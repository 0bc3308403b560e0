"""A Transformer's configuration as Marian writes it into its model file (``special:model.yml``), and back.

The keys are those that Marian 1.12.42 saves; what older versions leave out has the default that it has there.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from nmt_async import __version__
from nmt_async.errors import shown
from nmt_async.export.marian_parameters import NAMES
from nmt_async.model import ModelConfiguration

ACTIVATIONS = ("relu", "swish", "gelu")
EXACT_GELU = (1, 12, 42)
"""Of versions before it is not known whether their gelu is x * sigmoid(1.702 x)."""

FIXED: dict[str, Any] = {
    "input-types": [],
    "right-left": False,
    "factors-combine": "sum",
    "factors-dim-emb": 0,
    "lemma-dependency": "",
    "lemma-dim-emb": 0,
    "output-omit-bias": False,
    "ulr": False,
    "transformer-alibi-shift": False,
    "transformer-alibi-trainable": False,
    "transformer-attention-mask": "default",
    "transformer-decoder-dim-ffn": 0,
    "transformer-decoder-ffn-depth": 0,
    "transformer-depth-scaling": False,
    "transformer-disable-position-embeddings": False,
    "transformer-ffn-depth": 2,
    "transformer-no-affine": False,
    "transformer-no-bias": False,
    "transformer-no-projection": False,
    "transformer-pool": False,
    "transformer-postprocess-emb": "d",
    "transformer-rnn-projection": False,
    "transformer-tied-layers": [],
    "transformer-train-position-embeddings": False,
}  # fmt: skip
"""What Marian must be told, or left at: another value is another function, which this toolkit does not compute."""

OTHERWISE_ALIKE: dict[str, tuple[Any, ...]] = {
    "factors-combine": ("sum", "concat"),
    "transformer-depth-scaling": (False, True),  # of the initial parameters alone
    "transformer-postprocess-emb": ("d", ""),
    "transformer-decoder-ffn-depth": (0, 2),
}
"""Values that mean the same where nothing else is other than `FIXED`."""

WITHOUT_MEANING = {
    "bert-train-type-embeddings", "bert-type-vocab-size", "dec-cell-base-depth", "dec-cell-high-depth",
    "dim-rnn", "enc-cell", "enc-cell-depth", "enc-type", "separator-symbol", "skip",
    "transformer-aan-activation", "transformer-aan-depth", "transformer-aan-nogate", "transformer-dim-aan",
    "transformer-guided-alignment-layer", "ulr-dim-emb", "ulr-trainable-transformation",
    "transformer-dropout", "transformer-dropout-attention", "transformer-dropout-ffn", "max-length",
    "factors-prefix", "tsv", "tsv-fields", "lemma-dependency-only", "original-type",
}  # fmt: skip
"""What a Transformer that is translated with does not look at."""

MEANT = {
    "type", "version", "dec-cell", "layer-normalization",
    "dim-emb", "dim-vocabs", "enc-depth", "dec-depth", "tied-embeddings", "tied-embeddings-all", "tied-embeddings-src",
    "transformer-decoder-autoreg", "transformer-dim-ffn", "transformer-ffn-activation", "transformer-heads",
    "transformer-postprocess", "transformer-postprocess-top", "transformer-preprocess",
}  # fmt: skip

DROPOUT = 0.1
"""Of an imported model, for those who train it further: Marian does not save its own."""

AUTOREG = {
    "self-attention": {"transformer-decoder-autoreg": "self-attention"},
    "ssru": {"transformer-decoder-autoreg": "rnn", "dec-cell": "ssru"},
}
"""Of each way to read the words before."""

NORMS = {"pre": ("n", "da", "n"), "post": ("", "dan", ""), "none": ("", "da", "")}
"""Of each placement of layer normalisation, and of none: preprocess, postprocess and postprocess-top."""


def reason_against(configuration: ModelConfiguration) -> str | None:
    """Why Marian cannot hold such a model; None if it can."""
    if configuration.model != "transformer":
        return "Marian's GRU has one bias for its proposed state where this model's has two"
    return None


def kind_of(configuration: ModelConfiguration) -> str:
    """Marian's ``type`` to export to; see `nmt_async.export.marian_parameters` for what is wrong with the other one."""
    self_attention = configuration.decoder_autoreg == "self-attention"
    return "transformer-new" if configuration.norm == "pre" and self_attention else "transformer"


def written(configuration: ModelConfiguration) -> str:
    """The configuration in Marian's words, YAML."""
    before, after, top = NORMS[configuration.norm]
    values = FIXED | {
        "type": kind_of(configuration),
        "version": f"nmt-async {__version__}",
        "dim-emb": configuration.dim_emb,
        "dim-vocabs": [configuration.source_vocabulary, configuration.target_vocabulary],
        "enc-depth": configuration.enc_depth,
        "dec-depth": configuration.dec_depth,
        "tied-embeddings": configuration.tied == "target",
        "tied-embeddings-all": configuration.tied == "all",
        "tied-embeddings-src": False,
        "transformer-dim-ffn": configuration.dim_ffn,
        "transformer-ffn-activation": configuration.activation,
        "transformer-heads": configuration.heads,
        "transformer-preprocess": before,
        "transformer-postprocess": after,
        "transformer-postprocess-top": top,
        "layer-normalization": False,
        **AUTOREG[configuration.decoder_autoreg],
    }
    text: str = yaml.safe_dump(values, sort_keys=True)
    return text


def read(values: dict[str, Any]) -> ModelConfiguration:
    """The configuration that Marian's words ``values`` mean.

    Raises:
        ValueError: a model that this toolkit does not compute; the text says what about it.
        TypeError: a value of another type.
    """
    _check_fixed(values)
    ours = {"dim_emb": "dim-emb", "dim_ffn": "transformer-dim-ffn", "heads": "transformer-heads",
            "enc_depth": "enc-depth", "dec_depth": "dec-depth"}  # fmt: skip
    missing = [key for key in (*ours.values(), "dim-vocabs") if key not in values]
    if missing:
        raise ValueError(f"its configuration does not say {missing[0]}")
    sizes = values["dim-vocabs"]
    if not isinstance(sizes, list) or len(sizes) != 2:
        raise ValueError(f"dim-vocabs is {shown(sizes)}, and a model has one source and one target here")
    return ModelConfiguration.from_mapping(
        {
            **{name: values[key] for name, key in ours.items()},
            "source_vocabulary": sizes[0],
            "target_vocabulary": sizes[1],
            "norm": _norm(values),
            "decoder_autoreg": _decoder_autoreg(values),
            "activation": _activation(values),
            "tied": _tied(values),
            "dropout": DROPOUT,
        }
    )


def _check_fixed(values: dict[str, Any]) -> None:
    kind = values.get("type")
    if kind not in NAMES:
        raise ValueError(f"it is of type {shown(kind)}, and only a transformer can be imported")
    for key, value in values.items():
        if key in FIXED:
            if value not in OTHERWISE_ALIKE.get(key, (FIXED[key],)) and not (
                key == "input-types" and _sequences(value)
            ):
                raise ValueError(f"{key} is {shown(value)}, and only {shown(FIXED[key])} can be computed here")
        elif key not in MEANT and key not in WITHOUT_MEANING and value not in (False, 0, "", [], None):
            raise ValueError(f"{key} is {shown(value)}, of which this version knows nothing")


def _activation(values: dict[str, Any]) -> str:
    name = values.get("transformer-ffn-activation", "swish")
    if name not in ACTIVATIONS:
        raise ValueError(f"transformer-ffn-activation is {shown(name)}, and not one of {', '.join(ACTIVATIONS)}")
    written = str(values.get("version", ""))
    numbers = re.match(r"v(\d{1,6})\.(\d{1,6})\.(\d{1,6})", written)
    exact = written.startswith("nmt-async") or (numbers and tuple(map(int, numbers.groups())) >= EXACT_GELU)
    if name == "gelu" and not exact:
        raise ValueError(f"it was made by version {shown(written)}, which may have computed another gelu")
    return str(name)


def _sequences(value: Any) -> bool:
    return isinstance(value, list) and all(item == "sequence" for item in value)


def _norm(values: dict[str, Any]) -> str:
    # Dropout (d) is nothing when translating.
    keys = ("transformer-preprocess", "transformer-postprocess", "transformer-postprocess-top")
    written = [values.get(key, default) for key, default in zip(keys, ("", "dan", ""), strict=True)]
    found = tuple(str(value).replace("d", "") for value in written)
    for name, operations in NORMS.items():
        if found == tuple(each.replace("d", "") for each in operations):
            return name
    described = ", ".join(f"{key} {shown(value)}" for key, value in zip(keys, written, strict=True))
    raise ValueError(f"it has {described}; only n, da and top n, dan alone, or da alone can be computed here")


def _decoder_autoreg(values: dict[str, Any]) -> str:
    name = values.get("transformer-decoder-autoreg", "self-attention")
    if name == "self-attention":
        return "self-attention"
    if name != "rnn":
        raise ValueError(
            f"transformer-decoder-autoreg is {shown(name)}, and only 'self-attention' and 'rnn' can be computed here"
        )
    if values.get("dec-cell") != "ssru":
        raise ValueError(f"dec-cell is {shown(values.get('dec-cell'))}, and only 'ssru' can be computed here")
    if values.get("layer-normalization"):
        raise ValueError("its recurrence has a layer normalisation of its own (layer-normalization)")
    return "ssru"


def _tied(values: dict[str, Any]) -> str:
    everything, target, source = (
        bool(values.get(key, False)) for key in ("tied-embeddings-all", "tied-embeddings", "tied-embeddings-src")
    )
    if everything or (target and source):
        return "all"
    if source:
        raise ValueError("source and target embeddings are one and the output another (tied-embeddings-src)")
    return "target" if target else "none"
