"""A cluster of processes over shared memory: the parent is the server, each worker a child.

Parameters, one gradient slot a worker and what pushes leave behind lie in shared memory, where the server computes. The
parent waits on the workers' pipes and on their end at once, so that a death is an event like a push: the batch goes
back and a new worker takes the place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor

from nmt_async.cluster.cluster import SpentTime, everybody_waits
from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.machine import MachineCoordinator
from nmt_async.cluster.memory import Memory
from nmt_async.cluster.task import Computed, Handled
from nmt_async.cluster.worker import Failed, Left, Ready, WorkerSettings, run_worker
from nmt_async.errors import RunFailure
from nmt_async.machines.exchange import Called, Exchange
from nmt_async.process.child import Child
from nmt_async.process.watchdog import Watchdog, Watched
from nmt_async.sync.push import Update, Verdict
from nmt_async.text.plan import BatchId
from nmt_async.text.read_ahead import ReadAhead


@dataclass
class WorkerProcess(Watched):
    """A worker's process, which may be replaced, and what is known of it.

    Attributes:
        device: where it computes.
        gone: its process or its pipe has ended.
        deaths: in a row.
        dealt: when it was given its latest task, by the monotonic clock; None if it never was.
        computing: seconds spent on batches since `ProcessCluster.waiting_shares` was last asked.
        waiting: seconds spent waiting for a task since then.
        tokens: target tokens of all its pushes that counted.
        latest: when its latest push was taken in, by the monotonic clock.
        most: padded tokens that it computes at once, found when memory failed; 0: no limit is known.
        task: the number of its latest task.
        leaving: it was told to leave that task, and has not answered yet.
    """

    device: str = "cpu"
    gone: bool = False
    deaths: int = 0
    dealt: float | None = None
    computing: float = 0.0
    waiting: float = 0.0
    tokens: int = 0
    latest: float = 0.0
    most: int = 0
    task: int = 0
    leaving: bool = False

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def pipe(self) -> Connection:
        """To its process."""
        return self.process.pipe

    def next_message(self) -> object | None:
        """What the worker said next, None if nothing more for now; after its pipe's end it is gone."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self.gone = True
            return None

    def tell(self, message: object) -> None:
        """Sends it something; if it just died, its sentinel says so."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)


DEATHS_IN_A_ROW = 5
"""Deaths of one worker with no push of its between them, after which the run stops."""

ASKED_AHEAD = 4
"""Batches of each worker whose sentences are asked for before they are dealt."""

TICK = 0.5
"""Seconds without an update after which the training loop is woken anyway."""


class ProcessCluster:
    """Workers in processes, one for each of ``devices``.

    Args:
        coordinator: decides; its server's parameters lie in ``memory.ring``.
        warn: takes one sentence about a worker that died, or of which nothing is heard.
        log: takes the process id of each worker, the traceback of one that ended with an exception, and the stacks of
            all when one is silent.
        observe: takes the times of each push, by the monotonic clock.
        timeout: seconds of silence after which a worker is replaced; 0: never. See `Silence`.
        exchange: with other machines, if there are any; the coordinator is a `MachineCoordinator` then.
        read_ahead: told which sentences are needed soon; it is closed with the cluster.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        memory: Memory,
        settings: WorkerSettings,
        devices: list[str],
        warn: Callable[[str], None],
        log: Callable[[str], None] = lambda _: None,
        observe: Callable[[Handled], None] | None = None,
        timeout: float = 600.0,
        exchange: Exchange | None = None,
        read_ahead: ReadAhead | None = None,
    ) -> None:
        self.coordinator = coordinator
        self._read_ahead = read_ahead
        self._asked_for: set[BatchId] = set()
        self._exchange = exchange
        self.memory = memory
        self._slots = memory.pushes()
        self._stops = memory.left_tasks
        self._tasks = 0
        self.settings = settings
        self.warn = warn
        self.log = log
        self.observe = observe
        self.watchdog = Watchdog(timeout, warn, log)
        if set(devices) == {"cpu"}:
            # The workers want all cores; and a norm's last bits, on which clipping depends, depend on the threads.
            torch.set_num_threads(1)
        coordinator.clock = time.monotonic
        self._reading = 0.0  # seconds of which nobody was told
        self._timed = (0, 0.0)  # updates, and the seconds that they took, of which somebody was told
        self._workers: list[WorkerProcess] = []
        self._spent = SpentTime()
        self._begin: float | None = None
        try:
            for index, device in enumerate(devices):
                self._workers.append(self._spawn(index, device))
            self._ask_ahead()
        except BaseException:
            self.close()
            raise

    def _spawn(self, index: int, device: str, most: int = 0) -> WorkerProcess:
        arguments = (index, self.settings, device, self.memory, most)
        try:
            process = Child(f"worker {index}", run_worker, arguments, self.settings.threads)
        except OSError as error:
            raise RunFailure(f"worker {index} could not be started ({error.strerror or error}).") from None
        self.log(f"[worker] {index} is process {process.pid}")
        worker = WorkerProcess(process, device=device, most=most)
        self.watchdog.heard(worker)
        return worker

    @property
    def pids(self) -> list[int]:
        """The workers' process ids, by worker."""
        return [worker.pid for worker in self._workers]

    @property
    def seconds(self) -> float:
        """Since the first task of this sitting was given out: the start of processes is no training."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def updates(self) -> Iterator[Update | None]:
        """Every update as it is applied, and None after half a second without one; ends with a finite stream.

        Raises:
            RunFailure: a worker died again and again, too many batches were set aside, or another machine is gone.
        """
        due = self.coordinator.due()  # nobody computes yet, so nobody restarts
        if due is not None:
            yield due
        latest = time.monotonic()
        while not self.coordinator.finished:
            self._deal()
            if self._exchange is None and all(map(self._is_idle, range(len(self._workers)))):
                raise everybody_waits(self.coordinator.rule)
            for update in self._receive():
                self._deal()
                latest = time.monotonic()
                yield update
            if time.monotonic() - latest > TICK:
                latest = time.monotonic()
                yield None
        last = self.stop()
        if last is not None:
            yield last

    def stop(self) -> Update | None:
        """Ends the run; see `Coordinator.stop`. What workers push from now on is not read."""
        self.close()
        return self.coordinator.stop()

    def pause(self) -> None:
        """Ends the workers. What they are at is begun again when the run goes on; a round under way stays open."""
        self.close()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Nothing: what the workers are at is begun again."""
        return {}, {}

    def restore(self, values: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Nothing to take up."""

    def drain(self) -> Iterator[Update]:
        """Takes in what is being computed and gives out nothing new; yields the updates on the way."""
        while not all(map(self._is_idle, range(len(self._workers)))):
            yield from self._receive()

    def work_done(self) -> list[tuple[int, float]]:
        """Of each worker, the target tokens of its pushes that counted, and when the latest came (monotonic clock)."""
        return [(worker.tokens, worker.latest) for worker in self._workers]

    def _deal(self) -> None:
        """Gives every idle worker a task that may have one."""
        for index, worker in enumerate(self._workers):
            if not self._is_idle(index):
                continue
            task = self.coordinator.next_task(index)
            self._restart()  # a machine among several may have made an update of its own
            if task is not None:
                worker.dealt = time.monotonic()
                if self._begin is None:
                    self._begin = worker.dealt
                self.watchdog.heard(worker)
                self._tasks += 1
                worker.task = self._tasks
                self.memory.streams.hand_over(index)
                worker.tell(replace(task, number=worker.task))
                self._ask_ahead()

    def _ask_ahead(self) -> None:
        """Asks for the sentences of the batches that come next; not of another epoch, whose plan may take a while."""
        if self._read_ahead is None:
            return
        upcoming = self.coordinator.ledger.upcoming(ASKED_AHEAD * len(self._workers))
        upcoming = [batch for batch in upcoming if batch.epoch == upcoming[0].epoch]
        for batch in upcoming:
            if batch not in self._asked_for:
                self._read_ahead.soon(self.coordinator.plan.sentences(batch))
        self._asked_for = set(upcoming)

    def _receive(self) -> Iterator[Update]:
        """Waits for messages and deaths, a tick at most; yields the updates they complete."""
        busy = {index: self._place(index) for index in range(len(self._workers)) if not self._is_idle(index)}
        for index in self.watchdog.look(self._workers, busy):
            yield from self._replace(index, self._workers[index])
        self._call_others()
        sources: dict[Connection | int, int] = {}
        for index, worker in enumerate(self._workers):
            sources[worker.pipe] = index
            sources[worker.process.sentinel] = index
        others = [] if self._exchange is None else [self._exchange.fileno()]
        ready = wait([*sources, *others], timeout=TICK)
        if self._exchange is not None and self._exchange.fileno() in ready:
            yield from self._hear_others(self._exchange)
            ready.remove(self._exchange.fileno())
        for index in dict.fromkeys(sources[source] for source in ready):  # type: ignore[index]
            worker = self._workers[index]
            worker.gone = worker.process.sentinel in ready
            # Of a worker that spoke and died, what it said comes first.
            while (message := worker.next_message()) is not None:
                update = self._hear(index, worker, message)
                if update is not None:
                    yield update
            if worker.gone:
                yield from self._replace(index, worker)

    def _call_others(self) -> None:
        """Begins an exchange between the machines if this one is ready for it."""
        if self._exchange is not None:
            assert isinstance(self.coordinator, MachineCoordinator)
            self._exchange.check()
            if self.coordinator.ready:
                self._exchange.call()

    def _hear_others(self, exchange: Exchange) -> Iterator[Update]:
        """What has happened between the machines; yields the updates that come of it."""
        machine = self.coordinator
        assert isinstance(machine, MachineCoordinator)
        while (happened := exchange.take()) is not None:
            if isinstance(happened, Called):
                machine.spent = self._spent.take_seconds(self._workers)
                exchange.begin(*machine.contribute())
                self._restart()
                continue
            update = machine.land(happened.joint, happened.total)
            self._restart()
            if update is not None:
                yield update

    def _is_idle(self, index: int) -> bool:
        """Whether the worker has said that it is ready, lives, and is at nothing."""
        worker = self._workers[index]
        at_nothing = index not in self.coordinator.ledger.out and not worker.leaving
        return not worker.starting and not worker.gone and at_nothing

    def _place(self, index: int) -> str:
        """Where the worker is, in words."""
        begun = self.coordinator.ledger.out.get(index)
        if begun is not None:
            return f"at batch {begun.batch.number} of epoch {begun.batch.epoch}"
        if self._workers[index].leaving:
            return "at a batch that it was told to leave"
        return "before it had a batch" if self._workers[index].dealt is None else "while it waited for a batch"

    def _hear(self, index: int, worker: WorkerProcess, message: object) -> Update | None:
        self.watchdog.heard(worker)
        if isinstance(message, Failed):
            worker.error = message.error
            self.log(message.trace)
            return None
        if isinstance(message, Ready):
            worker.starting = False
            return None
        if worker.leaving:  # what it had computed before it was told does not count either
            assert isinstance(message, Left | Computed)
            worker.leaving = False
            worker.computing += message.seconds
            worker.waiting += message.waited
            return None
        assert isinstance(message, Computed)
        worker.deaths, worker.error = 0, ""
        worker.computing += message.seconds
        worker.waiting += message.waited
        self._reading += message.reading
        self.watchdog.silence.computed(message.seconds)
        if message.most != worker.most:
            worker.most = message.most
            self.warn(
                f"worker {index} did not have enough memory for a batch of {message.tokens:,} target tokens; from now "
                f"on it computes at most {worker.most:,} tokens of both sides at once, padding included, and sums the "
                f"pieces."
            )
        heard, before = time.monotonic(), self.coordinator.updating
        answer = self.coordinator.push(index, message, self._slots.message(index, message.entries))
        self._restart()
        worker.latest = time.monotonic()
        if answer.verdict is Verdict.ACCEPTED:
            worker.tokens += message.tokens
        if self.observe is not None:
            assert worker.dealt is not None
            updated, updating = answer.update is not None, self.coordinator.updating - before
            self.observe(Handled(index, message, worker.dealt, heard, worker.latest, updated, updating))
        return answer.update

    def _restart(self) -> None:
        """Tells the workers whose pushes an update made too old to leave their tasks; each answers when it has."""
        for index in self.coordinator.take_restarted():
            self._workers[index].leaving = True
            self._stops[index] = self._workers[index].task

    def _replace(self, index: int, worker: WorkerProcess) -> Iterator[Update]:
        """A worker has ended: its batch goes back, a new one takes its place. Yields an update that waited for it.

        Raises:
            RunFailure: it died once too often, or cannot be replaced. The update counts all the same.
        """
        worker.gone = True  # also where it was the watchdog that gave it up
        worker.process.end()  # It may live on without its pipe, and then is of no use.
        self.watchdog.ended(worker)
        how, where = worker.ending, self._place(index)
        worker.process.close()
        deaths = worker.deaths + 1
        try:
            update = self.coordinator.died(index)
        except RunFailure as failure:
            raise RunFailure(f"worker {index} died {where} ({how}); {failure}") from None
        self._restart()
        if update is not None:
            yield update
        if deaths >= DEATHS_IN_A_ROW:
            raise RunFailure(f"worker {index} died {deaths} times in a row, the last time {where}: {how}.")
        self.warn(f"worker {index} died {where} ({how}); a new one takes its place.")
        new = self._spawn(index, worker.device, worker.most)
        new.deaths, new.computing, new.waiting = deaths, worker.computing, worker.waiting
        new.tokens, new.latest = worker.tokens, worker.latest
        self._workers[index] = new

    def waiting_shares(self) -> list[float]:
        """Of each worker, the share of its time since the last call that it waited for a task."""
        return self._spent.take_waiting_shares(self._workers)

    def reading_seconds(self) -> float:
        """Seconds since the last call in which workers read the sentences of their batches, of all together."""
        seconds, self._reading = self._reading, 0.0
        return seconds

    def update_seconds(self) -> float:
        """Mean seconds that the server needed for an update since the last call; 0 if there was none."""
        (updates, seconds), self._timed = self._timed, (self.coordinator.updates, self.coordinator.updating)
        made = self._timed[0] - updates
        return (self._timed[1] - seconds) / made if made else 0.0

    def close(self) -> None:
        """Ends the workers; what they compute is lost. Safe to call twice."""
        if self._read_ahead is not None:
            self._read_ahead.close()
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.end()
            self.watchdog.ended(worker)
            worker.process.close()
