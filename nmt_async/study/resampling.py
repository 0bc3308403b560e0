"""Bootstrap draws of the validation sentences, the same in every run on the same data, so that runs can be paired.

A draw takes as many sentences as there are, with replacement (Efron 1979; Koehn 2004 for translation). Keeping each
validation's cross-entropy on fixed draws instead of every sentence's loss makes a result small, and any difference
or crossing time between two runs gets its interval from the draws one by one.
"""

from __future__ import annotations

import numpy as np

DRAWS = 200
SEED = 20190603


def draw_weights(sentences: int, draws: int = DRAWS) -> np.ndarray:
    """How often each sentence is in each draw: (draws, sentences), float64."""
    generator = np.random.default_rng([SEED, sentences])
    return generator.multinomial(sentences, np.full(sentences, 1.0 / sentences), size=draws).astype(np.float64)


def resampled_cross_entropy(losses: np.ndarray, tokens: np.ndarray, draws: int = DRAWS) -> np.ndarray:
    """The cross-entropy per target token on each draw, (draws,).

    Args:
        losses: (sentences,), each summed over its target tokens, in nats.
        tokens: (sentences,), target tokens of each.
    """
    weights = draw_weights(len(losses), draws)
    result: np.ndarray = (weights @ losses) / (weights @ tokens)
    return result
