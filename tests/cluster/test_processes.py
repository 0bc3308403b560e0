"""Workers in real processes: what the journal says of them happens again, and nothing of a batch is lost."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_rules import Never, Patient, PutOff
from training_runs import (
    assert_each_batch_counted,
    assert_same_state,
    events_of,
    kill_child,
    replayed,
    run_small,
    saved_state,
    small_options,
)

from nmt_async.cluster import processes
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.memory import Memory
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.worker import Worker, WorkerSettings
from nmt_async.errors import RunFailure
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync import Event, Hybrid, Kind, ParameterServer, Rule, Update, effective, ledger_of
from nmt_async.text.prepared import PreparedData
from nmt_async.training.metrics import Moment, ReportPeriod
from nmt_async.training.parts import model_configuration, training_plan


def kill_both() -> None:
    kill_child("worker 0")
    kill_child("worker 1")


def test_an_asynchronous_journal_replays_to_bit_equal_parameters(small_data: Path, tmp_path: Path) -> None:
    witness = run_small(small_data, tmp_path / "run", sync_mode="async", stop_after="16")
    assert witness.warnings == []
    assert torch.equal(replayed(tmp_path / "run", small_data), saved_state(tmp_path / "run")["parameters"])


def test_killed_workers_lose_no_batch_and_replay(small_data: Path, tmp_path: Path) -> None:
    acts = {4: kill_both, 12: lambda: kill_child("worker 0")}
    witness = run_small(small_data, tmp_path / "run", acts, accumulate=3, stop_after="2e")
    events = events_of(tmp_path / "run")
    assert assert_each_batch_counted(tmp_path / "run", small_data, 2).set_aside == []
    returned = [(event.worker, event.batch) for event in events if event.kind is Kind.RETURNED]
    assert returned  # at least the worker whose push made update 4 had begun another batch
    for worker, (epoch, number) in returned:
        told = f"worker {worker} died at batch {number} of epoch {epoch} (killed by signal 9; out of memory?)"
        assert sum(told in warning for warning in witness.warnings) == 1
    assert sum("a new one takes its place" in warning for warning in witness.warnings) == 3
    assert torch.equal(replayed(tmp_path / "run", small_data), saved_state(tmp_path / "run")["parameters"])


def test_neither_a_death_nor_a_stop_changes_anything_in_sync(small_data: Path, tmp_path: Path) -> None:
    calm, troubled = tmp_path / "calm", tmp_path / "troubled"
    assert run_small(small_data, calm, sync_mode="sync", accumulate=2, stop_after="8").warnings == []
    death = {3: lambda: kill_child("worker 0")}
    run_small(small_data, troubled, death, sync_mode="sync", accumulate=2, stop_after="5")
    run_small(small_data, troubled, sync_mode="sync", accumulate=2, stop_after="8")
    assert_same_state(calm, troubled)
    for run in (calm, troubled):
        assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])


def rule_cluster(
    data: Path, rule: Rule, events: list[Event], warnings: list[str]
) -> tuple[ProcessCluster, Memory, PreparedData]:
    """Two real workers under a rule that no option names."""
    prepared, options = PreparedData.open(data), small_options(data, sync_mode="async")
    configuration = model_configuration(options, prepared)
    model = build_model(configuration, options.seed)
    layout = FlatLayout(model)
    memory = Memory(2, layout.size)
    memory.ring.tensor[0].copy_(layout.gather(model))
    server = ParameterServer(memory.ring.tensor, rule, options.schedule(None), options.settings())
    coordinator = Coordinator(server, training_plan(options, prepared), events.append, warnings.append, last_epoch=1)
    settings = WorkerSettings(data, configuration, options.seed, options.label_smoothing, 1)
    return ProcessCluster(coordinator, memory, settings, ["cpu", "cpu"], warnings.append), memory, prepared


def replaced(warnings: list[str]) -> int:
    """How many workers died and were replaced."""
    return sum("a new one takes its place" in warning for warning in warnings)


@pytest.mark.parametrize("rule", [PutOff(2, bound=1), Patient(3, bound=1)], ids=str)
def test_a_rule_of_ones_own_goes_through_deaths_a_pause_and_a_replay(small_data: Path, rule: Rule) -> None:
    events: list[Event] = []
    warnings: list[str] = []
    state = None
    for sitting in range(2):
        cluster, memory, prepared = rule_cluster(small_data, rule, events, warnings)
        try:
            if state is not None:
                cluster.coordinator.restore(*state, workers=2)
            for number, update in enumerate(filter(None, cluster.updates())):
                if isinstance(rule, PutOff):
                    assert max(update.staleness) <= rule.bound
                if sitting == 0 and number == 2:
                    kill_child("worker 1")
                if sitting == 0 and replaced(warnings):
                    break
            else:
                assert cluster.coordinator.finished
            if sitting == 0:
                cluster.pause()
            values, tensors = cluster.coordinator.state()
            state = json.loads(json.dumps(values)), {name: tensor.clone() for name, tensor in tensors.items()}
        finally:
            cluster.close()
            memory.close()
    assert replaced(warnings) == 1
    plan = cluster.coordinator.plan
    standing = effective(events)
    ledger = ledger_of(standing, lambda epoch: len(plan.epoch(epoch)))
    assert (ledger.applied, ledger.out, ledger.waiting) == (len(plan.epoch(1)), {}, [])

    options = small_options(small_data, sync_mode="async")
    configuration = model_configuration(options, prepared)
    model = build_model(configuration, options.seed)
    layout = FlatLayout(model)

    def build(record: Callable[[Event], None], workers: int) -> Coordinator:
        buffers = torch.zeros(workers + 1, layout.size)
        buffers[0].copy_(layout.gather(model))
        server = ParameterServer(buffers, rule, options.schedule(None), options.settings())
        return Coordinator(server, plan, record, lambda _: None, last_epoch=1)

    worker = Worker(build_model(configuration), options.seed, options.label_smoothing, torch.device("cpu"))
    replay = Replay(build, worker, prepared.train, 2)
    replay.run(standing)
    assert torch.equal(replay.coordinator.server.parameters, state[1]["parameters"])


RESTARTING = {"sync_mode": "async", "oldest_push": 0, "older_pushes": "restart"}
"""Each push of one worker makes the other begin anew."""


def test_workers_that_are_told_to_restart_do_so_through_deaths_a_pause_and_a_replay(
    small_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    witness = run_small(small_data, run, {4: lambda: kill_child("worker 1")}, **RESTARTING, stop_after="10")
    assert replaced(witness.warnings) == 1
    run_small(small_data, run, **RESTARTING, stop_after="1e")
    events = events_of(run)
    kinds = Counter(event.kind for event in events)
    assert kinds[Kind.RESTARTED] >= 10
    assert kinds[Kind.REFUSED] == kinds[Kind.SET_ASIDE] == 0
    assert_each_batch_counted(run, small_data, 1)
    assert torch.equal(replayed(run, small_data), saved_state(run)["parameters"])


def test_pushes_that_are_too_stale_are_computed_again_and_are_no_work(small_data: Path) -> None:
    events: list[Event] = []
    cluster, memory, _ = rule_cluster(small_data, Hybrid(1, oldest_push=0), events, [])
    try:
        tokens = sum(update.tokens for update in filter(None, cluster.updates()))
        assert sum(done for done, _ in cluster.work_done()) == tokens
    finally:
        cluster.close()
        memory.close()
    period = ReportPeriod(Moment())
    for event in events:
        period.record(event)
    refused = [event.kind for event in events].count(Kind.REFUSED)
    assert 0 < refused == period.refused_stale
    assert period.refused_not_finite == 0


def note_versions(updates: Iterator[Update | None], versions: list[int]) -> None:
    for update in filter(None, updates):
        versions.append(update.version)


@pytest.mark.parametrize("resumed", [False, True])
def test_an_update_that_waits_for_a_worker_is_made_when_it_dies_for_the_last_time_or_the_run_is_resumed(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    monkeypatch.setattr(processes, "DEATHS_IN_A_ROW", 1)
    cluster, memory, _ = rule_cluster(small_data, Hybrid(2, max_staleness=1), [], [])
    coordinator, updates = cluster.coordinator, cluster.updates()
    ledger, versions = coordinator.ledger, [0]
    try:
        while not (0 in ledger.out and 1 not in ledger.out and len(ledger.accumulated) == 2):
            update = next(updates)
            versions += [update.version] if update else []
            if 0 in ledger.out:
                os.kill(cluster.pids[0], signal.SIGSTOP)
        if not resumed:
            kill_child("worker 0")
            with pytest.raises(RunFailure, match="worker 0 died 1 times in a row"):
                note_versions(updates, versions)
        state = coordinator.state()
    finally:
        cluster.close()
        memory.close()
    if resumed:
        cluster, memory, _ = rule_cluster(small_data, Hybrid(2, max_staleness=1), [], [])
        coordinator = cluster.coordinator
        try:
            coordinator.restore(*state)
            versions.append(next(filter(None, cluster.updates())).version)
        finally:
            cluster.close()
            memory.close()
    assert versions == list(range(coordinator.server.version + 1)), "the training loop hears of every update"
    assert not coordinator.ledger.accumulated


def test_workers_that_all_wait_end_the_run_with_the_reason(small_data: Path) -> None:
    cluster, memory, _ = rule_cluster(small_data, Never(9), [], [])
    try:
        with pytest.raises(RunFailure, match=r"every worker waits for another: the rule hybrid:9 never lets any"):
            next(filter(None, cluster.updates()))
    finally:
        cluster.close()
        memory.close()
