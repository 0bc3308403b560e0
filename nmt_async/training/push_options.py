"""The options of ``train`` that say what crosses from a worker to the server."""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.options import option
from nmt_async.sync.compression.settings import DTYPES, PushSettings

GROUP = "What crosses"


@dataclass(frozen=True)
class PushOptions:
    """How a worker makes a push of the gradients that it computed."""

    push_dtype: str = option(
        "float32",
        "In which numbers gradients cross; what bfloat16 rounds off is added to the worker's next gradient.",
        group=GROUP,
        choices=DTYPES,
    )

    def push_settings(self) -> PushSettings:
        """How a push is made."""
        return PushSettings(self.push_dtype)
