"""What a model is made of: its sizes, the presets that name them, and the options that change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import UserError, shown
from nmt_async.options import NOT_GIVEN, check_together, option
from nmt_async.reading import as_dataclass

GROUP = "Model"


MODELS = ("transformer", "rnn")
MARIANS_NAMES = {"s2s": "rnn"}
FUSED, TORCH = "fused", "torch"
"""Kernels that training computes with; see `nmt_async.model.kernels`."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"
"""Precisions in which training multiplies matrices."""

PRECISIONS = (FLOAT32, "int8")
"""Precisions in which decoding multiplies matrices; see `nmt_async.model.linear`."""
DECODER_AUTOREG = ("self-attention", "ssru")
NORMS = ("pre", "post", "none")
INITIALISATIONS = ("glorot", "t-fixup")
OF_ONE_MODEL = {"heads": "transformer", "dim_ffn": "transformer", "norm": "transformer", "activation": "transformer",
                "decoder_autoreg": "transformer", "max_positions": "transformer", "dim_rnn": "rnn"}  # fmt: skip
"""Which of a configuration's fields mean something in one model only; in the others they are 0 or empty."""

MOST = {
    "source_vocabulary": 2**24, "target_vocabulary": 2**24, "dim_emb": 2**16, "heads": 2**16, "dim_ffn": 2**20,
    "dim_rnn": 2**16, "enc_depth": 1000, "dec_depth": 1000, "max_positions": 2**14,
}  # fmt: skip
"""The largest sizes; what is above is a slip of the hand, or meant to take all memory."""

DEFAULTS = {"norm": "pre", "activation": "relu", "decoder_autoreg": "self-attention"}
"""Of options that no preset gives, where nobody gave them: else they could not be refused where they mean nothing."""


@dataclass(frozen=True)
class ModelConfiguration:
    """Everything that fixes a model's function besides its parameters; saved with every checkpoint.

    Sizes are counts of units, subwords or layers; dropout and label smoothing are probabilities. Fields that mean
    nothing in a model (`OF_ONE_MODEL`) are 0 or empty there.
    """

    source_vocabulary: int
    target_vocabulary: int
    dim_emb: int
    heads: int
    dim_ffn: int
    enc_depth: int
    dec_depth: int
    norm: str
    activation: str
    dropout: float
    tied: str
    max_positions: int = 1024
    model: str = "transformer"
    dim_rnn: int = 0
    decoder_autoreg: str = "self-attention"

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for a manifest, the model's name first; without those that mean nothing in this model."""
        values = dataclasses.asdict(self)
        return {"model": values.pop("model")} | {
            name: value for name, value in values.items() if OF_ONE_MODEL.get(name, self.model) == self.model
        }

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ModelConfiguration:
        """What `as_mapping` gave; what is not said is what it was before that could be chosen.

        Raises:
            TypeError: a field is missing, unknown, of another type, or another model's.
            ValueError: a size that no model has.
        """
        model = values.get("model", "transformer")
        meaningless: dict[str, Any] = {
            field.name: "" if field.type == "str" else 0
            for field in dataclasses.fields(cls)
            if OF_ONE_MODEL.get(field.name, model) != model
        }
        for name in meaningless.keys() & values.keys():
            raise TypeError(f"{name} means nothing in a model of type {model}")
        configuration = as_dataclass(cls, meaningless | dict(values))
        configuration._check_sizes()
        return configuration

    def _check_sizes(self) -> None:
        """Refuses what could be built only with more memory than there is, or not at all."""
        for name, most in MOST.items():
            least = 0 if OF_ONE_MODEL.get(name, self.model) != self.model else 1
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} is {getattr(self, name)} and not from 1 to {most:,}")
        if self.heads and (self.dim_emb % self.heads or self.dim_emb % 2):
            raise ValueError(f"dim_emb is {self.dim_emb}, odd or no multiple of {self.heads} heads")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout} and not a probability below 1")
        if self.tied not in ("all", "target", "none"):
            raise ValueError(f"tied is {shown(self.tied)}")
        if self.model == "transformer" and self.norm not in NORMS:
            raise ValueError(f"norm is {shown(self.norm)}")
        if self.model == "transformer" and self.decoder_autoreg not in DECODER_AUTOREG:
            raise ValueError(f"decoder_autoreg is {shown(self.decoder_autoreg)}")
        if self.norm == "none" and self.decoder_autoreg == "ssru":
            raise ValueError("its decoder has SSRUs and no layer normalisation, which is not computed here")


PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "transformer": {
        "tiny": {"dim_emb": 128, "heads": 4, "dim_ffn": 512, "enc_depth": 2, "dec_depth": 2, "dropout": 0.1},
        "small": {"dim_emb": 256, "heads": 4, "dim_ffn": 1024, "enc_depth": 3, "dec_depth": 3, "dropout": 0.1},
        # Vaswani et al. 2017, table 3: base and big (its EN-DE dropout).
        "base": {"dim_emb": 512, "heads": 8, "dim_ffn": 2048, "enc_depth": 6, "dec_depth": 6, "dropout": 0.1},
        "big": {"dim_emb": 1024, "heads": 16, "dim_ffn": 4096, "enc_depth": 6, "dec_depth": 6, "dropout": 0.3},
    },
    # About as many parameters as the Transformer's; base has Nematus' and Marian's widths.
    "rnn": {
        "tiny": {"dim_emb": 128, "dim_rnn": 160, "enc_depth": 1, "dec_depth": 1, "dropout": 0.1},
        "small": {"dim_emb": 256, "dim_rnn": 416, "enc_depth": 1, "dec_depth": 1, "dropout": 0.1},
        "base": {"dim_emb": 512, "dim_rnn": 1024, "enc_depth": 2, "dec_depth": 1, "dropout": 0.1},
        "big": {"dim_emb": 1024, "dim_rnn": 2048, "enc_depth": 2, "dec_depth": 1, "dropout": 0.3},
    },
}


def model_named(text: str) -> str:
    """The model of that name, ours or Marian's.

    Raises:
        UserError: there is none.
    """
    name = MARIANS_NAMES.get(text, text)
    if name not in MODELS:
        raise UserError(f"{shown(text)} is not known; choose one of {', '.join(MODELS)}.")
    return name


def model_title(model: str, preset: str) -> str:
    """What a run's title calls its model: the preset, after the model's name where it is not the usual one."""
    return preset if model == "transformer" else f"{model} {preset}"


@dataclass(frozen=True)
class ModelOptions:
    """The options of the model; what is not given comes from the preset."""

    model: str = option(
        "transformer",
        "A Transformer, or a recurrent model with attention (Marian's s2s).",
        group=GROUP,
        flags=("--model", "--type"),
        parse=model_named,
        metavar="transformer|rnn",
    )
    preset: str = option("small", "Sizes of the model.", group=GROUP, choices=tuple(PRESETS["transformer"]))
    dim_emb: int | None = option(
        None, "Width of embeddings, and of a Transformer's layers (default: the preset's).", group=GROUP
    )
    dim_rnn: int | None = option(
        None, "rnn: width of recurrent states (default: the preset's).", group=GROUP, only_with={"model": "rnn"}
    )
    heads: int | None = option(
        None,
        "transformer: attention heads; the width must be a multiple of their number.",
        group=GROUP,
        only_with={"model": "transformer"},
        flags=("--heads", "--transformer-heads"),
    )
    dim_ffn: int | None = option(
        None,
        "transformer: width inside feed-forward layers.",
        group=GROUP,
        only_with={"model": "transformer"},
        flags=("--dim-ffn", "--transformer-dim-ffn"),
    )
    enc_depth: int | None = option(None, "Encoder layers.", group=GROUP)
    dec_depth: int | None = option(None, "Decoder layers.", group=GROUP)
    norm: str | None = option(
        None,
        "transformer: normalise before each sub-layer (pre, the default; Marian: preprocess n, "
        "postprocess da), after it (post; Marian: postprocess dan), or nowhere (none; Marian: postprocess da), "
        "which --init t-fixup makes trainable, also without warm-up.",
        group=GROUP,
        only_with={"model": "transformer"},
        choices=NORMS,
    )
    activation: str | None = option(
        None,
        "transformer: non-linearity of feed-forward layers (default: relu).",
        group=GROUP,
        only_with={"model": "transformer"},
        choices=("relu", "swish", "gelu"),
        flags=("--activation", "--transformer-ffn-activation"),
    )
    decoder_autoreg: str | None = option(
        None,
        "transformer: how the decoder reads the words that it has written; ssru is a recurrence and "
        "makes translating cheaper (default: self-attention; Marian: transformer-decoder-autoreg rnn,"
        " dec-cell ssru).",
        group=GROUP,
        only_with={"model": "transformer"},
        choices=DECODER_AUTOREG,
    )
    dropout: float | None = option(
        None,
        "Dropout after embeddings and sub-layers; in rnn after embeddings, after the encoder and "
        "before the output (default: the preset's).",
        group=GROUP,
        flags=("--dropout", "--transformer-dropout"),
    )
    tied_embeddings: str = option(
        "auto",
        "Which embeddings share one matrix. all: source, target and output; target: target and "
        "output; auto: all with a joint vocabulary, else target.",
        group=GROUP,
        choices=("auto", "all", "target", "none"),
    )

    def configuration(self, source_vocabulary: int, target_vocabulary: int, joint: bool) -> ModelConfiguration:
        """The preset with its changes, for vocabularies of the given sizes (subwords).

        Raises:
            UserError: sizes that do not fit together.
        """
        check_together(self)
        sizes = dict(PRESETS[self.model][self.preset])
        for name in sizes:
            value = getattr(self, name)
            if value is not None:
                sizes[name] = value
        for name in set(sizes) - {"dropout"}:
            if not 1 <= sizes[name] <= MOST[name]:
                raise UserError(f"--{name.replace('_', '-')}: {sizes[name]} is not a size from 1 to {MOST[name]:,}.")
        width = sizes["dim_emb"]
        if self.model == "transformer" and (width % sizes["heads"] or width % 2 or width < 4):
            raise UserError(f"--dim-emb {width} must be even, at least 4 and a multiple of --heads {sizes['heads']}.")
        if not 0.0 <= sizes["dropout"] < 1.0:
            raise UserError(f"--dropout: {sizes['dropout']} is not a probability below 1.")
        if self.norm == "none" and self.decoder_autoreg == "ssru":
            raise UserError(
                "--norm none does not go with --decoder-autoreg ssru: T-Fixup, which makes models without layer "
                "normalisation trainable, has no scale for an SSRU, whose output no second matrix multiplies; choose "
                "another --norm, or self-attention."
            )
        tied = self.tied_embeddings
        if tied == "auto":
            tied = "all" if joint else "target"
        if tied == "all" and not joint:
            raise UserError("--tied-embeddings all needs a joint vocabulary; this data has one for each language.")
        words = {
            name: getattr(self, name) or default
            for name, default in DEFAULTS.items()
            if OF_ONE_MODEL[name] == self.model
        }
        return ModelConfiguration.from_mapping(
            {
                "model": self.model,
                "source_vocabulary": source_vocabulary,
                "target_vocabulary": target_vocabulary,
                "tied": tied,
                **sizes,
                **words,
            }
        )


@dataclass(frozen=True)
class TrainedModelOptions(ModelOptions):
    """The same of a model that is to be trained, and how its parameters begin."""

    init: str | None = option(
        None,
        "transformer: how parameters begin. glorot: by the sizes of their matrix, as in Marian (the default with "
        "--norm pre and post); t-fixup: for --norm none, smaller the deeper the model is (the default there).",
        group=GROUP,
        only_with={"model": "transformer", "init_from": NOT_GIVEN},
        choices=INITIALISATIONS,
    )

    def configuration(self, source_vocabulary: int, target_vocabulary: int, joint: bool) -> ModelConfiguration:
        """See `ModelOptions`; refuses an initialisation that is not the model's, too."""
        norm = self.norm or DEFAULTS["norm"]
        if self.init == "t-fixup" and norm != "none":
            raise UserError(
                f"--init t-fixup is for models without layer normalisation, and --norm is {norm}; give --norm none, or "
                f"leave --init out."
            )
        return super().configuration(source_vocabulary, target_vocabulary, joint)
