"""Which optimizer, and its constants."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZERS = {
    "adam": "Adam",
    "adamw": "Adam with decoupled weight decay",
    "muon": "orthogonal steps for matrices, Adam for the rest",
    "adan": "Nesterov momentum of gradients and of their changes",
    "lion": "the sign of a momentum",
    "sgd": "gradient descent with momentum",
}
"""Each optimizer's name for ``--optimizer``, and what it is in a few words for ``--help``."""


@dataclass(frozen=True)
class OptimizerSettings:
    """The constants of all optimizers; each reads its own.

    Attributes:
        name: of `OPTIMIZERS`.
        beta1, beta2, epsilon: Adam's, also of the Adam in Muon.
        clip_norm: the gradient of an update, per token, is scaled down to this norm where it is larger; 0: never.
        smoothing: the moving average's weight of the newest parameters; 0: no average.
        weight_decay: decoupled: parameters shrink by this times the learning rate at each update.
        momentum: of SGD and Muon.
        nesterov: whether their step looks one step ahead of the momentum.
        adan_betas: Adan's decays of the gradient, of its change and of the second moment.
        adan_epsilon: Adan's.
        lion_betas: Lion's weight of the momentum in the step, and the momentum's decay.
        muon_rows: Muon makes blocks of at most so many rows orthogonal; 0: whole matrices.
        muon_steps: of the iteration that makes them orthogonal (`nmt_async.sync.optimizers.orthogonal`).
    """

    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    clip_norm: float = 1.0
    smoothing: float = 0.0
    name: str = "adam"
    weight_decay: float = 0.0
    momentum: float = 0.95
    nesterov: bool = True
    adan_betas: tuple[float, float, float] = (0.98, 0.92, 0.99)
    adan_epsilon: float = 1e-8
    lion_betas: tuple[float, float] = (0.9, 0.99)
    muon_rows: int = 0
    muon_steps: int = 5
