"""Throughput of training here: contenders take turns, so that a noisy machine slows all of them alike.

Each contender has its processes up from the beginning; a turn is so many batches of each process. Ratios are taken
within a round, against the bound: as many plain loops side by side that never exchange anything. It is measured, too,
how well a simulation with a calibrated profile predicts all this.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from nmt_async.bench.contenders import RIVALS, contenders
from nmt_async.bench.options import BOUND, BenchOptions
from nmt_async.cluster.loops import Turn
from nmt_async.cluster.profile import ClusterProfile
from nmt_async.cluster.task import Handled
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.errors import RunFailure
from nmt_async.model.build import build_unfilled
from nmt_async.model.parameters import FlatLayout
from nmt_async.planning.advice import Expected, expected
from nmt_async.planning.calibration import calibrated, throughput, waiting_share
from nmt_async.planning.simulation import nominal_cluster
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.sync.rules import Rule
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import checked_configuration, hidden_matrices, training_plan
from nmt_async.training.worker_count import with_measured_workers

SIMULATED_PUSHES = 1000
"""Of each worker, so that the jitter of single batches does not show."""


@dataclass(frozen=True)
class Compared:
    """A figure, as it was predicted and as it was measured."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else float("inf") if self.predicted else 0.0


@dataclass(frozen=True)
class Agreement:
    """Between a simulation and a measurement of one cluster.

    Attributes:
        name: of the contender.
        tokens_per_second: target tokens.
        waiting_share: of its workers' time.
    """

    name: str
    tokens_per_second: Compared
    waiting_share: Compared


def agreements(
    profile: ClusterProfile,
    rules: Mapping[str, Rule],
    plan: BatchPlan,
    sittings: Mapping[str, Sequence[Sequence[Handled]]],
    seed: int,
) -> list[Agreement]:
    """Simulates every cluster with the profile, on the same batches; what is measured is the median of sittings.

    Args:
        rules: of each cluster.
        plan: of their batches.
        sittings: of each cluster, the pushes of each of its turns; its workers are the first of the profile's.
        seed: of the simulation's jitter.
    """
    compared = []
    for name, rule in rules.items():
        measured = sittings[name]
        workers = len({push.worker for pushes in measured for push in pushes})
        simulated = _simulated(rule, replace(profile, workers=profile.workers[:workers]), plan, seed)
        compared.append(
            Agreement(
                name,
                Compared(throughput(simulated), median(map(throughput, measured))),
                Compared(waiting_share(simulated), median(map(waiting_share, measured))),
            )
        )
    return compared


def _simulated(rule: Rule, profile: ClusterProfile, plan: BatchPlan, seed: int) -> list[Handled]:
    pushes: list[Handled] = []
    # The profile's latency is of messages that have brought everything: nothing is left for the link.
    cluster = nominal_cluster(rule, profile, plan, 0, seed, pushes.append)
    for _ in cluster.updates():
        if len(pushes) >= SIMULATED_PUSHES * len(profile.workers):
            break
    return pushes


@dataclass(frozen=True)
class ContenderResult:
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
        ways: what to expect here of several ways of updating, the best first; empty where too little was measured.
    """

    results: list[ContenderResult]
    profile: ClusterProfile | None
    agreements: list[Agreement]
    ways: list[Expected]

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


def with_workers(options: BenchOptions, data_folder: Path, say: Callable[[str], None]) -> BenchOptions:
    """The options with a number of workers, where they ask for as many as compute most; see `with_measured_workers`."""
    train = with_measured_workers(options.train_options(), PreparedData.open(data_folder), say)
    if train.workers == options.workers:
        return options
    return replace(options, workers=train.workers, cpu_threads=train.cpu_threads)


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
    configuration = checked_configuration(train, data)
    settings = WorkerSettings(
        data.folder.resolve(), configuration, options.seed, train.label_smoothing, options.threads(),
        train.push_settings(), train.computed_with(), train.precision,
    )  # fmt: skip
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
    asked = options.profile_out is not None or options.check
    profile, compared = _profile(turns[_name(options)], asked), []
    if options.check and profile is not None:
        sittings = {name: [turn.pushes for turn in turns[name]] for name in ours}
        compared = agreements(profile, {name: ours[name].rule() for name in ours}, plan, sittings, options.seed)
    ways = [] if profile is None else _expected_ways(train, settings, profile)
    return Measured(_results(options, turns), profile if asked else None, compared, ways)


def _profile(own: Sequence[Turn], asked: bool) -> ClusterProfile | None:
    """That of the setting's cluster; None where too little was measured and nobody asked for it.

    Raises:
        RunFailure: too little was measured.
    """
    try:
        measured = calibrated([turn.pushes for turn in own], "measured")
    except RunFailure:
        if asked:
            raise
        return None
    return replace(measured, operations_per_update=float(own[0].operations))


def _expected_ways(train: TrainOptions, settings: WorkerSettings, profile: ClusterProfile) -> list[Expected]:
    """What to expect here of the ways that the study of repairs knows."""
    layout = FlatLayout(build_unfilled(settings.configuration))
    nothing, matrices = torch.empty(layout.size, device="meta"), hidden_matrices(layout)
    operations = {
        name: FlatOptimizer(nothing, replace(train.settings(), name=name), matrices).operations
        for name in ("adam", "muon")
    }
    return expected(profile, train.mini_batch_words, operations, layout.operations_per_token)


def _results(options: BenchOptions, turns: dict[str, list[Turn]]) -> list[ContenderResult]:
    """In the order in which contenders were asked for."""
    bound = [turn.rate for turn in turns.get(BOUND, [])]
    results = []
    for name in [_name(options), *dict.fromkeys(options.against)]:
        rates = [turn.rate for turn in turns[name]]
        ratios = [rate / best for rate, best in zip(rates, bound, strict=True)] if bound else []
        results.append(ContenderResult(name, rates, ratios, [turn.cpu_rate for turn in turns[name] if turn.cpu_rate]))
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
    return f"{options.rule().name}, {workers} worker{'s' if workers > 1 else ''}"
