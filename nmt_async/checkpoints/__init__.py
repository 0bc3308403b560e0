"""Trained models and states of training in folders, and the mean of several models.

from nmt_async.checkpoints import load_model

loaded = load_model(Path("run"))
loaded.model, loaded.source_vocabulary, loaded.target_vocabulary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nmt_async.lazy import named_in

if TYPE_CHECKING:
    from nmt_async.checkpoints.averaging import average_models
    from nmt_async.checkpoints.model_folder import LoadedModel, load_model, model_damages, save_model
    from nmt_async.checkpoints.run_checkpoints import Checkpoints, ModelFiles
    from nmt_async.checkpoints.run_models import best_models, find_model, folders_by_update, last_models
    from nmt_async.checkpoints.training_state import checkpoint_damages, read_state, write_state

__all__ = [
    "Checkpoints",
    "LoadedModel",
    "ModelFiles",
    "average_models",
    "best_models",
    "checkpoint_damages",
    "find_model",
    "folders_by_update",
    "last_models",
    "load_model",
    "model_damages",
    "read_state",
    "save_model",
    "write_state",
]

__getattr__, __dir__ = named_in(
    __name__,
    {
        "average_models": "averaging",
        **dict.fromkeys(("LoadedModel", "load_model", "model_damages", "save_model"), "model_folder"),
        **dict.fromkeys(("Checkpoints", "ModelFiles"), "run_checkpoints"),
        **dict.fromkeys(("best_models", "find_model", "folders_by_update", "last_models"), "run_models"),
        **dict.fromkeys(("checkpoint_damages", "read_state", "write_state"), "training_state"),
    },
)
