"""The options of translating, the same for ``translate``, ``evaluate`` and validation during training."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nmt_async.errors import UserError, shown
from nmt_async.model.linear import PRECISIONS
from nmt_async.options import GIVEN, NOT_GIVEN, option
from nmt_async.search.ensemble import Weights
from nmt_async.search.options import Search
from nmt_async.search.penalties import Penalties
from nmt_async.search.sampling_method import SYNTAX, SamplingMethod

SEARCH = "Search"
COMPUTING = "Computing"


WIDEST_BEAM = 1000
WITH_RANKS = ({"output_sampling": NOT_GIVEN}, {"n_best": GIVEN}, {"format": ("tsv", "jsonl")})
"""Where hypotheses are ranked, or what they are ranked by is printed."""


@dataclass(frozen=True)
class ComputingOptions:
    """With what, and how much of it at once, lines are computed.

    Raises:
        UserError: a value that makes no sense.
    """

    mini_batch: int = option(64, "Sentences computed at once.", group=COMPUTING)
    mini_batch_words: int = option(4096, "Subwords computed at once, padding counted; bounds memory.", group=COMPUTING)
    maxi_batch: int = option(
        16, "Mini-batches read ahead, where input is ready, and sorted by length.", group=COMPUTING
    )
    device: str = option("cpu", "Where to compute: cpu, cuda or, for example, cuda:1.", group=COMPUTING)
    threads: int | None = option(
        None, "CPU threads (else torch's choice: the cores).", group=COMPUTING, flags=("--threads", "--cpu-threads")
    )

    def __post_init__(self) -> None:
        for name in ("mini_batch", "mini_batch_words", "maxi_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give 1 or more.")


@dataclass(frozen=True)
class DecodingOptions(ComputingOptions):
    """How lines are translated.

    Raises:
        UserError: a value that makes no sense.
    """

    beam_size: int = option(
        5, "Hypotheses followed for each sentence; 1 is greedy search.", group=SEARCH, flags=("--beam-size", "-b"),
        only_with=({"output_sampling": NOT_GIVEN}, {"n_best": GIVEN}),
    )  # fmt: skip
    normalize: float = option(
        0.6, "Exponent of the length by which a hypothesis' score is divided; 0 for none.",
        group=SEARCH, flags=("--normalize", "-n"), only_with=WITH_RANKS,
    )  # fmt: skip
    word_penalty: float = option(
        0.0, "Subtracted from a hypothesis' score for each subword, before --normalize divides it.", group=SEARCH,
        only_with=WITH_RANKS,
    )  # fmt: skip
    allow_unk: bool = option(
        False, "Let translations hold <unk>, the mark of an unknown subword.", group=SEARCH, flags=("--allow-unk",)
    )
    min_target_length: int = option(
        1, "Shortest translation in subwords, end mark counted, as far as the longest allows.", group=SEARCH
    )
    max_target_length: int | None = option(
        None, "Longest translation in subwords, end mark counted (else --max-length-factor alone says).", group=SEARCH
    )
    min_length_factor: float = option(
        0.0, "Shortest translation, as a multiple of its source's subwords; 0 for none.", group=SEARCH
    )
    no_repeat_ngram_size: int = option(
        0, "No run of so many subwords stands twice in a translation; 0 lets any.", group=SEARCH
    )
    weights: Weights | None = option(
        None, "Weights of several models' log-probabilities, as in 0.7,0.3 (else all the same).", group=SEARCH,
        metavar="LIST", parse=Weights.parse,
    )  # fmt: skip
    output_sampling: SamplingMethod | None = option(
        None, f"Draw translations at random instead of searching for the best: {SYNTAX}, in quotation marks.",
        group=SEARCH, metavar="HOW", parse=SamplingMethod.parse,
    )  # fmt: skip
    seed: int = option(
        1, "Of --output-sampling: with the same seed a line gets the same translation, wherever it stands.",
        group=SEARCH, only_with={"output_sampling": GIVEN},
    )  # fmt: skip
    max_length: int = option(
        512, "Longest source in subwords, end mark counted; a longer one is cut there, with a warning.", group=SEARCH
    )
    max_length_factor: float = option(
        3.0, "Longest translation, as a multiple of its source's subwords (and 10 more).", group=SEARCH
    )
    precision: str = option(
        "float32", "Numbers that matrices are multiplied in; int8: about one and a half times as fast on a CPU, "
        "scores are a little off.",
        group=COMPUTING, choices=PRECISIONS,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision: {shown(self.precision)} is not known; give {' or '.join(PRECISIONS)}.")
        for name, least in {"beam_size": 1, "max_length": 2}.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')}: {getattr(self, name)} is too small; give {least} or more."
                )
        if self.beam_size > WIDEST_BEAM:
            raise UserError(f"--beam-size: {self.beam_size:,} is too large; give {WIDEST_BEAM:,} or less.")
        Penalties(self.normalize, self.word_penalty).check()
        self._check_search()
        if not 0.0 < self.max_length_factor <= 1000.0:
            raise UserError(f"--max-length-factor: {self.max_length_factor:g} is not above 0 and at most 1000.")

    def _check_search(self) -> None:
        least = {"min_target_length": 1, "max_target_length": 1, "no_repeat_ngram_size": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give {smallest} or more.")
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

    def search(self, wanted: int = 1, alignment: bool = False) -> Search:
        """The part that a search needs, to return ``wanted`` hypotheses a sentence, with alignments if asked for."""
        return Search(
            self.beam_size, self.normalize, self.max_length_factor, wanted=min(wanted, self.beam_size),
            word_penalty=self.word_penalty, allow_unknown=self.allow_unk, max_length=self.max_target_length,
            min_length=self.min_target_length, min_length_factor=self.min_length_factor,
            no_repeat_ngram=self.no_repeat_ngram_size, sampling=self.output_sampling, seed=self.seed,
            alignment=alignment,
        )  # fmt: skip


def device_of(name: str, flag: str = "--device") -> torch.device:
    """The device called ``name``: ``cpu``, ``cuda``, ``cuda:1``; ``flag`` is the option that messages name.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, OverflowError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"{flag}: {shown(name)} is not known; give cpu, cuda or, for example, cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        found = f"only {count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
        raise UserError(f"{flag} {name}: torch finds {found} here; give {flag} cpu.")
    return device


def use_device(options: ComputingOptions) -> torch.device:
    """The device the options name; from here on this process computes with as many CPU threads as they say.

    Raises:
        UserError: there is no such device.
    """
    device = device_of(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return device
