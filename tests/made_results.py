"""Results made up from a learning curve, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nmt_async.study.conditions import Condition
from nmt_async.study.result import Point, Result, TrainPoint
from nmt_async.study.setting import Setting

MILLION = 1_000_000
DRAWS = 200


def learning(million: float) -> float:
    """A cross-entropy that falls from 5 towards 2."""
    return 2 + 3 * float(np.exp(-million / 1.2))


def made(
    condition: str = "sync",
    seed: int = 1,
    *,
    curve: Callable[[float], float] = learning,
    tokens: Sequence[int] = tuple(range(500_000, 4 * MILLION + 1, 500_000)),
    tokens_per_second: float = 1000.0,
    noise: float = 0.02,
    draws: int = DRAWS,
    bleu: bool = False,
    diverged: str = "",
    staleness: dict[int, int] | None = None,
    profile: str = "paper",
    data: str = "3f9a",
) -> Result:
    """A run whose cross-entropy is ``curve`` of the million tokens seen.

    Args:
        noise: how far the draws of the sentences move all cross-entropies, the same in every run.
    """
    shift = noise * np.random.default_rng(5).normal(size=draws)
    points = []
    for number, seen in enumerate(tokens, start=1):
        value = curve(seen / MILLION)
        resampled = tuple(float(value + each) for each in shift)
        score = 40 - 8 * value if bleu else None
        points.append(Point(number, seen, seen / tokens_per_second, seen / 4e5, value, score, None, resampled))
    return Result(
        setting=Setting(condition, seed, {"sync-mode": "sync", "learn-rate": 0.001}),
        command=f"nmt-async train data --sync-mode sync --seed {seed}",
        folder=f"runs/{condition}",
        data=data,
        cluster="simulated",
        profile=profile,
        workers=4,
        parameters=1_900_000,
        environment={"torch": "2.13.0", "threads": 1},
        updates=len(points),
        tokens=tokens[-1] if tokens else 0,
        seconds=(tokens[-1] if tokens else 0) / tokens_per_second,
        wall_seconds=1200.0,
        effective_batch=2000.0,
        tokens_per_second=tokens_per_second,
        staleness=staleness or {0: 10},
        waiting=(0.1, 0.2, 0.1, 0.2),
        points=tuple(points),
        stretches=(TrainPoint(1, 1000, 1.0, 5.0, 0.001, 1.0, 2000.0, 0.0, 1000.0, (0.1, 0.2, 0.1, 0.2)),),
        diverged=diverged,
    )


def condition(name: str, *offsets: float, **options: object) -> Condition:
    """A condition with a seed for each offset from the learning curve."""
    results = tuple(
        made(name, seed, **{"curve": lambda million, offset=offset: learning(million) + offset} | options)  # type: ignore[arg-type]
        for seed, offset in enumerate(offsets or (0.0,), start=1)
    )
    return Condition(name, results)
