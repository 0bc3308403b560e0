"""Translates a file or what comes through a pipe, in one process or several: what the command ``translate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from nmt_async.decoding.api import Translator
from nmt_async.decoding.formats import FORMATS, translation_lines
from nmt_async.decoding.lines import windows
from nmt_async.decoding.model_folder import find_model
from nmt_async.decoding.options import COMPUTING, DecodingOptions, device_of
from nmt_async.decoding.output import output_lines
from nmt_async.decoding.processes import Processes
from nmt_async.decoding.text_file import TextFile
from nmt_async.decoding.translator import Translation, warn_on_stderr
from nmt_async.errors import UserError
from nmt_async.options import option
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.text.progress import Progress

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
    workers: int | None = option(None, "Processes that share the text (default: one a device).", group=COMPUTING)
    devices: str | None = option(
        None, "CUDA devices as in '0,1' or 'cuda:0,cuda:1', or cpu; workers are dealt to them in turn.",
        group=COMPUTING,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UserError(f"--workers: {self.workers} is not a number of processes from 1 to {MOST_WORKERS}.")
        if self.devices is not None and self.device != "cpu":
            raise UserError("--device and --devices do not go together; leave one out.")

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

    model: Path
    options: DecodingOptions
    wanted: int

    def __call__(
        self, device: str, warn: Callable[[str], None]
    ) -> Callable[[list[str], int], list[Translation]]:  # fmt: skip
        """The windows' translator, on ``device``."""
        translator = Translator(self.model, device=device, warn=warn)
        return translator.line_translator(self.options, self.wanted).translate_window


def translate_files(options: TranslateOptions, model: Path, progress: Progress) -> None:
    """Translates what the options name with the model in a folder: one line out for each line in.

    Raises:
        UserError: there is no such model, file or device, or something is damaged.
        RunFailure: processes died again and again.
    """
    devices = options.device_list()
    source = TextFile(options.source, "--source", strict=options.strict, warn=warn_on_stderr)
    find_model(model)
    translations = _in_processes if len(devices) > 1 else _in_this_process
    with (
        output_lines(options.output) as write,
        progress.stage("translate", source.size) as step,
        closing(translations(options, model, source, devices)) as found,
    ):
        for number, translation in enumerate(found, 1):
            for line in translation_lines(number, translation, options.format, options.n_best, options.word_scores):
                write(line)
            step(source.read, number)


def _in_this_process(
    options: TranslateOptions, model: Path, source: TextFile, devices: list[str]
) -> Generator[Translation, None, None]:  # fmt: skip
    translator = Translator(model, device=devices[0], threads=options.threads)
    yield from translator.line_translator(options, _wanted(options)).translate(source, source.at_hand)


def _in_processes(
    options: TranslateOptions, model: Path, source: TextFile, devices: list[str]
) -> Generator[Translation, None, None]:  # fmt: skip
    threads = options.threads or max(1, len(os.sched_getaffinity(0)) // len(devices))
    # As many lines as one process would read ahead are read for all of them together, and sorted in their shares.
    size = max(options.mini_batch, options.mini_batch * options.maxi_batch // len(devices))
    plain = DecodingOptions(**{field.name: getattr(options, field.name) for field in fields(DecodingOptions)})
    builder = TranslatorBuilder(model, plain, _wanted(options))
    with Processes[str, Translation](builder, devices, threads, warn_on_stderr) as processes:
        yield from processes.results(windows(source, size, source.at_hand))


def _wanted(options: TranslateOptions) -> int:
    return options.beam_size if options.n_best else 1
