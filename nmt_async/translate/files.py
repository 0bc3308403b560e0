"""Translates a file or what comes through a pipe, in one process or several: what the command ``translate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nmt_async.checkpoints import find_model
from nmt_async.devices import check_here, device_named, devices_named
from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.translate.lines import TextFile, output_lines, pairs_of, warn_on_stderr, windows
from nmt_async.translate.options import TranslateOptions
from nmt_async.translate.processes import Processes
from nmt_async.translate.translator import BegunLine, LineTranslator, Translation, Translator, default_devices


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
    devices = devices_of(options)
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


def devices_of(options: TranslateOptions) -> list[str]:
    """The device of each process.

    Raises:
        UserError: one that this machine does not have.
    """
    if options.devices is not None:
        devices = devices_named(options.devices, "--devices")
        check_here(devices, "--devices")
    elif options.device is not None:
        devices = [device_named(options.device, "--device")]
        check_here(devices, "--device")
    else:
        devices = default_devices(options.precision, options.engine)
    return [devices[index % len(devices)] for index in range(options.workers or len(devices))]


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
