"""nmt-async: trains Transformer translation models with synchronous, asynchronous and hybrid updates.

    from nmt_async import Translator, Scorer

    for translation in Translator("run").translate(["A dog runs."], beam_size=5, n_best=3):
        print(translation.text, translation.score)

Importing this package is cheap: torch comes with the first of these names that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmt_async.errors import RunFailure, UserError
    from nmt_async.score.scorer import Scored, Scorer
    from nmt_async.translate.translator import Candidate, Translation, Translator

__version__ = "0.1.0"

_HOMES = {
    "Translator": "translate.translator",
    "Scorer": "score.scorer",
    "Translation": "translate.translator",
    "Candidate": "translate.translator",
    "Scored": "score.scorer",
    "UserError": "errors",
    "RunFailure": "errors",
}

__all__ = ["Candidate", "RunFailure", "Scored", "Scorer", "Translation", "Translator", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
