"""Translates a file or what comes through a pipe, in one process or several: what the command ``translate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nmt_async.checkpoints.run_models import find_model
from nmt_async.errors import UserError
from nmt_async.options import NOT_GIVEN, option
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.text.progress import Progress
from nmt_async.translate.alignment import AlignmentForm
from nmt_async.translate.api import Translator
from nmt_async.translate.engine import ENGINES
from nmt_async.translate.formats import FORMATS, Printed
from nmt_async.translate.lines import windows
from nmt_async.translate.options import COMPUTING, DecodingOptions, device_of
from nmt_async.translate.output import output_lines
from nmt_async.translate.processes import Processes
from nmt_async.translate.text_file import TextFile, pairs_of
from nmt_async.translate.translator import BegunLine, LineTranslator, Translation, warn_on_stderr

FILES = "Files"
PRINTED = "What is printed"
MOST_WORKERS = 256


@dataclass(frozen=True)
class TranslateOptions(DecodingOptions):
    """The options of translate.

    Raises:
        UserError: a value that makes no sense.
    """

    source: Path = option(
        STANDARD_INPUT, "Text to translate, plain, gzip or zstd; - for standard input.",
        group=FILES, flags=("--source", "-i", "--input"), metavar="FILE",
    )  # fmt: skip
    output: Path | None = option(
        None, "Where the translation goes (else standard output).", group=FILES, flags=("--output", "-o"),
        metavar="FILE",
    )  # fmt: skip
    force_decode: Path | None = option(
        None, "How translations begin: a file with a line for each of the text's, empty where that is free.",
        group=FILES, metavar="FILE",
    )  # fmt: skip
    strict: bool = option(
        False, "Refuse a line that is not UTF-8; else what cannot be read becomes U+FFFD, with a warning.",
        group=FILES, flags=("--strict",),
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
        False, "Print subwords and the log-probability of each and of the end mark; as text, the latter alone.",
        group=PRINTED, flags=("--word-scores",),
    )  # fmt: skip
    alignment: AlignmentForm | None = option(
        None, "Print which source subwords each subword looked at: soft, hard, or a weight below 1 from which on.",
        group=PRINTED, metavar="HOW", parse=AlignmentForm.parse,
    )  # fmt: skip
    workers: int | None = option(None, "Processes that share the text (default: one a device).", group=COMPUTING)
    devices: str | None = option(
        None, "CUDA devices as in '0,1' or 'cuda:0,cuda:1', or cpu; workers are dealt to them in turn.",
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

    @property
    def printed(self) -> Printed:
        """What is printed of a translation."""
        return Printed(self.format, self.n_best, self.word_scores, self.alignment)

    def device_list(self) -> list[str]:
        """The device of each process.

        Raises:
            UserError: one that this machine does not have.
        """
        names = (self.devices or self.device).replace(" ", ",").split(",")
        devices = [f"cuda:{name}" if name.isdigit() else name for name in names if name]
        if not devices:
            raise UserError("--devices names no device; give cpu, or numbers of CUDA devices such as 0,1.")
        for device in devices:
            device_of(device, "--device" if self.devices is None else "--devices")
        return [devices[index % len(devices)] for index in range(self.workers or len(devices))]


@dataclass(frozen=True)
class TranslatorBuilder:
    """Makes, in a process of its own, what translates windows; see `processes.Builder`."""

    models: tuple[Path, ...]
    options: TranslateOptions

    def __call__(
        self, device: str, warn: Callable[[str], None]
    ) -> Callable[[list[BegunLine], int], list[Translation]]:  # fmt: skip
        """The windows' translator, on ``device``."""
        return _line_translator(self.options, self.models, device, None, warn).translate_window


def translate_files(options: TranslateOptions, models: Sequence[Path], progress: Progress) -> None:
    """Translates what the options name with the models in folders: one line out for each line in.

    Raises:
        UserError: there is no such model, file or device, something is damaged or does not go together.
        RunFailure: processes died again and again.
    """
    devices = options.device_list()
    source = TextFile(options.source, "--source", strict=options.strict, warn=warn_on_stderr)
    lines, at_hand = _begun(options, source)
    for model in models:
        find_model(model)
    # As many lines as one process would read ahead are read for all of them together, and sorted in their shares.
    share = options.mini_batch * options.maxi_batch // len(devices)
    read = windows(lines, max(options.mini_batch, share), at_hand)
    translated = _in_processes if len(devices) > 1 else _in_this_process
    with (
        output_lines(options.output) as write,
        progress.stage("translate", source.size) as step,
        closing(translated(options, tuple(models), devices, read)) as translations,
    ):
        for number, translation in enumerate(translations, 1):
            for line in options.printed.lines(number, translation):
                write(line)
            step(source.read, number)


def _begun(options: TranslateOptions, source: TextFile) -> tuple[Iterator[BegunLine], bool]:
    """The lines with how their translations begin, and whether none has to be waited for."""
    if options.force_decode is None:
        return ((line, "") for line in source), source.at_hand
    if options.force_decode == options.source:
        raise UserError("--force-decode and --source are the same; name another file for one of them.")
    prefixes = TextFile(options.force_decode, "--force-decode", strict=options.strict, warn=warn_on_stderr)
    return pairs_of(source, prefixes), source.at_hand and prefixes.at_hand


def _in_this_process(
    options: TranslateOptions, models: tuple[Path, ...], devices: list[str], read: Iterator[list[BegunLine]]
) -> Generator[Translation, None, None]:
    translator = _line_translator(options, models, devices[0], options.threads, warn_on_stderr)
    first = 1
    for window in read:
        yield from translator.translate_window(window, first)
        first += len(window)


def _in_processes(
    options: TranslateOptions, models: tuple[Path, ...], devices: list[str], read: Iterator[list[BegunLine]]
) -> Generator[Translation, None, None]:
    threads = options.threads or max(1, len(os.sched_getaffinity(0)) // len(devices))
    builder = TranslatorBuilder(models, options)
    with Processes[BegunLine, Translation](builder, devices, threads, warn_on_stderr) as processes:
        yield from processes.results(read)


def _line_translator(
    options: TranslateOptions, models: tuple[Path, ...], device: str, threads: int | None, warn: Callable[[str], None]
) -> LineTranslator:
    translator = Translator(
        models, weights=options.weights, device=device, threads=threads, engine=options.engine, warn=warn
    )  # fmt: skip
    wanted = options.beam_size if options.n_best else 1
    return translator.line_translator(options, wanted, options.alignment is not None, options.printed.scores)
