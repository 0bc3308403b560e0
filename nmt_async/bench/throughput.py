"""Throughput of training here: every contender's turns alternate in one run, so that a noisy machine wrongs none.

Each contender has its processes up from the beginning; a turn is so many batches of each process. Ratios are taken
within a round, against the bound: as many plain loops side by side that never exchange anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nmt_async.bench.agreement import Agreement, agreements
from nmt_async.bench.contenders import RIVALS, contenders
from nmt_async.bench.options import BOUND, BenchOptions
from nmt_async.bench.rivals import Turn
from nmt_async.cluster.profile import ClusterProfile
from nmt_async.cluster.worker_process import WorkerSettings
from nmt_async.planning.calibration import calibrated
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import model_configuration, training_plan


@dataclass(frozen=True)
class Result:
    """One contender's figures.

    Attributes:
        name: as in `AGAINST`, or the measured setting.
        rates: target tokens a second, one for each round.
        ratios: to the bound, in the same round; empty if the bound was not measured.
        cpu_rates: target tokens a second of processor time, one for each round; empty where that is not known.
    """

    name: str
    rates: list[float]
    ratios: list[float]
    cpu_rates: list[float]

    @property
    def rate(self) -> float:
        """The median rate."""
        return statistics.median(self.rates)

    @property
    def ratio(self) -> float | None:
        """The median ratio to the bound."""
        return statistics.median(self.ratios) if self.ratios else None


@dataclass(frozen=True)
class Measured:
    """What a measurement found.

    Attributes:
        results: of each contender, the setting first.
        profile: of the setting's cluster, where it was asked for.
        agreements: of our clusters, between their simulation with this profile and what was measured.
    """

    results: list[Result]
    profile: ClusterProfile | None
    agreements: list[Agreement]

    def cost_of_simulating(self) -> tuple[float, float] | None:
        """Time of the simulated cluster over that of its plain gradients, less 1: processor and wall time, medians.

        None unless both were measured.
        """
        named = {result.name: result for result in self.results}
        if not {"gradients", "simulated"} <= named.keys():
            return None
        plain, simulated = named["gradients"], named["simulated"]
        return _cost(plain.cpu_rates, simulated.cpu_rates), _cost(plain.rates, simulated.rates)


def _cost(plain: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(rate / slower for rate, slower in zip(plain, other, strict=True)) - 1


def measure(options: BenchOptions, data_folder: Path, step: Callable[[int], None]) -> Measured:
    """Measures the setting and what it is compared with, in alternation.

    Args:
        step: told after each turn how many are done of `BenchOptions.turns`.

    Raises:
        UserError: options that do not fit. RunFailure: a process ended, or too little was measured for a profile.
    """
    data = PreparedData.open(data_folder)
    train = options.train_options()
    plan = training_plan(train, data)
    settings = WorkerSettings(
        data.folder.resolve(), model_configuration(train, data), options.seed, train.label_smoothing, options.threads()
    )
    ours = _our_clusters(options)
    rivals = {name: train for name in options.against if name in RIVALS}
    with contenders(ours, rivals, settings, plan) as all_of_them:
        turns: dict[str, list[Turn]] = {name: [] for name in all_of_them}
        done = 0
        for round_number in range(options.rounds + 1):
            for name, contender in all_of_them.items():
                turn = contender.turn(options.batches if round_number else 2)
                done += 1
                step(done)
                if round_number:  # the first warms up
                    turns[name].append(turn)
    profile, compared = None, []
    if options.profile_out is not None or options.check:
        profile = calibrated([turn.pushes for turn in turns[_name(options)]], "measured")
    if options.check and profile is not None:
        sittings = {name: [turn.pushes for turn in turns[name]] for name in ours}
        compared = agreements(profile, {name: ours[name].rule() for name in ours}, plan, sittings, options.seed)
    return Measured(_results(options, turns), profile, compared)


def _results(options: BenchOptions, turns: dict[str, list[Turn]]) -> list[Result]:
    """In the order in which contenders were asked for."""
    bound = [turn.rate for turn in turns.get(BOUND, [])]
    results = []
    for name in [_name(options), *dict.fromkeys(options.against)]:
        rates = [turn.rate for turn in turns[name]]
        ratios = [rate / best for rate, best in zip(rates, bound, strict=True)] if bound else []
        results.append(Result(name, rates, ratios, [turn.cpu_rate for turn in turns[name] if turn.cpu_rate]))
    return results


def _our_clusters(options: BenchOptions) -> dict[str, TrainOptions]:
    train = options.train_options()
    known: dict[str, dict[str, Any]] = {
        "one-worker": {"workers": 1},
        "sync": {"sync_mode": "sync", "accumulate": 1},
        "async": {"sync_mode": "async", "accumulate": 1},
    }
    ours = {_name(options): train}
    for name in options.against:
        if name in known:
            ours[name] = replace(train, **known[name])
    return ours


def _name(options: BenchOptions) -> str:
    workers = len(options.device_list())
    return f"{options.sync_mode}:{options.pushes_summed}, {workers} worker{'s' if workers > 1 else ''}"
