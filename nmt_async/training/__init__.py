"""The run: what to expect of it, its loop, validation, saving, figures, journal and replay.

from nmt_async.training import TrainOptions, train

train("data", out="run", sync_mode="hybrid", stop_after="20k")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.training.options import TrainOptions
    from nmt_async.training.trainer import train

__all__ = ["TrainOptions", "train"]

__getattr__, __dir__ = named_in(__name__, {"TrainOptions": "options", "train": "trainer"})
