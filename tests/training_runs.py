"""Small real runs for tests: prepared data, options, what a run said and did, and its journal replayed."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import PATIENCE, Command
from safetensors.torch import load_file
from torch import Tensor

from nmt_async.cluster.coordinator import Coordinator
from nmt_async.cluster.replay import Replay
from nmt_async.cluster.worker import Worker
from nmt_async.demo_corpus import generate
from nmt_async.display.console import PlainDisplay
from nmt_async.model.build import build_model
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.child import Child, children
from nmt_async.quantity import parse_quantity
from nmt_async.reading import read_json_lines
from nmt_async.sync.journal import Event, effective
from nmt_async.sync.ledger import Ledger, ledger_of
from nmt_async.text.options import PrepareOptions
from nmt_async.text.preparation import prepare
from nmt_async.text.prepared import PreparedData
from nmt_async.training.journal_file import JOURNAL, read_journal
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import build_coordinator, model_configuration, residual_rows, training_plan
from nmt_async.training.resuming import with_workers
from nmt_async.training.run_folder import read_options
from nmt_async.training.trainer import train_run

COMMAND = [sys.executable, "-c", "from nmt_async.cli.start import main; main()", "train"]
SIZES = {
    "dim_emb": 16, "heads": 2, "dim_ffn": 32, "enc_depth": 1, "dec_depth": 1, "mini_batch_words": 300,
    "lr_warmup": "20", "cpu_threads": 1,
}  # fmt: skip
AMOUNTS = ("lr_warmup", "valid_freq", "disp_freq", "save_freq", "stop_after")


def small_options(out: Path, **changes: Any) -> TrainOptions:
    """A tiny model on one core, two workers; amounts are written as typed."""
    values = {**SIZES, "workers": 2, "valid_freq": "1M", "valid_translate": False, "out": out, **changes}
    return TrainOptions(**{name: parse_quantity(value, ("updates", "tokens", "epochs", "minutes"))
                           if name in AMOUNTS else value for name, value in values.items()})  # fmt: skip


def typed(out: Path, **changes: Any) -> list[str]:
    """The same as on the command line, without the command."""
    values = {**SIZES, "workers": 2, "out": out, **changes}
    words = ((f"--{name.replace('_', '-')}", "" if value is True else str(value)) for name, value in values.items())
    return [word for pair in words for word in pair if word]


def prepare_small(folder: Path, **changes: Any) -> Path:
    """Prepares a generated corpus of 600 training and 24 validation pairs in ``folder``."""
    generate.write(folder / "text", {"train": 600, "valid": 24}, seed=1)
    sides = {f"{part}_{side}": (folder / "text" / f"{part}.{suffix}",) for part in ("train", "valid")
             for side, suffix in (("source", "en"), ("target", "de"))}  # fmt: skip
    values: dict[str, Any] = {"vocab_size": 400, "out": folder / "data", "threads": 1, **sides, **changes}
    return prepare(PrepareOptions(**values)).folder


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder, not to be changed."""
    return prepare_small(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of two corpora with tags: 300 pairs, and 100 that weigh three times as much as these."""
    folder = tmp_path_factory.mktemp("mixed")
    corpora = []
    for seed, (name, pairs, weight) in enumerate((("large", 300, 1), ("small", 100, 3)), 1):
        text = folder / name
        generate.write(text, {"train": pairs, "valid": 8}, seed)
        places = (("", "train"), ("valid-", "valid"))
        files = {f"{prefix}{side}": str(text / f"{part}.{suffix}") for prefix, part in places
                 for side, suffix in (("source", "en"), ("target", "de"))}  # fmt: skip
        corpora.append({"name": name, "tag": f"__{name}__", "weight": weight, **files})
    declaration = folder / "corpora.yaml"
    declaration.write_text(yaml.safe_dump({"corpora": corpora}))
    return prepare(PrepareOptions(out=folder / "data", corpora=declaration, vocab_size=400, threads=1)).folder


@pytest.fixture(scope="session")
def mixed_run(mixed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs on these, not to be changed."""
    folder = tmp_path_factory.mktemp("mixed-run") / "run"
    run_small(
        mixed_data, folder, cluster="simulated", profile="uneven", stop_after="3e", disp_freq="1e", valid_freq="2e"
    )
    return folder


@pytest.fixture
def port() -> int:
    """A port of this machine's loopback that nobody has at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def real_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with validations, reports and checkpoints, not to be changed."""
    folder = tmp_path_factory.mktemp("real") / "run"
    settings = {"cluster": "simulated", "workers": 2, "profile": "uneven"}
    run_small(small_data, folder, stop_after="6", disp_freq="2", valid_freq="3", save_freq="3", **settings)
    return folder


@pytest.fixture(scope="session")
def shared_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that two machines share, simulated ones of unequal workers; not to be changed."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    settings = {"nodes": 2, "between": "lagged", "sync_mode": "hybrid", "accumulate": 2, "profile": "uneven"}
    run_small(
        small_data, folder, cluster="simulated", workers=2, stop_after="9", disp_freq="2", valid_freq="4", **settings
    )
    return folder


class Witness(PlainDisplay):
    """Keeps what a run says, and does something of the test's at given updates.

    Args:
        acts: what to do when an update is applied.
    """

    def __init__(self, acts: Mapping[int, Callable[[], object]] | None = None) -> None:
        super().__init__(io.StringIO())
        self.acts = dict(acts or {})
        self.warnings: list[str] = []

    def progress(self, share: float | None, update: int) -> None:
        super().progress(share, update)
        self.acts.pop(update, lambda: None)()

    def warn(self, text: str) -> None:
        super().warn(text)
        self.warnings.append(text)

    @property
    def said(self) -> str:
        assert isinstance(self.out, io.StringIO)
        return self.out.getvalue()


def run_small(data: Path, out: Path, acts: Mapping[int, Callable[[], object]] | None = None, **changes: Any) -> Witness:
    """A run in this process, with its real children; what it said."""
    witness = Witness(acts)
    train_run(small_options(out, **changes), data, witness)
    return witness


def parents() -> dict[int, int]:
    """The parent of every process there is."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
    return found


def family(pid: int) -> set[int]:
    """The process and all that it and its children have started."""
    of, members = parents(), {pid}
    while more := {child for child, parent in of.items() if parent in members} - members:
        members |= more
    return members


def name_of(pid: int) -> str:
    """The name by which ps knows a process, of which it shows 15 letters; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def children_named(name: str) -> list[Child]:
    """This process's running children whose name begins so."""
    return [child for child in children() if child.name.startswith(name) and child.exitcode is None]


def kill_child(name: str) -> None:
    """Kills this process's child of that name: "worker 0", "validation"."""
    (child,) = children_named(name)
    child.kill()


def children_of(pid: int) -> list[int]:
    """Ids of the processes that process ``pid`` has started."""
    return [child for child, parent in parents().items() if parent == pid]


def alive(pid: int) -> bool:
    """Whether the process is there and not just waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for ``condition``; fails after `PATIENCE`."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, f"waited in vain for {what}"
        time.sleep(0.02)


def reports_of(run: Path) -> int:
    """How many figures the run has written."""
    path = run / "metrics.jsonl"
    return len(read_json_lines(path)) if path.exists() else 0


def start_typed(data: Path, out: Path, output: int = subprocess.PIPE, **changes: Any) -> subprocess.Popen[str]:
    """The command as typed, in a process of its own.

    Args:
        output: where what it says goes; a pipe that nobody reads makes it wait once it is full.
    """
    return Command(["train", data, *typed(out, **changes)], stdout=output, stderr=output, text=True)


def events_of(run: Path) -> list[Event]:
    """The journal's events that count."""
    return effective(iter(read_journal(run / JOURNAL)[1]))


def ledger_at_end(run: Path, data: Path) -> Ledger:
    """Where every batch is by the run's journal; a ValueError where its events cannot have happened."""
    plan = training_plan(read_options(run), PreparedData.open(data))
    return ledger_of(events_of(run), lambda epoch: len(plan.epoch(epoch)))


def assert_each_batch_counted(run: Path, data: Path, epochs: int) -> Ledger:
    """Each batch of the first epochs was applied once or set aside, and no other was begun."""
    plan = training_plan(read_options(run), PreparedData.open(data))
    ledger = ledger_at_end(run, data)
    assert (ledger.waiting, ledger.out, ledger.accumulated) == ([], {}, {})
    assert ledger.position == (epochs + 1, 0)
    assert ledger.applied + len(ledger.set_aside) == sum(len(plan.epoch(epoch)) for epoch in range(1, epochs + 1))
    return ledger


def saved_state(run: Path) -> dict[str, Tensor]:
    """The tensors of the last checkpoint."""
    return load_file(run / (run / "last").read_text().strip() / "state.safetensors")


def assert_same_state(first: Path, second: Path) -> None:
    """The last checkpoints of both runs hold the same, bit for bit."""
    one, other = saved_state(first), saved_state(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def replayed(run: Path, data: Path) -> Tensor:
    """The parameters to which the run's journal leads when it happens again in this process."""
    options, prepared = read_options(run), PreparedData.open(data)
    header, _ = read_journal(run / JOURNAL)
    configuration = model_configuration(options, prepared)
    model = build_model(configuration, options.seed)
    layout = FlatLayout(model)
    push = options.push_settings()
    worker = Worker(
        build_model(configuration), options.seed, options.label_smoothing, torch.device("cpu"), push=push,
        kernels=options.computed_with(), precision=options.precision,
    )  # fmt: skip
    plan = training_plan(options, prepared)

    def build(record: Callable[[Event], None], workers: int) -> Coordinator:
        buffers = torch.zeros(workers + 1, layout.size)
        buffers[0].copy_(layout.gather(model))
        rows = residual_rows(push, workers, layout.size)
        now = with_workers(options, workers)
        return build_coordinator(now, plan, layout, buffers, record, lambda _: None, residuals=rows)

    replay = Replay(build, worker, prepared.train, header["workers"])
    replay.run(events_of(run))
    return replay.coordinator.server.parameters
