"""What training is measured against: plain loops of the same model, alone, side by side, and under torch's DDP."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from nmt_async.cluster.child import settle_in, thread_environment
from nmt_async.cluster.worker_process import WorkerSettings
from nmt_async.errors import RunFailure
from nmt_async.model.build import build_model
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.text.prepared import PreparedData

CLIP_NORM = 1.0


class PlainLoop:
    """The loop that everybody writes: forward, backward, clip, step, batch after batch.

    Args:
        settings: model, data and loss.
        plan: of the batches.
        rank, ranks: this loop takes every ``ranks``-th batch, beginning with number ``rank``.
        group: average gradients with the other ranks by torch's DistributedDataParallel.
    """

    def __init__(self, settings: WorkerSettings, plan: BatchPlan, rank: int, ranks: int, group: bool) -> None:
        self.data = PreparedData.open(settings.data).train
        self.plan = plan
        self.number, self.ranks = rank, ranks
        self.label_smoothing = settings.label_smoothing
        model = build_model(settings.configuration, settings.seed).train()
        self.model: nn.Module = nn.parallel.DistributedDataParallel(model) if group else model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), fused=True)

    def run(self, batches: int) -> int:
        """Trains on so many batches; their target tokens."""
        return sum(self._step() for _ in range(batches))

    def _step(self) -> int:
        epoch = self.plan.epoch(1)
        batch = self.data.batch(self.plan.sentences(BatchId(1, self.number % len(epoch))))
        self.number += self.ranks
        self.optimizer.zero_grad(set_to_none=True)
        logits, targets = self.model(batch)
        loss = smoothed_cross_entropy(logits, targets, self.label_smoothing) / len(targets)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return batch.target_tokens


def run_rival(
    settings: WorkerSettings, plan: BatchPlan, rank: int, ranks: int, meeting: str | None, pipe: Connection
) -> None:
    """The body of a rival's process: runs so many batches whenever it is told to, and says how long they took."""
    settle_in(settings.threads)
    if meeting is not None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks)
    loop = PlainLoop(settings, plan, rank, ranks, group=meeting is not None)
    pipe.send(None)
    try:
        while batches := pipe.recv():
            begin = time.monotonic()
            tokens = loop.run(batches)
            pipe.send((tokens, time.monotonic() - begin))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class Rival:
    """Processes that run plain loops.

    Args:
        ranks: how many processes.
        group: they average their gradients by DistributedDataParallel over Gloo; else they never exchange anything.

    Raises:
        RunFailure: a process ended.
    """

    def __init__(self, settings: WorkerSettings, plan: BatchPlan, ranks: int, group: bool = False) -> None:
        self._folder = TemporaryDirectory(prefix="nmt-async-bench-")
        meeting = str(Path(self._folder.name) / "meeting") if group else None
        context = multiprocessing.get_context("spawn")
        self._processes: list[SpawnProcess] = []
        self._pipes: list[Connection] = []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            arguments = (settings, plan, rank, ranks, meeting, theirs)
            process = context.Process(target=run_rival, args=arguments, name=f"rival {rank}", daemon=True)
            with thread_environment(settings.threads):
                process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)
        self._hear()

    def turn(self, batches: int) -> float:
        """Target tokens a second over ``batches`` batches of each process."""
        for pipe in self._pipes:
            pipe.send(batches)
        return sum(tokens / seconds for tokens, seconds in self._hear())

    def _hear(self) -> list[tuple[int, float]]:
        try:
            return [pipe.recv() for pipe in self._pipes]
        except EOFError:
            raise RunFailure("a process of the plain loop ended; out of memory?") from None

    def close(self) -> None:
        """Ends the processes."""
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.kill()
            process.join()
            pipe.close()
        self._folder.cleanup()
