"""How good a translation, or a model, is: what the command ``evaluate`` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nmt_async.errors import UserError
from nmt_async.options import NOT_GIVEN, flag_of, is_given, option
from nmt_async.score.scores import Score, check_lines, corpus_scores
from nmt_async.text.progress import Progress
from nmt_async.translate.api import Translator
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.text_file import text_lines

SCORING = "Scoring"
RANKING = ("beam_size", "normalize", "word_penalty")


@dataclass(frozen=True)
class EvaluateOptions(DecodingOptions):
    """The options of evaluate."""

    reference: Path | None = option(
        None, "The correct translation, plain, gzip or zstd.", group=SCORING, flags=("--reference", "-r"),
        metavar="FILE",
    )  # fmt: skip
    hypothesis: Path | None = option(
        None, "The translation to score; - for standard input.", group=SCORING, metavar="FILE",
        only_with={field.name: NOT_GIVEN for field in dataclasses.fields(DecodingOptions)},
    )  # fmt: skip
    source: Path | None = option(
        None, "Text that the model of RUN translates, to be scored.", group=SCORING, metavar="FILE"
    )
    bootstrap: int = option(1000, "Samples for the confidence intervals; 0 for no intervals.", group=SCORING)
    json: bool = option(False, "Print the scores as JSON.", group=SCORING, flags=("--json",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_sampling is not None:  # one sample of each line, which nothing ranks
            for field in dataclasses.fields(self):
                if field.name in RANKING and is_given(field, getattr(self, field.name)):
                    raise UserError(f"{flag_of(field)} means nothing with --output-sampling; leave it out.")
        if self.bootstrap != 0 and not 40 <= self.bootstrap <= 1_000_000:
            raise UserError(f"--bootstrap: {self.bootstrap} samples give no 95 % interval; give 1000, or 0 for none.")


def evaluate(options: EvaluateOptions, models: Sequence[Path], progress: Progress) -> list[Score]:
    """BLEU, chrF and TER of a file, or of what the models in folders together make of ``options.source``.

    Raises:
        UserError: options that do not go together, files that cannot be read or do not fit each other.
    """
    if options.reference is None:
        raise UserError("evaluate needs --reference FILE, the correct translation.")
    if bool(models) == bool(options.hypothesis):
        found = "both were" if models else "neither was"
        raise UserError(f"evaluate scores either --hypothesis FILE or RUN with --source FILE; {found} given.")
    if bool(models) != bool(options.source):
        missing = "--source is read only where a RUN is given" if not models else "with RUN, give --source FILE"
        raise UserError(f"{missing}; evaluate scores either --hypothesis FILE or RUN with --source FILE.")
    references = list(text_lines(options.reference, "--reference"))
    given = options.hypothesis or options.source
    assert given is not None  # checked above
    lines = list(text_lines(given, "--source" if models else "--hypothesis"))
    check_lines(lines, str(given), references, str(options.reference))
    if not models:
        return corpus_scores(lines, references, bootstrap=options.bootstrap)
    translator = Translator(models, device=options.device, threads=options.threads, weights=options.weights)
    hypotheses = []
    with progress.stage("translate", len(lines)) as step:
        for translation in translator.line_translator(options).translate(lines):
            hypotheses.append(translation.text)
            step(len(hypotheses), len(hypotheses))
    return corpus_scores(hypotheses, references, bootstrap=options.bootstrap)
