"""Bootstrap draws of the validation sentences, the same in every run on the same data, so that runs can be paired.

A draw takes as many sentences as there are, with replacement (Efron 1979; Koehn 2004 for translation). Keeping each
validation's cross-entropy on fixed draws instead of every sentence's loss makes a result small, and any difference
or crossing time between two runs gets its interval from the draws one by one.
"""

from __future__ import annotations

import numpy as np

DRAWS = 200
SEED = 20190603
AT_ONCE = 1 << 20
"""Weights in memory; how many draws are made together changes none of them."""


def draw_weights(sentences: int, draws: int = DRAWS) -> np.ndarray:
    """How often each sentence is in each draw: (draws, sentences), float64."""
    return _weights(np.random.default_rng([SEED, sentences]), sentences, draws)


def _weights(generator: np.random.Generator, sentences: int, draws: int) -> np.ndarray:
    return generator.multinomial(sentences, np.full(sentences, 1.0 / sentences), size=draws).astype(np.float64)


def resampled_cross_entropy(losses: np.ndarray, tokens: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The cross-entropy per target token on each draw, (draws,).

    Args:
        losses: (sentences,), each summed over its target tokens, in nats.
        tokens: (sentences,), target tokens of each.
    """
    generator = np.random.default_rng([SEED, len(losses)])
    at_once = max(1, AT_ONCE // max(1, len(losses)))
    parts = []
    for begin in range(0, draws, at_once):
        weights = _weights(generator, len(losses), min(at_once, draws - begin))
        with np.errstate(invalid="ignore", over="ignore"):  # a loss that is not finite makes the draws it is in so
            parts.append((weights @ losses) / (weights @ tokens))
    return np.concatenate(parts)
