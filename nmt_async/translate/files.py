"""Translates a file or what comes through a pipe, in one process or several: what the command ``translate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nmt_async.checkpoints import find_model
from nmt_async.devices import check_here, device_named, devices_named
from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.translate.lines import TextFile, output_lines, pairs_of, warn_on_stderr, windows
from nmt_async.translate.options import CorpusOptions, TranslateOptions
from nmt_async.translate.processes import Builder, Processes
from nmt_async.translate.translator import BegunLine, Translation, Translator, default_devices

T = TypeVar("T")


@dataclass(frozen=True)
class TranslatorBuilder:
    """Makes, in a process of its own, what translates windows; see `processes.Builder`."""

    models: tuple[Path, ...]
    options: TranslateOptions

    def __call__(
        self, device: str, warn: Callable[[str], None]
    ) -> Callable[[list[BegunLine], int], list[Translation]]:  # fmt: skip
        """The windows' translator, on ``device``."""
        options = self.options
        wanted = options.beam_size if options.n_best else 1
        translator = translator_of(options, self.models, device, warn)
        lines = translator.line_translator(options, wanted, options.alignment is not None, options.printed.scores)
        return lines.translate_window


def translator_of(
    options: CorpusOptions, models: Sequence[Path], device: str, warn: Callable[[str], None]
) -> Translator:  # fmt: skip
    """What translates with the models in folders, on ``device``."""
    return Translator(
        models, weights=options.weights, device=device, threads=options.threads, engine=options.engine, warn=warn
    )


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
    builder = TranslatorBuilder(tuple(models), options)
    with (
        output_lines(options.output) as write,
        progress.stage("translate", source.size) as step,
        closing(shared_out(builder, options, devices, lines, at_hand)) as translations,
    ):
        for number, translation in enumerate(translations, 1):
            for line in options.printed.lines(number, translation):
                write(line)
            step(source.read, number)


def shared_out(
    builder: Builder, options: CorpusOptions, devices: list[str], lines: Iterable[T], at_hand: bool
) -> Generator[Any, None, None]:  # fmt: skip
    """What a ``builder``'s work makes of each line, in their order: in this process, or in one for each device.

    Args:
        at_hand: no line has to be waited for (see `windows`).
    """
    # As many lines as one process would read ahead are read for all of them together, and sorted in their shares.
    share = options.mini_batch * options.maxi_batch // len(devices)
    read = windows(lines, max(options.mini_batch, share), at_hand)
    if len(devices) > 1:
        threads = options.threads or max(1, len(os.sched_getaffinity(0)) // len(devices))
        with Processes[T, Any](builder, devices, threads, warn_on_stderr) as processes:
            yield from processes.results(read)
        return
    work, first = builder(devices[0], warn_on_stderr), 1
    for window in read:
        yield from work(window, first)
        first += len(window)


def devices_of(options: CorpusOptions) -> list[str]:
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
