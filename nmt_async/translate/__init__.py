"""Lines to lines: files, batches, engines and processes around a search.

from nmt_async.translate import Translator

Translator("run").translate(["A dog runs."], beam_size=5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.translate.files import translate_files
    from nmt_async.translate.formats import AlignmentForm, Printed, WantedScores
    from nmt_async.translate.options import ComputingOptions, DecodingOptions, TranslateOptions
    from nmt_async.translate.translator import Candidate, LineTranslator, Translation, Translator

__all__ = [
    "AlignmentForm",
    "Candidate",
    "ComputingOptions",
    "DecodingOptions",
    "LineTranslator",
    "Printed",
    "TranslateOptions",
    "Translation",
    "Translator",
    "WantedScores",
    "translate_files",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        "translate_files": "files",
        **dict.fromkeys(("AlignmentForm", "Printed", "WantedScores"), "formats"),
        **dict.fromkeys(("ComputingOptions", "DecodingOptions", "TranslateOptions"), "options"),
        **dict.fromkeys(("Candidate", "LineTranslator", "Translation", "Translator"), "translator"),
    },
)
