"""The options of translating: of the search, of computing, and of the command ``translate``. None needs torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nmt_async.devices import ALL_GPUS, FIRST_GPU
from nmt_async.errors import UserError, shown
from nmt_async.model.configuration import PRECISIONS
from nmt_async.options import NOT_GIVEN, check_together, option
from nmt_async.search.options import SEARCH, SearchOptions, Weights
from nmt_async.text.corpora import is_tag
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.translate.formats import FORMATS, AlignmentForm, Printed

COMPUTING = "Computing"
FILES = "Files"
PRINTED = "What is printed"

ENGINES = ("torch", "ctranslate2", "auto")
MOST_WORKERS = 256


@dataclass(frozen=True)
class ComputingOptions:
    """With what, and how much of it at once, lines are computed.

    Raises:
        UserError: a value that makes no sense.
    """

    mini_batch: int = option(64, "Sentences computed at once.", group=COMPUTING)
    mini_batch_words: int = option(
        4096, "Subwords computed at once, padding included; this limits memory.", group=COMPUTING
    )
    maxi_batch: int = option(
        16, "Read so many mini-batches ahead, where input is ready, and sort them by length.", group=COMPUTING
    )
    device: str | None = option(
        None, f"Where to compute: cpu, cuda or, for example, cuda:1 (default: {FIRST_GPU}).", group=COMPUTING
    )
    threads: int | None = option(
        None,
        "CPU threads (default: torch's choice, the number of cores).",
        group=COMPUTING,
        flags=("--threads", "--cpu-threads"),
    )

    def __post_init__(self) -> None:
        for name in ("mini_batch", "mini_batch_words", "maxi_batch", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')}: {value} is too small; give 1 or more.")


@dataclass(frozen=True)
class DecodingOptions(SearchOptions, ComputingOptions):
    """How lines are translated: the same for ``translate``, ``evaluate`` and validation during training.

    Raises:
        UserError: a value that makes no sense.
    """

    weights: Weights | None = option(
        None, "Weights of several models' log-probabilities, as in 0.7,0.3 (default: all the same).", group=SEARCH,
        metavar="LIST", parse=Weights.parse,
    )  # fmt: skip
    max_length: int = option(
        512, "Longest source in subwords, end mark included; a longer one is cut there, with a warning.", group=SEARCH
    )
    tag: str | None = option(
        None, "Put this word before each line, a tag that the model was trained with: the domain to translate for.",
        group=SEARCH, metavar="WORD",
    )  # fmt: skip
    precision: str = option(
        "float32", "Numbers that matrices are multiplied in; int8: about one and a half times as fast on a CPU, "
        "scores are a little off.",
        group=COMPUTING, choices=PRECISIONS,
    )  # fmt: skip

    def __post_init__(self) -> None:
        ComputingOptions.__post_init__(self)
        SearchOptions.__post_init__(self)
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision: {shown(self.precision)} is not known; give {' or '.join(PRECISIONS)}.")
        if self.max_length < 2:
            raise UserError(f"--max-length: {self.max_length} is too small; give 2 or more.")
        check_tag(self.tag)


def check_tag(tag: str | None) -> None:
    """Raises UserError where it cannot be one; whether a model knows it is another question."""
    if tag is not None and not is_tag(tag):
        raise UserError(f"--tag: {shown(tag)} is not a word without spaces; give the tag that prepare was given.")


@dataclass(frozen=True)
class CorpusOptions(DecodingOptions):
    """How a text is translated that is read from a file or a pipe, in one process or several.

    Raises:
        UserError: a value that makes no sense.
    """

    source: Path = option(
        STANDARD_INPUT, "Text to translate, plain, gzip or zstd; - for standard input.",
        group=FILES, flags=("--source", "-i", "--input"), metavar="FILE",
    )  # fmt: skip
    strict: bool = option(
        False, "Refuse a line that is not UTF-8. Without this, U+FFFD takes the place of what cannot be "
        "read, with a warning.",
        group=FILES, flags=("--strict",),
    )  # fmt: skip
    device: str | None = option(
        None, "The one device to compute on: cpu, cuda or, for example, cuda:1; --devices names several (default: "
        "as --devices says).", group=COMPUTING,
    )  # fmt: skip
    workers: int | None = option(None, "Processes that share the text (default: one for each device).", group=COMPUTING)
    devices: str | None = option(
        None, "CUDA devices as in '0,1' or 'cuda:0,cuda:1', or cpu; workers are spread over them in turn "
        f"(default: {ALL_GPUS}).",
        group=COMPUTING, only_with={"device": NOT_GIVEN},
    )  # fmt: skip
    engine: str = option(
        "torch", "What searches: torch, ctranslate2 (an extra: pip install 'nmt-async[ctranslate2]'), or auto: "
        "ctranslate2 where it is installed and knows the model and the options.",
        group=COMPUTING, choices=ENGINES,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UserError(f"--workers: {self.workers} is not a number of processes from 1 to {MOST_WORKERS}.")


@dataclass(frozen=True)
class TranslateOptions(CorpusOptions):
    """The options of translate."""

    output: Path | None = option(
        None, "File for the translation (default: standard output).", group=FILES, flags=("--output", "-o"),
        metavar="FILE",
    )  # fmt: skip
    force_decode: Path | None = option(
        None, "File with the beginning of each translation, a line for each line of the text; an empty line"
        " leaves it free.",
        group=FILES, metavar="FILE",
    )  # fmt: skip
    format: str = option(
        "text", "text; tsv: line, rank, text, score, normalised score; jsonl: an object a line.",
        group=PRINTED, choices=FORMATS,
    )  # fmt: skip
    n_best: bool = option(
        False, "Print all hypotheses of the beam, as text in Marian's form LINE ||| TEXT ||| F0= SCORE ||| NORMALISED.",
        group=PRINTED, flags=("--n-best",),
    )  # fmt: skip
    word_scores: bool = option(
        False, "Print the subwords, and the log-probability of each and of the end mark; in --format text, "
        "the log-probabilities alone.",
        group=PRINTED, flags=("--word-scores",),
    )  # fmt: skip
    alignment: AlignmentForm | None = option(
        None, "Print which source subwords each subword looked at. soft: all weights; hard: the largest; a "
        "number below 1: those with at least this weight.",
        group=PRINTED, metavar="HOW", parse=AlignmentForm.parse,
    )  # fmt: skip

    @property
    def printed(self) -> Printed:
        """What is printed of a translation."""
        return Printed(self.format, self.n_best, self.word_scores, self.alignment)


OF_THE_MODEL = ("device", "threads", "weights")
"""Options that are told with the model, and do not differ from call to call."""

Options = TypeVar("Options", bound=ComputingOptions)


def changed_options(options: Options, changes: Mapping[str, Any]) -> Options:
    """``options`` with what a call in Python says; text is read where the command line reads it: ``"nucleus 0.9"``.

    Raises:
        UserError: a value that makes no sense, or means nothing beside the others.
        TypeError: there is no such option, or none that may differ from call to call.
    """
    fields = {field.name: field for field in dataclasses.fields(options) if field.name not in OF_THE_MODEL}
    values = {}
    for name, value in changes.items():
        if name not in fields:
            raise TypeError(f"there is no option {name} here; there are {', '.join(fields)}")
        parse = fields[name].metadata["parse"]
        values[name] = parse(value) if parse is not None and isinstance(value, str) else value
    changed = dataclasses.replace(options, **values)
    check_together(changed)
    return changed
