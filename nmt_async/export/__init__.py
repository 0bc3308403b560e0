"""Trained models in the formats of other programs, and Marian's as ours.

from nmt_async.export import ExportOptions, export

export(ExportOptions(format="marian"), Path("run"), Path("marian"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.export.conversion import export, import_model
    from nmt_async.export.options import ExportOptions, ImportOptions
    from nmt_async.export.verification import Verification

__all__ = ["ExportOptions", "ImportOptions", "Verification", "export", "import_model"]

__getattr__, __dir__ = named_in(
    __name__,
    {
        **dict.fromkeys(("export", "import_model"), "conversion"),
        **dict.fromkeys(("ExportOptions", "ImportOptions"), "options"),
        "Verification": "verification",
    },
)
