"""BLEU, chrF and TER by sacrebleu (Post 2018, arXiv:1804.08771), with signatures and bootstrap confidence intervals.

The intervals are sacrebleu's: lines drawn with replacement (Koehn 2004), the seed 12345 or the environment's
SACREBLEU_SEED.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from nmt_async.errors import UserError

METRICS: dict[str, Callable[[], Any]] = {"BLEU": BLEU, "chrF": CHRF, "TER": TER}


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
    hypotheses: Sequence[str], references: Sequence[str], metrics: Sequence[str] = tuple(METRICS), bootstrap: int = 0
) -> list[Score]:
    """Scores of hypotheses against one reference each.

    Args:
        metrics: keys of `METRICS`.
        bootstrap: samples for the confidence interval; 0 for none.

    Raises:
        UserError: there are no lines, or not as many of the one as of the other.
    """
    check_lines(hypotheses, "the hypothesis", references, "the reference")
    scores = []
    for name in metrics:
        metric = METRICS[name]()
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
