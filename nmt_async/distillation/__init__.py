"""Training data for a small model from the translations of large ones: sequence-level knowledge distillation.

from nmt_async.distillation import DistilOptions, distil

distil(DistilOptions(source=Path("mono.en"), out=Path("data"), best_share=0.9), [Path("teacher")])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.distillation.options import DistilOptions
    from nmt_async.distillation.teaching import Distilled, distil

__all__ = ["DistilOptions", "Distilled", "distil"]

__getattr__, __dir__ = named_in(
    __name__, {"DistilOptions": "options", **dict.fromkeys(("Distilled", "distil"), "teaching")}
)
