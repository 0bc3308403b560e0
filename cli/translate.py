"""``nmt-async translate``: lines in one language to lines in the other."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from nmt_async.decoding.engine import ENGINES, engine_named
from nmt_async.decoding.lines import text_lines
from nmt_async.decoding.model_folder import load_model
from nmt_async.decoding.options import DecodingOptions, use_device
from nmt_async.decoding.output import output_lines
from nmt_async.decoding.translator import Translator, n_best_lines, warn_on_stderr
from nmt_async.options import option
from nmt_async.text.corpus import STANDARD_INPUT
from nmt_async.text.progress import progress_for

from .declare import CommonOptions

FILES = "Files"
ARGUMENTS = {"model": Annotated[Path, typer.Argument(help="Folder of a run or of a checkpoint.", metavar="MODEL")]}
EXAMPLE = "nmt-async translate run < test.en > test.de"
GROUPS = (FILES, "Search", "Computing")


@dataclass(frozen=True)
class TranslateOptions(DecodingOptions):
    """The options of translate."""

    n_best: bool = option(
        False, "Print all hypotheses of the beam in Marian's form, LINE ||| TEXT ||| F0= SCORE ||| NORMALISED.",
        group="Search", flags=("--n-best",),
    )  # fmt: skip
    input: Path = option(
        STANDARD_INPUT, "Text to translate, plain, gzip or zstd; - for standard input.",
        group=FILES, flags=("--input", "-i"), metavar="FILE",
    )  # fmt: skip
    output: Path | None = option(
        None, "Where the translation goes (else standard output).", group=FILES, flags=("--output", "-o"),
        metavar="FILE",
    )  # fmt: skip
    engine: str = option(
        "torch", "What searches: torch, ctranslate2 (an extra: pip install 'nmt-async[ctranslate2]'), or auto: "
        "ctranslate2 where it is installed and knows the model and the options.",
        group="Computing", choices=ENGINES,
    )  # fmt: skip


def run(options: TranslateOptions, common: CommonOptions, model: Path) -> None:
    """Translate standard input with a trained model: one line out for each line in."""
    device = use_device(options)
    lines = text_lines(options.input, "--input")
    loaded = load_model(model)
    wanted = options.beam_size if options.n_best else 1
    translator = Translator(
        loaded.model, loaded.source_vocabulary, loaded.target_vocabulary, options, device, wanted,
        engine=engine_named(options.engine, loaded, options.search(wanted), device, warn_on_stderr, options.precision),
    )  # fmt: skip
    seen = sys.stderr.isatty() and not (options.output is None and sys.stdout.isatty())
    with output_lines(options.output) as write, progress_for(common.quiet or not seen).stage("translate", None) as step:
        for number, translation in enumerate(translator.translate(lines)):
            for line in n_best_lines(number, translation) if options.n_best else [translation.text]:
                write(line)
            step(number + 1, number + 1)
