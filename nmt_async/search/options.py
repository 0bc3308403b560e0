"""How to search: the options of the commands that translate, each declared once, in `SearchOptions`.

What a search is told, `Search`, is these and what is wanted of it. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nmt_async.errors import UserError, shown
from nmt_async.options import GIVEN, NOT_GIVEN, OtherThan, option
from nmt_async.search.penalties import Penalties

if TYPE_CHECKING:
    from torch import Tensor

SEARCH = "Search"
WIDEST_BEAM = 1000
GREEDY = 1
"""The beam of greedy search, which follows one hypothesis and so ranks none."""
WITH_RANKS = (
    {"output_sampling": NOT_GIVEN, "beam_size": OtherThan(GREEDY)}, {"n_best": GIVEN}, {"format": ("tsv", "jsonl")},
)  # fmt: skip
"""Where hypotheses are ranked, or what they are ranked by is printed."""

FULL, TOP_K, NUCLEUS = "full", "topk", "nucleus"
SYNTAX = "full [TEMPERATURE], topk K [TEMPERATURE] or nucleus P [TEMPERATURE]"


@dataclass(frozen=True)
class SamplingMethod:
    """How the next subword is drawn, as Marian's ``--output-sampling``; `nmt_async.search.sampling.draw` does it.

    Attributes:
        kind: ``full``; ``topk``: the `top_k` likeliest subwords (Fan et al. 2018); ``nucleus``: the likeliest ones that
            together have the probability `top_p`, the one that reaches it included (Holtzman et al. 2020).
        temperature: log-probabilities of those are divided by it; the nucleus is found before.
    """

    kind: str = FULL
    top_k: int = 10
    top_p: float = 0.9
    temperature: float = 1.0

    @classmethod
    def parse(cls, text: str) -> SamplingMethod:
        """``full``, ``full 0.8``, ``topk 10``, ``topk 10 0.8``, ``nucleus 0.9 0.8``; commas or colons for spaces.

        Raises:
            UserError: it is none of them.
        """
        kind, *numbers = re.split(r"[\s,:]+", text.strip())
        most = 1 if kind == FULL else 2
        try:
            values = [float(number) for number in numbers]
        except ValueError:
            values = [math.nan]
        if (
            kind not in (FULL, TOP_K, NUCLEUS)
            or len(values) > most
            or not all(0 < value < math.inf for value in values)
        ):
            raise UserError(f"{shown(text)} is not a way to sample; give {SYNTAX}.")
        size = values.pop(0) if values and kind != FULL else None
        temperature = values[0] if values else 1.0
        if kind == TOP_K and size is not None and not size.is_integer():
            raise UserError(f"{shown(text)}: {size:g} is not a number of subwords; give {SYNTAX}.")
        if kind == NUCLEUS and size is not None and size > 1:
            raise UserError(f"{shown(text)}: {size:g} is not a probability; give {SYNTAX}.")
        top_k = int(size) if kind == TOP_K and size is not None else cls.top_k
        top_p = size if kind == NUCLEUS and size is not None else cls.top_p
        return cls(kind, top_k, top_p, temperature)

    def __str__(self) -> str:
        size = {FULL: "", TOP_K: f" {self.top_k}", NUCLEUS: f" {self.top_p!r}"}[self.kind]
        return f"{self.kind}{size} {self.temperature!r}"


@dataclass(frozen=True)
class SearchOptions:
    """How a translation is found. Lengths are in subwords and count the end mark.

    Raises:
        UserError: a value that makes no sense.
    """

    beam_size: int = option(
        5, "Hypotheses followed for each sentence; 1 is greedy search.", group=SEARCH, flags=("--beam-size", "-b"),
        only_with=({"output_sampling": NOT_GIVEN}, {"n_best": GIVEN}),
    )  # fmt: skip
    normalize: float = option(
        0.6, "Divide the score of a hypothesis by its length to this power; 0: do not divide.",
        group=SEARCH, flags=("--normalize", "-n"), only_with=WITH_RANKS,
    )  # fmt: skip
    word_penalty: float = option(
        0.0, "Subtract this from the score of a hypothesis for each subword, before --normalize divides "
        "the score.", group=SEARCH,
        only_with=WITH_RANKS,
    )  # fmt: skip
    allow_unk: bool = option(
        False, "Let translations hold <unk>, the mark of an unknown subword.", group=SEARCH, flags=("--allow-unk",)
    )
    min_target_length: int = option(
        1, "Shortest translation in subwords, end mark included, if the longest length allows it.", group=SEARCH
    )
    max_target_length: int | None = option(
        None,
        "Longest translation in subwords, end mark included (default: only --max-length-factor limits it).",
        group=SEARCH,
    )
    min_length_factor: float = option(
        0.0, "Shortest translation, as a multiple of its source's subwords; 0 for none.", group=SEARCH
    )
    max_length_factor: float = option(
        3.0, "Longest translation, as a multiple of its source's subwords (and 10 more).", group=SEARCH
    )
    no_repeat_ngram_size: int = option(
        0, "Let no sequence of so many subwords occur twice in a translation; 0: allow it.", group=SEARCH
    )
    output_sampling: SamplingMethod | None = option(
        None, f"Draw translations at random instead of searching for the best: {SYNTAX}, in quotation marks.",
        group=SEARCH, metavar="HOW", parse=SamplingMethod.parse,
    )  # fmt: skip
    seed: int = option(
        1, "Seed of --output-sampling.",
        group=SEARCH, only_with={"output_sampling": GIVEN},
    )  # fmt: skip

    def __post_init__(self) -> None:
        least = {"beam_size": 1, "min_target_length": 1, "max_target_length": 1, "no_repeat_ngram_size": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give {smallest} or more.")
        if self.beam_size > WIDEST_BEAM:
            raise UserError(f"--beam-size: {self.beam_size:,} is too large; give {WIDEST_BEAM:,} or less.")
        self.penalties.check()
        if not 0.0 < self.max_length_factor <= 1000.0:
            raise UserError(f"--max-length-factor: {self.max_length_factor:g} is not above 0 and at most 1000.")
        if not 0.0 <= self.min_length_factor <= self.max_length_factor:
            raise UserError(
                f"--min-length-factor: {self.min_length_factor:g} is not from 0 to "
                f"--max-length-factor ({self.max_length_factor:g})."
            )
        if self.max_target_length is not None and self.min_target_length > self.max_target_length:
            raise UserError(
                f"--min-target-length: {self.min_target_length} is more than "
                f"--max-target-length ({self.max_target_length})."
            )
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed: {self.seed} is not from 0 to 2^63 - 1.")

    @property
    def penalties(self) -> Penalties:
        """What hypotheses that have ended are ranked by."""
        return Penalties(self.normalize, self.word_penalty)

    def search(self, wanted: int = 1, alignment: bool = False) -> Search:
        """A search with these options for ``wanted`` hypotheses a sentence, with alignments if asked for."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(SearchOptions)}
        return Search(**told, wanted=min(wanted, self.beam_size), alignment=alignment)


@dataclass(frozen=True)
class Search(SearchOptions):
    """What one search is told: its options, and what is wanted of it.

    Attributes:
        wanted: hypotheses to return for a sentence, at most ``beam_size``; samples to draw where that is asked for.
        alignment: hypotheses come with what each of their subwords looked at.
        extra_length: subwords that a translation may have beyond ``max_length_factor`` times its source's.
    """

    wanted: int = 1
    alignment: bool = False
    extra_length: int = 10

    def limits(self, source_lengths: Tensor) -> Tensor:
        """Longest translations for sources of these lengths, both (sentences,), int64."""
        limits = (source_lengths * self.max_length_factor).long() + self.extra_length
        return limits if self.max_target_length is None else limits.clamp(max=self.max_target_length)

    def least_lengths(self, source_lengths: Tensor) -> Tensor:
        """Shortest translations for sources of these lengths, both (sentences,), int64."""
        return (source_lengths * self.min_length_factor).long().clamp(min=self.min_target_length)


LARGEST_WEIGHT = 1000.0
"""With far larger ones, log-probabilities are no finite numbers any more and nothing is found."""


@dataclass(frozen=True)
class Weights:
    """Of several models' log-probabilities, as Marian's ``--weights``: one for each, at most `LARGEST_WEIGHT`."""

    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Weights:
        """Numbers with commas or spaces between them.

        Raises:
            UserError: they are not numbers from 0 to `LARGEST_WEIGHT`, or all are 0.
        """
        try:
            values = tuple(float(part) for part in re.split(r"[\s,]+", text.strip()))
        except ValueError:
            values = ()
        if not any(values) or not all(0 <= value <= LARGEST_WEIGHT for value in values):
            raise UserError(
                f"{shown(text)} are not weights; give a number from 0 to {LARGEST_WEIGHT:g} for each model, "
                f"such as 0.7,0.3."
            )
        return cls(values)

    def __str__(self) -> str:
        return ",".join(map(repr, self.values))
