"""The options of scoring: of `Scorer`, and of the commands ``score`` and ``evaluate``. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt_async.errors import UserError, shown
from nmt_async.options import GIVEN, NOT_GIVEN, check_together, flag_of, is_given, option
from nmt_async.search import Penalties, Weights
from nmt_async.search.options import GREEDY
from nmt_async.translate.formats import FORMATS
from nmt_async.translate.options import COMPUTING, FILES, ComputingOptions, DecodingOptions, check_tag

SCORES = "Scores"
SCORING = "Scoring"
N_BEST = "N-best lists"
FILTER = "Filtering"

SUMMARY_NAMES = ("cross-entropy", "ce-mean-words", "ce-sum", "perplexity")
"""Marian's: per pair, per subword, of all; in nats but for the last."""

RANKING = ("normalize", "word_penalty")
"""Options that mean nothing where nothing is ranked."""

OF_EACH_PAIR = {"summary": NOT_GIVEN, "n_best": NOT_GIVEN, "backward": NOT_GIVEN}
"""Where scores are printed with their penalties; all else goes by log-probabilities."""


@dataclass(frozen=True)
class ScoringOptions(ComputingOptions):
    """How pairs are scored.

    Raises:
        UserError: a value that makes no sense.
    """

    normalize: float = option(
        0.0, "Divide the normalised score by the length to this power; 0: do not divide.",
        group=SCORES, flags=("--normalize", "-n"), only_with=OF_EACH_PAIR,
    )  # fmt: skip
    word_penalty: float = option(
        0.0, "Subtract this from the normalised score for each subword, before --normalize divides the "
        "score.", group=SCORES,
        only_with=OF_EACH_PAIR,
    )  # fmt: skip
    max_length: int = option(
        512, "Longest source in subwords, end mark included; the longest target has four times as many. A "
        "longer one is cut there, with a warning.", group=SCORES,
    )  # fmt: skip
    tag: str | None = option(
        None, "Put this word before each source line, a tag that the model was trained with.", group=SCORES,
        metavar="WORD",
    )  # fmt: skip
    mini_batch_words: int = option(
        2048, "Subwords of either side computed at once, padding included; this limits memory.",
        group=COMPUTING,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        self.penalties.check()
        if self.max_length < 2:
            raise UserError(f"--max-length: {self.max_length} is too small; give 2 or more.")
        check_tag(self.tag)

    @property
    def penalties(self) -> Penalties:
        """What makes the normalised score of the score."""
        return Penalties(self.normalize, self.word_penalty)


def check_chosen(threshold: float | None, best_share: float | None) -> None:
    """Raises UserError where pairs cannot be chosen by such a score, or such a share of them."""
    for flag, value in (("--threshold", threshold), ("--best-share", best_share)):
        if value is not None and not 0.0 < value <= 1.0:
            raise UserError(f"{flag}: {value:g} is not above 0 and at most 1.")


@dataclass(frozen=True)
class ScoreOptions(ScoringOptions):
    """The options of score."""

    source: Path | None = option(
        None, "Text in the source language, plain, gzip or zstd; - for standard input.",
        group=FILES, flags=("--source", "-s"), metavar="FILE",
    )  # fmt: skip
    target: Path | None = option(
        None, "Its translation, line by line, or with --n-best a list of hypotheses.",
        group=FILES, flags=("--target", "-t"), metavar="FILE",
    )  # fmt: skip
    output: Path | None = option(
        None, "File for the scores (default: standard output).", group=FILES, flags=("--output", "-o"), metavar="FILE"
    )
    strict: bool = option(
        False, "Refuse a line that is not UTF-8. Without this, U+FFFD takes the place of what cannot be "
        "read, with a warning.",
        group=FILES, flags=("--strict",),
    )  # fmt: skip
    target_pieces: bool = option(
        False, "The target's lines are subwords, with spaces between, as translate --word-scores gives them.",
        group=FILES, flags=("--target-pieces",), only_with={"n_best": NOT_GIVEN, "backward": NOT_GIVEN},
    )  # fmt: skip
    format: str = option(
        "text", "text: the score (after --normalize and --word-penalty); tsv: line, score, normalised; jsonl: by name.",
        group=SCORES, choices=FORMATS, only_with=(
            {"n_best": NOT_GIVEN, "summary": NOT_GIVEN, "kept_source": NOT_GIVEN},
            {"n_best": NOT_GIVEN, "summary": NOT_GIVEN, "output": GIVEN},
        ),
    )  # fmt: skip
    model_weights: Weights | None = option(
        None, "Weights of several models' log-probabilities, as in 0.7,0.3 (default: all the same).", group=SCORES,
        metavar="LIST", parse=Weights.parse,
    )  # fmt: skip
    word_scores: bool = option(
        False, "Print subwords and the log-probability of each and of the end mark.",
        group=SCORES, flags=("--word-scores",),
        only_with={"n_best": NOT_GIVEN, "backward": NOT_GIVEN, "summary": NOT_GIVEN},
    )  # fmt: skip
    summary: str | None = option(
        None, "Print one figure for all pairs together, in nats (perplexity has no unit).",
        group=SCORES, choices=SUMMARY_NAMES, only_with={"n_best": NOT_GIVEN, "backward": NOT_GIVEN},
    )  # fmt: skip
    n_best: bool = option(
        False, "Score the hypotheses of an n-best list in Marian's form, NUMBER ||| TEXT ||| FEATURES ||| SCORE.",
        group=N_BEST, flags=("--n-best",), only_with={"backward": NOT_GIVEN},
    )  # fmt: skip
    n_best_feature: str = option(
        "Score", "Name of the feature that is added to the list.", group=N_BEST, only_with={"n_best": GIVEN}
    )
    weights: tuple[str, ...] = option(
        (), "Rank hypotheses anew by a weighted sum of features; give this option once for each, as "
        "FEATURE=WEIGHT.",
        group=N_BEST, flags=("--weights",), metavar="FEATURE=WEIGHT", only_with={"n_best": GIVEN},
        hint="weights of models are --model-weights",
    )  # fmt: skip
    backward: Path | None = option(
        None, "Model from target to source: scores are dual conditional cross-entropy (Junczys-Dowmunt 2018), 0 to 1.",
        group=FILTER, metavar="RUN",
    )  # fmt: skip
    threshold: float | None = option(
        None, "Keep pairs with at least this dual score.", group=FILTER,
        only_with={"backward": GIVEN, "best_share": NOT_GIVEN},
    )  # fmt: skip
    best_share: float | None = option(
        None, "Keep this share of the pairs, 0.5 for the better half.", group=FILTER, only_with={"backward": GIVEN}
    )
    kept_source: Path | None = option(
        None, "File for the sources of kept pairs.", group=FILTER, metavar="FILE", only_with={"backward": GIVEN}
    )
    kept_target: Path | None = option(
        None, "File for the targets of kept pairs.", group=FILTER, metavar="FILE", only_with={"backward": GIVEN}
    )

    def __post_init__(self) -> None:
        check_together(self)
        super().__post_init__()
        check_chosen(self.threshold, self.best_share)
        if self.n_best_feature.split() != [self.n_best_feature] or any(sign in self.n_best_feature for sign in "=|"):
            raise UserError(f"--n-best-feature: {shown(self.n_best_feature)} is not a word without =, | and spaces.")
        kept = [self.kept_source, self.kept_target]
        if (self.filters and None in kept) or (not self.filters and kept != [None, None]):
            raise UserError(
                "filtering needs --threshold or --best-share, and --kept-source and --kept-target for what is kept."
            )
        written = [path.absolute() for path in (self.output, *kept) if path is not None]
        if len(set(written)) < len(written):
            raise UserError("--output, --kept-source and --kept-target name one file twice; give each its own.")

    @property
    def filters(self) -> bool:
        """Whether pairs are chosen."""
        return self.threshold is not None or self.best_share is not None

    @property
    def feature_weights(self) -> dict[str, float]:
        """The weights by feature.

        Raises:
            UserError: one is not in the form.
        """
        found = {}
        for written in self.weights:
            name, _, weight = written.rpartition("=")
            try:
                found[name.rstrip("=")] = float(weight)
                if not name.rstrip("=") or not math.isfinite(float(weight)):
                    raise ValueError
            except ValueError:
                raise UserError(f"--weights: {shown(written)} is not FEATURE=WEIGHT, such as F0=0.5.") from None
        return found


@dataclass(frozen=True)
class EvaluateOptions(DecodingOptions):
    """The options of evaluate."""

    reference: Path | None = option(
        None, "The correct translation, plain, gzip or zstd.", group=SCORING, flags=("--reference", "-r"),
        metavar="FILE",
    )  # fmt: skip
    hypothesis: Path | None = option(
        None, "The translation to score; - for standard input.", group=SCORING, metavar="FILE",
        excludes=[field.name for field in dataclasses.fields(DecodingOptions)],
    )  # fmt: skip
    source: Path | None = option(
        None, "Text that the model of RUN translates; this translation is scored.", group=SCORING, metavar="FILE"
    )
    bootstrap: int = option(1000, "Samples for the confidence intervals; 0: no intervals.", group=SCORING)
    json: bool = option(False, "Print the scores as JSON.", group=SCORING, flags=("--json",))

    def _refuse(self, names: Sequence[str], beside: str) -> None:
        for field in dataclasses.fields(self):
            if field.name in names and is_given(field, getattr(self, field.name)):
                raise UserError(f"{flag_of(field)} means nothing with {beside}; leave it out.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_sampling is not None:  # one sample of each line
            self._refuse(("beam_size", *RANKING), "--output-sampling")
        elif self.beam_size == GREEDY:
            self._refuse(RANKING, f"--beam-size {GREEDY}")
        if self.bootstrap != 0 and not 40 <= self.bootstrap <= 1_000_000:
            raise UserError(f"--bootstrap: {self.bootstrap} samples give no 95 % interval; give 1000, or 0 for none.")
