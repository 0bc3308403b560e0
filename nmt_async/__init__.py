"""nmt-async: trains Transformer translation models with synchronous, asynchronous and hybrid updates.

    from nmt_async import Scorer, Translator, train

    train("data", out="run", sync_mode="hybrid", accumulate=4, stop_after="20k")
    for translation in Translator("run").translate(["A dog runs."], beam_size=5, n_best=3):
        print(translation.text, translation.score)

Importing this package is cheap: torch comes with the first of these names that is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.errors import RunFailure, UserError
    from nmt_async.score.scorer import Scored, Scorer
    from nmt_async.training.trainer import train
    from nmt_async.translate.translator import Candidate, Translation, Translator

__version__ = "0.1.0"

__all__ = [
    "Candidate",
    "RunFailure",
    "Scored",
    "Scorer",
    "Translation",
    "Translator",
    "UserError",
    "__version__",
    "train",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        **dict.fromkeys(("Candidate", "Translation", "Translator"), "translate.translator"),
        **dict.fromkeys(("Scored", "Scorer"), "score.scorer"),
        "train": "training.trainer",
        **dict.fromkeys(("RunFailure", "UserError"), "errors"),
    },
)
