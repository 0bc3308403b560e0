"""What a replay comes to, beside the checkpoint of the run that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checkpoints.training_state import checkpoint_damages, read_state
from nmt_async.errors import RunFailure, UserError
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.compression.error_feedback import NAME
from nmt_async.sync.server import ParameterServer
from nmt_async.training.run_folder import CONFIG


@dataclass(frozen=True)
class Replayed:
    """What a replay came to.

    Attributes:
        update: to which it went.
        checkpoint: the folder that it was compared with.
        compared: the vectors that were compared, by their names.
        different: of these, those that differ, and by how much at most.
        machines: that shared the run, where it was shared; 0 where it was not.
    """

    update: int
    checkpoint: Path
    compared: tuple[str, ...]
    different: dict[str, float]
    machines: int = 0


def compared_with(run: Path, until: int | None, states: Mapping[int, Path], best: Mapping[int, Path]) -> Path:
    """The folder of the checkpoint to compare with.

    Args:
        until: the update that was asked for; None: the newest state, or else the newest model.
        states: folders of states, by their update.
        best: of models that are kept as the best ones.

    Raises:
        UserError: there is none, or it is damaged.
    """
    kept = {**best, **states}
    there = ", ".join(f"{update:,}" for update in sorted(kept))
    if not kept:
        raise UserError(f"{run} has no checkpoint to compare with; let the run save one first (--save-freq).")
    if until is None:
        until = max(states, default=0) or max(kept)
    if until not in kept:
        raise UserError(f"--until {until}: {run} keeps no checkpoint of that update; choose from {there}.")
    folder = kept[until]
    if until in states:
        found = checkpoint_damages(folder)
        if found:
            raise UserError(f"{folder}: {'; '.join(found)}; choose another checkpoint with --until, from {there}.")
    return folder


MODEL = "the model"


def stored_vectors(checkpoint: Path) -> dict[str, Tensor]:
    """The vectors (size,) in a checkpoint; of one that has a model only, those of the model."""
    if checkpoint.name.startswith("step-"):
        values, tensors = read_state(checkpoint)
        buffer = values["coordinator"]["server"]["buffer"]
        if buffer["summed"] or buffer.get("held"):  # pushes of the next update have changed what is left behind
            return {name: tensor for name, tensor in tensors.items() if not name.startswith(NAME)}
        return tensors
    model = load_model(checkpoint).model
    return {MODEL: FlatLayout(model).gather(model)}


def vectors_like(
    stored: Mapping[str, Tensor], server: ParameterServer, as_saved: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """The server's vectors that belong beside ``stored``.

    Args:
        as_saved: what a model folder holds of parameters (size,).
    """
    if MODEL not in stored:
        residuals = {} if server.residuals is None else server.residuals.state()
        left = {name: vector for name, vector in residuals.items() if name in stored}
        return {**server.vectors(), **left}
    average = server.optimizer.average
    return {MODEL: as_saved(server.parameters if average is None else average)}


def check_comparable(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor], checkpoint: Path) -> None:
    """Raises UserError where the checkpoint is of another model, or of another optimizer."""
    for name, vector in ours.items():
        if name not in stored or stored[name].shape != vector.shape:
            raise UserError(
                f"{checkpoint} has no {name} of {vector.numel():,} numbers, as {CONFIG} of the run says: one of the "
                f"two was changed; choose another checkpoint with --until."
            )


def differences(ours: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each vector, by how much it differs from the stored one at most; 0 if it is bit-equal."""
    return {
        name: 0.0 if torch.equal(vector, stored[name]) else max(float((vector - stored[name]).abs().max()), 1e-45)
        for name, vector in ours.items()
    }


def verdict(run: Path, found: Replayed) -> str:
    """What a replay came to, in one sentence.

    Raises:
        RunFailure: the parameters are others.
    """
    several = found.machines > 1
    journals = f"the journals of the {found.machines} machines of {run}" if several else f"the journal of {run}"
    leads = "lead" if several else "leads"
    where = f"{journals}, replayed to update {found.update:,}, {leads} to"
    if not found.different:
        names = ", ".join(found.compared)
        return f"{where} what {found.checkpoint} holds, bit for bit ({names})."
    most = "; ".join(f"{name} differ by up to {difference:.3g}" for name, difference in found.different.items())
    raise RunFailure(f"{where} something else than {found.checkpoint} holds: {most}.")
