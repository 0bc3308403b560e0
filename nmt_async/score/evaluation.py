"""How good a translation, or a model, is: BLEU, chrF and TER by sacrebleu (Post 2018, arXiv:1804.08771).

Scores come with signatures and bootstrap confidence intervals. The intervals are sacrebleu's: lines drawn with
replacement (Koehn 2004), the seed 12345 or the environment's SACREBLEU_SEED. `evaluate` is what the command does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from nmt_async.errors import UserError
from nmt_async.progress import Progress
from nmt_async.score.options import EvaluateOptions
from nmt_async.translate import Translator, WantedScores
from nmt_async.translate.lines import text_lines
from nmt_async.translate.translator import default_devices

CORPUS_METRICS: dict[str, Callable[[], Any]] = {"BLEU": BLEU, "chrF": CHRF, "TER": TER}


@dataclass(frozen=True)
class Score:
    """A metric's value for a corpus.

    Attributes:
        name: ``BLEU``, ``chrF`` or ``TER``; of the last, less is better.
        score: from 0 to 100 (TER may be above).
        mean, half_width: of the 95 % confidence interval, mean ± half_width; None without bootstrap.
        signature: sacrebleu's, for reports.
    """

    name: str
    score: float
    mean: float | None
    half_width: float | None
    signature: str


def corpus_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[str] = tuple(CORPUS_METRICS),
    bootstrap: int = 0,
) -> list[Score]:
    """Scores of hypotheses against one reference each.

    Args:
        metrics: keys of `CORPUS_METRICS`.
        bootstrap: samples for the confidence interval; 0 for none.

    Raises:
        UserError: there are no lines, or not as many of the one as of the other.
    """
    check_lines(hypotheses, "the hypothesis", references, "the reference")
    scores = []
    for name in metrics:
        metric = CORPUS_METRICS[name]()
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=bootstrap or 1)
        mean, half_width = (float(result._mean), float(result._ci)) if bootstrap else (None, None)
        scores.append(Score(name, float(result.score), mean, half_width, str(metric.get_signature())))
    return scores


def check_lines(lines: Sequence[str], name: str, references: Sequence[str], reference_name: str) -> None:
    """Raises UserError where ``lines`` cannot be compared with the references line by line."""
    if len(lines) != len(references):
        raise UserError(
            f"{name} has {len(lines):,} lines but {reference_name} has {len(references):,}; "
            f"line n of the one must belong to line n of the other."
        )
    if not references:
        raise UserError(f"{reference_name} has no lines; there is nothing to score.")


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
    device = options.device or default_devices(options.precision)[0]
    translator = Translator(models, device=device, threads=options.threads, weights=options.weights)
    hypotheses = []
    with progress.stage("translate", len(lines)) as step:
        for translation in translator.line_translator(options, scores=WantedScores.NONE).translate(lines):
            hypotheses.append(translation.text)
            step(len(hypotheses), len(hypotheses))
    return corpus_scores(hypotheses, references, bootstrap=options.bootstrap)
