"""Results of runs that never were, plausible and the same each time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from nmt_async.planning.modes import mode_options
from nmt_async.study.bootstrap import DRAWS
from nmt_async.study.result import Machine, MachinePoint, Point, Result, TrainPoint
from nmt_async.study.setting import Setting

COURSES = {
    "sync": (1.72, 37.0, 3100.0, {0: 4 * 610}, (0.02, 0.17, 0.21, 0.19)),
    "async": (2.05, 29.5, 4080.0, {0: 12, 1: 190, 2: 610, 3: 1480, 4: 140, 5: 8}, (0.01, 0.01, 0.012, 0.01)),
    "hybrid:4": (1.76, 36.1, 4010.0, {0: 1210, 1: 1210, 2: 20}, (0.011, 0.01, 0.009, 0.012)),
    "local:4": (1.84, 34.2, 4050.0, {0: 4, 1: 30, 2: 120, 3: 440, 4: 16}, (0.01, 0.012, 0.011, 0.009)),
}
"""Condition: where cross-entropy and BLEU go, tokens a second, staleness, waiting."""


def result(condition: str = "sync", seed: int = 1, points: int = 12, **changes: Any) -> Result:
    """Of a run of 5 million tokens."""
    mode = condition if condition in COURSES else "sync"
    floor, ceiling, rate, staleness, waiting = COURSES[mode]
    generator = np.random.default_rng([seed, *condition.encode()])
    batch = 2040.0 if mode == "async" else 8160.0
    floor, ceiling, rate = (
        floor + 0.03 * generator.normal(),
        ceiling + 0.5 * generator.normal(),
        rate * (1 + 0.01 * seed),
    )
    shift = np.random.default_rng(5).normal(0.0, 0.03, DRAWS)  # the same sentences in every run
    validations = []
    for number in range(1, points + 1):
        tokens = int(5e6 * number / points)
        left = math.exp(-tokens / 9e5)
        entropy = floor + 3.9 * left + 0.02 * generator.normal()
        validations.append(
            Point(
                update=int(tokens / batch), tokens=tokens, seconds=tokens / rate, epochs=tokens / 515_000,
                cross_entropy=entropy,
                bleu=ceiling * (1 - left**0.7) + 0.3 * generator.normal(), chrf=60 * (1 - left**0.9) + 15 * left,
                resampled=tuple(map(float, entropy + shift + 0.004 * generator.normal(size=DRAWS))),
            )
        )  # fmt: skip
    stretches = []
    for number in range(1, 51):
        tokens = int(5e6 * number / 50)
        stretches.append(
            TrainPoint(
                update=int(tokens / batch), tokens=tokens, seconds=tokens / rate,
                loss=floor + 0.9 + 4.5 * math.exp(-tokens / 7e5) + 0.04 * generator.normal(),
                learning_rate=0.002 * min(tokens / 6e5, (6e5 / tokens) ** 0.5),
                gradient_norm=0.6 + math.exp(-tokens / 5e5) + 0.05 * abs(generator.normal()),
                effective_batch=batch * (1 + 0.004 * generator.normal()),
                staleness_mean=sum(age * count for age, count in staleness.items()) / sum(staleness.values()),
                tokens_per_second=rate * (1 + 0.03 * generator.normal()), waiting=waiting,
            )
        )  # fmt: skip
    options = mode_options(condition) if condition in COURSES else {"sync-mode": "sync"}
    setting = Setting(condition, seed, {**options, "preset": "tiny", "stop-after": "5Mt", "lr-warmup": "600kt"})
    made = Result(
        setting=setting, command=f"nmt-async train data --out runs/{setting.name} --seed {seed} "
        + " ".join(f"--{key} {value}" for key, value in setting.options.items()),
        folder=f"runs/{setting.name}", data="984e9635ee2d6e471f29a4bd2f6fe398", cluster="simulated", profile="uneven",
        workers=4, parameters=1_906_432,
        environment={"torch": "2.13.0+cpu", "machine": "x86_64", "cpu": "AVX512", "threads": 1, "nmt-async": "0.1.0"},
        updates=validations[-1].update if validations else 0, tokens=5_000_000, seconds=5e6 / rate,
        wall_seconds=1210.5, effective_batch=batch, tokens_per_second=rate, staleness=staleness, waiting=waiting,
        points=tuple(validations), stretches=tuple(stretches),
    )  # fmt: skip
    return replace(made, **changes)


def machines(count: int = 3) -> tuple[Machine, ...]:
    """Machines of one worker, of which number r + 1 does as much more than number r as the first one does."""
    return tuple(
        Machine(f"machine {rank} (node{rank:03}.cluster.example.org)", 1, tuple(
            MachinePoint(30.0 * part, 30.0, 1000 * (rank + 1) * part, 10, 0.1 + 0.01 * part, None if rank else 1.5)
            for part in range(1, 6)
        ))
        for rank in range(count)
    )  # fmt: skip


def study(conditions: tuple[str, ...] = tuple(COURSES), seeds: int = 2) -> list[Result]:
    """Several results of each condition."""
    return [result(condition, seed) for condition in conditions for seed in range(1, seeds + 1)]
