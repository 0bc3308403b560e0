"""What a model is made of: its sizes, the presets that name them, and the options that change them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import UserError
from nmt_async.options import option

GROUP = "Model"


@dataclass(frozen=True)
class ModelConfiguration:
    """Everything that fixes a model's function besides its parameters; saved with every checkpoint.

    Sizes are counts of units, subwords or layers; dropout and label smoothing are probabilities.
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

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return dataclasses.asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"dim_emb": 128, "heads": 4, "dim_ffn": 512, "enc_depth": 2, "dec_depth": 2, "dropout": 0.1},
    "small": {"dim_emb": 256, "heads": 4, "dim_ffn": 1024, "enc_depth": 3, "dec_depth": 3, "dropout": 0.1},
    # Vaswani et al. 2017, table 3: base and big (its EN-DE dropout).
    "base": {"dim_emb": 512, "heads": 8, "dim_ffn": 2048, "enc_depth": 6, "dec_depth": 6, "dropout": 0.1},
    "big": {"dim_emb": 1024, "heads": 16, "dim_ffn": 4096, "enc_depth": 6, "dec_depth": 6, "dropout": 0.3},
}


@dataclass(frozen=True)
class ModelOptions:
    """The options of the model; what is not given comes from the preset."""

    preset: str = option("small", "Sizes of the model.", group=GROUP, choices=tuple(PRESETS))
    dim_emb: int | None = option(None, "Width of embeddings and layers (else the preset's).", group=GROUP)
    heads: int | None = option(
        None, "Attention heads; they divide the width.", group=GROUP, flags=("--heads", "--transformer-heads")
    )
    dim_ffn: int | None = option(
        None, "Width inside feed-forward layers.", group=GROUP, flags=("--dim-ffn", "--transformer-dim-ffn")
    )
    enc_depth: int | None = option(None, "Encoder layers.", group=GROUP)
    dec_depth: int | None = option(None, "Decoder layers.", group=GROUP)
    norm: str = option(
        "pre",
        "Layer normalisation before each sub-layer (Marian: preprocess n, postprocess da) or after (postprocess dan).",
        group=GROUP,
        choices=("pre", "post"),
    )
    activation: str = option(
        "relu",
        "Non-linearity of feed-forward layers.",
        group=GROUP,
        choices=("relu", "swish", "gelu"),
        flags=("--activation", "--transformer-ffn-activation"),
    )
    dropout: float | None = option(
        None,
        "Dropout after embeddings and sub-layers (else the preset's).",
        group=GROUP,
        flags=("--dropout", "--transformer-dropout"),
    )
    tied_embeddings: str = option(
        "auto",
        "Matrices that are one: all three embeddings, target embedding and output (target), or none; "
        "auto: all with a joint vocabulary, else target.",
        group=GROUP,
        choices=("auto", "all", "target", "none"),
    )

    def configuration(self, source_vocabulary: int, target_vocabulary: int, joint: bool) -> ModelConfiguration:
        """The preset with its changes, for vocabularies of the given sizes (subwords).

        Raises:
            UserError: sizes that do not fit together.
        """
        sizes = dict(PRESETS[self.preset])
        for name in sizes:
            value = getattr(self, name)
            if value is not None:
                sizes[name] = value
        for name in ("dim_emb", "heads", "dim_ffn", "enc_depth", "dec_depth"):
            if sizes[name] < 1:
                raise UserError(f"--{name.replace('_', '-')}: {sizes[name]} is too small; give 1 or more.")
        if sizes["dim_emb"] % sizes["heads"] or sizes["dim_emb"] % 2 or sizes["dim_emb"] < 4:
            raise UserError(
                f"--dim-emb {sizes['dim_emb']} must be even, at least 4 and a multiple of --heads {sizes['heads']}."
            )
        if not 0.0 <= sizes["dropout"] < 1.0:
            raise UserError(f"--dropout: {sizes['dropout']} is not a probability below 1.")
        tied = self.tied_embeddings
        if tied == "auto":
            tied = "all" if joint else "target"
        if tied == "all" and not joint:
            raise UserError("--tied-embeddings all needs a joint vocabulary; this data has one for each language.")
        return ModelConfiguration(
            source_vocabulary=source_vocabulary,
            target_vocabulary=target_vocabulary,
            norm=self.norm,
            activation=self.activation,
            tied=tied,
            **sizes,
        )
