"""How probable translations are to a model, and how good they are beside a reference.

from nmt_async.score import Scorer, corpus_scores

Scorer("run").score(["A dog runs."], ["Ein Hund läuft."])
corpus_scores(hypotheses, references, bootstrap=1000)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.score.evaluation import Score, corpus_scores, evaluate
    from nmt_async.score.files import score_files
    from nmt_async.score.options import EvaluateOptions, ScoreOptions, ScoringOptions
    from nmt_async.score.scorer import LineScorer, Scored, Scorer

__all__ = [
    "EvaluateOptions",
    "LineScorer",
    "Score",
    "ScoreOptions",
    "Scored",
    "Scorer",
    "ScoringOptions",
    "corpus_scores",
    "evaluate",
    "score_files",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        **dict.fromkeys(("Score", "corpus_scores", "evaluate"), "evaluation"),
        "score_files": "files",
        **dict.fromkeys(("EvaluateOptions", "ScoreOptions", "ScoringOptions"), "options"),
        **dict.fromkeys(("LineScorer", "Scored", "Scorer"), "scorer"),
    },
)
