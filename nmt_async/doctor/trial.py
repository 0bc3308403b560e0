"""Computes the longest batches once, in a child, so that running out of memory ends the child alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from nmt_async.cluster.worker import Worker, WorkerSettings, build_worker
from nmt_async.free_memory import own_peak
from nmt_async.model.build import build_model
from nmt_async.process.child import Child
from nmt_async.sync.compression.message import Room, Slots
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.parts import residual_rows
from nmt_async.training.stated_memory import VECTOR_BYTES
from nmt_async.training.validation_scores import ValidationSettings, batch_losses, validation_translator


@dataclass(frozen=True)
class Tried:
    """What a child came to.

    Attributes:
        problem: why it did not come through; empty if it did.
        seconds: that the longest batch took.
        memory: bytes that the process had of its own at most; on CUDA, those of the device.
        pieces: into which the batch had to be split; 1 if it fitted.
    """

    problem: str = ""
    seconds: float = 0.0
    memory: int = 0
    pieces: int = 1


def try_training(settings: WorkerSettings, device: str, batches: list[np.ndarray], parts: int, seed: int) -> Tried:
    """A gradient of each of the batches, forward and backward, as a worker computes it.

    Args:
        batches: indexes of sentences.
        parts: of one push; two show what more need.
    """
    return _in_child(_train, (settings, device, batches, min(parts, 2), seed), settings.threads, "trial of training")


def try_validation(settings: ValidationSettings, losses: list[np.ndarray], translate: list[str], seed: int) -> Tried:
    """Loss and translation of the longest validation batch, as the validation process computes them.

    Args:
        losses: the batches whose loss is computed.
        translate: lines of one batch, none where nothing is translated. New parameters end no translation before the
            limit, so that this is the longest that can be.
    """
    return _in_child(_validate, (settings, losses, translate, seed), 1, "trial of validation")


def _in_child(body: Callable[..., None], arguments: tuple[Any, ...], threads: int, name: str) -> Tried:
    try:
        child = Child(name, body, arguments, threads)
    except OSError as error:
        return Tried(f"its process could not be started ({error.strerror or error})")
    try:
        tried: Tried = child.pipe.recv()
    except EOFError:
        child.end()
        tried = Tried(child.ending)
    finally:
        child.close()
    return tried


def _train(
    settings: WorkerSettings, device: str, batches: list[np.ndarray], parts: int, seed: int, pipe: Connection
) -> None:
    try:
        place = torch.device(device)
        worker = build_worker(settings, place, vectors=[place])
        data = PreparedData.open(settings.data).train
        parameters = worker.layout.gather(build_model(settings.configuration, seed)).to(place)
        room, shared = _room(worker, settings.push)
        pieces, slowest = 1, 0.0
        for number, rows in enumerate(batches):
            begin = time.monotonic()
            computed = worker.compute(parameters, room, [data.batch(rows)] * parts, BatchId(1, number))
            slowest = max(slowest, time.monotonic() - begin)
            pieces = max(pieces, computed.pieces // parts)
        if worker.device.type == "cuda":
            peak = torch.cuda.max_memory_reserved(worker.device)
        else:
            peak = own_peak() - VECTOR_BYTES * worker.layout.size - shared
        pipe.send(Tried("", slowest / parts, peak, pieces))
    except Exception as error:
        pipe.send(Tried(f"{type(error).__name__}: {error}".splitlines()[0]))


def _room(worker: Worker, push: PushSettings) -> tuple[Room, int]:
    """Where a push is put, and how many bytes that takes, which are shared memory in a run."""
    there = torch.empty(0, device=worker.device)
    residuals = residual_rows(push, 1, worker.layout.size, there)
    kept = 0 if residuals is None else residuals.nbytes
    return Slots.of(worker.form, 1, there).room(0, residuals, 0), worker.form.bytes + kept


def _validate(
    settings: ValidationSettings, losses: list[np.ndarray], translate: list[str], seed: int, pipe: Connection
) -> None:
    try:
        data = PreparedData.open(settings.data)
        assert data.valid is not None
        model = build_model(settings.configuration, seed).eval()
        begin = time.monotonic()
        with torch.inference_mode():
            for rows in losses:
                batch_losses(model, data.valid.batch(rows))
        if translate:
            list(validation_translator(model, data, settings.beam_size).translate(translate))
        pipe.send(Tried("", time.monotonic() - begin, own_peak()))
    except Exception as error:
        pipe.send(Tried(f"{type(error).__name__}: {error}".splitlines()[0]))
