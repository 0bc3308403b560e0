"""Workers and server on a device: who uses what they share when, and that a run there is as one on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from apart import APART, apart
from killed_workers import assert_killed_workers_lose_no_batch_and_the_run_goes_on
from on_devices import EACH_DEVICE, needs
from pushing import PUSHES, pushed_by
from torch import Tensor, nn
from training_runs import (
    run_small,
    saved_state,
    small_options,
)

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.memory import Memory
from nmt_async.cluster.processes import ProcessCluster
from nmt_async.cluster.task import Handled
from nmt_async.cluster.worker import Worker, WorkerSettings, build_worker
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.sync import Hybrid, Kind, ParameterServer
from nmt_async.sync.compression.settings import PushSettings
from nmt_async.text.plan import BatchId
from nmt_async.text.prepared import PreparedData
from nmt_async.training.parts import model_configuration, shared_memory, training_plan


class Noted:
    """Streams that note who has told whom how often, a row for each worker: handed over, followed, finished."""

    def __init__(self, workers: int) -> None:
        self.counts = SharedVectors(workers, 3)
        self.mine = 0

    def hand_over(self, child: int) -> None:
        self.counts.tensor[child, 0] += 1

    def follow(self, child: int) -> None:
        self.mine = child
        handed, followed, finished = self.counts.tensor[child].tolist()
        if not handed == followed + 1 == finished + 1:
            raise ValueError(f"it was handed over {handed} times, followed {followed} times and finished {finished}")
        self.counts.tensor[child, 1] += 1

    def finish(self) -> None:
        self.counts.tensor[self.mine, 2] += 1


def test_a_worker_follows_before_it_reads_and_finishes_before_it_answers(small_data: Path) -> None:
    prepared, options = PreparedData.open(small_data), small_options(small_data, sync_mode="async")
    configuration = model_configuration(options, prepared)
    model = build_model(configuration, options.seed)
    layout = FlatLayout(model)
    memory = Memory(2, layout.size)
    memory.streams = noted = Noted(2)
    memory.ring.tensor[0].copy_(layout.gather(model))
    # A push that is one update old is computed again, and its worker is told to leave it.
    rule = Hybrid(1, oldest_push=0, restart=True)
    server = ParameterServer(memory.ring.tensor, rule, options.schedule(None), options.settings())
    events: list = []
    coordinator = Coordinator(server, training_plan(options, prepared), events.append, [].append, last_epoch=1)
    settings = WorkerSettings(small_data, configuration, options.seed, options.label_smoothing, 1)
    wrong: list[list[float]] = []

    def observe(push: Handled) -> None:
        row = noted.counts.tensor[push.worker].tolist()
        if len(set(row)) > 1:
            wrong.append(row)

    warnings: list[str] = []
    cluster = ProcessCluster(coordinator, memory, settings, ["cpu", "cpu"], warnings.append, observe=observe)
    try:
        for _ in cluster.updates():
            pass
    finally:
        cluster.close()
        memory.close()
        noted.counts.close()
    assert (wrong, warnings) == ([], [])
    assert Kind.RESTARTED in {event.kind for event in events}
    assert noted.counts.tensor[:, 0].sum() >= server.version > 10


@pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)
def test_vectors_on_another_device_cross_as_a_whole(training, push: PushSettings) -> None:
    batches = [training.data.batch(range(begin, begin + 6)) for begin in (0, 6)]
    most = 2 if not push.compressed else 5 if push.local_gradients is None else 6
    made: list[list[Tensor]] = []
    with apart() as counted:

        def check() -> None:
            if device is APART:
                assert counted["copied"] <= most, "the pull, the push and the residual, none parameter by parameter"
                assert counted["read"] == 0, "what is read was computed on the worker's own device"

        for device in (torch.device("cpu"), APART):
            worker = Worker(training.model(0.2), 5, 0.1, torch.device("cpu"), push=push, vectors=[device])
            parameters = worker.layout.gather(training.model()).to(device)
            made.append(pushed_by(worker, parameters, parameters, batches, check))
    for one, other in zip(*made, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("device", EACH_DEVICE)
def test_a_run_there_is_as_one_on_the_cpu(small_data: Path, tmp_path: Path, device: str) -> None:
    settings = {"sync_mode": "sync", "accumulate": 2, "stop_after": "5", "dropout": 0.0, "kernels": "torch"}
    run_small(small_data, tmp_path / "here", devices="cpu", **settings)
    witness = run_small(small_data, tmp_path / "there", devices=device, **settings)
    assert witness.warnings == []
    here, there = saved_state(tmp_path / "here"), saved_state(tmp_path / "there")
    assert here.keys() == there.keys()
    torch.testing.assert_close(there["parameters"], here["parameters"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("device", EACH_DEVICE)
def test_killed_workers_lose_no_batch_there_and_a_run_goes_on(small_data: Path, tmp_path: Path, device: str) -> None:
    assert_killed_workers_lose_no_batch_and_the_run_goes_on(small_data, tmp_path / "run", devices=device)


@pytest.mark.parametrize("device", EACH_DEVICE)
@pytest.mark.parametrize("push", [{"push_dtype": "bfloat16"}, {"drop_gradients": 0.9}], ids=["bfloat16", "dropped"])
def test_compressed_pushes_and_muon_train_there(small_data: Path, tmp_path: Path, device: str, push: dict) -> None:
    run_small(small_data, tmp_path / "run", devices=device, optimizer="muon", stop_after="8", **push)
    state = saved_state(tmp_path / "run")
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    assert any(name.startswith("residual.") and bool(tensor.any()) for name, tensor in state.items())


@pytest.mark.parametrize("device", EACH_DEVICE)
def test_what_is_shared_lies_on_the_first_worker_s_device(device: str) -> None:
    warnings: list[str] = []
    memory = shared_memory([device, device], FlatLayout(nn.Linear(8, 3)), PushSettings(drop=0.5), warnings.append)
    try:
        vectors = [memory.ring.tensor, *vars(memory.pushes()).values(), memory.residual_rows]
        places = {str(tensor.device) for tensor in vectors if isinstance(tensor, Tensor)}
        assert (places, warnings) == ({device}, [])
        assert memory.left_tasks.is_cpu, "a worker looks there while its device computes"
    finally:
        memory.close()


@pytest.mark.parametrize("device", [pytest.param("cuda:0", marks=needs(1))])
def test_a_batch_that_does_not_fit_on_a_gpu_is_computed_in_pieces(small_data: Path, device: str) -> None:
    prepared, options = PreparedData.open(small_data), small_options(small_data, dropout=0.0, dim_emb=512, dim_ffn=4096)
    configuration = model_configuration(options, prepared)
    settings = WorkerSettings(small_data, configuration, options.seed, 0.1, 1)
    place = torch.device(device)
    worker = build_worker(settings, place, vectors=[place])
    vector = worker.layout.gather(build_model(configuration, 1)).to(place)
    batch, slots = prepared.train.batch(range(600)), torch.zeros(2, len(vector), device=place)
    whole = worker.compute(vector, slots[0], [batch], BatchId(1, 0))
    peak, total = torch.cuda.max_memory_reserved(place), torch.cuda.mem_get_info(place)[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((peak * 0.6) / total, place)
    try:
        pieces = worker.compute(vector, slots[1], [batch], BatchId(1, 0))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place)
    assert (whole.pieces, pieces.pieces > 1) == (1, True)
    torch.testing.assert_close(slots[1], slots[0], rtol=1e-2, atol=1e-2)
