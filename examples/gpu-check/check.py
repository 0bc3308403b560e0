"""Tests and measures nmt-async on the GPUs of this machine, within eight minutes, and writes what it found to one file.

Its parts: the tests that need a GPU (among them killed workers, memory that runs out, and a run that goes on); training
of a Transformer base with one worker, two and four on the first GPU, and with one on each where there are several; what
a push and an update cost on the first alone; and translating beside CTranslate2. A part that fails says so in the file,
and the others go on.

The sentences are generated ones. The model has 32,000 subwords on each side all the same, of which they use a few.

``--small-on-cpu`` runs all of it on the CPU, in a small size, to find mistakes in this script before a GPU is at hand.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nmt_async.bench.contenders import OurCluster
from nmt_async.bench.decoding import Decoder, Job
from nmt_async.checkpoints.model_folder import layout_of, save_model
from nmt_async.cluster.worker import WorkerSettings
from nmt_async.demo_corpus import generate
from nmt_async.devices import all_gpus, check_here, device_named, gpu_count
from nmt_async.errors import UserError
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.optimizers.flat import FlatOptimizer
from nmt_async.text.options import PrepareOptions
from nmt_async.text.plan import BatchId, BatchPlan
from nmt_async.text.preparation import prepare
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import training_plan
from nmt_async.writing import write_whole

ROOT = Path(__file__).parents[2]
SECONDS = 480.0
"""For all parts together."""

TESTS_SECONDS = 200.0
"""For the tests at most."""

PEAKS = {
    "B200": 2250.0, "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "GH200": 989.0, "A100": 312.0, "L40S": 362.0,
    "L40": 181.0, "A40": 150.0, "A10": 125.0, "L4": 121.0, "RTX 4090": 165.0, "RTX 3090": 71.0, "A6000": 155.0,
}  # fmt: skip
"""Dense bfloat16, in 10^12 operations a second, as the makers state it, by what stands in a device's name."""

GOALS = {"utilisation": 0.45, "share of pushes and updates": 0.03}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        preset: of the model.
        vocabulary: subwords of each side of the model.
        words: target tokens of a batch.
        pairs: generated for training.
        lines: translated.
        length: subwords of each translation, since the model has learnt nothing.
        turn: seconds of measuring for each setting.
    """

    preset: str = "base"
    vocabulary: int = 32_000
    words: int = 25_000
    pairs: int = 60_000
    lines: int = 512
    length: int = 30
    turn: float = 15.0


SMALL = Size("tiny", 300, 300, 600, 8, 5, 1.0)


class Check:
    """The parts, and what they found.

    Args:
        device: the first one, as torch names it.
        out: the file that is written after each part.
        peak: dense bfloat16 operations a second of the device, in 10^12; None: not known.
    """

    def __init__(self, device: str, size: Size, out: Path, peak: float | None, folder: Path) -> None:
        self.place = torch.device(device)
        self.device, self.size, self.out, self.peak, self.folder = device, size, out, peak, folder
        self.end = time.monotonic() + SECONDS
        self.found: dict[str, Any] = {
            "device": name_of(self.place), "devices": max(1, torch.cuda.device_count()), "torch": torch.__version__,
            "cuda": torch.version.cuda, "processor": platform.processor() or platform.machine(),
            "peak_tflops": peak, "goals": GOALS, "size": vars(size),
        }  # fmt: skip
        self.failed: list[str] = []

    @property
    def left(self) -> float:
        """Seconds that are left for all parts."""
        return max(0.0, self.end - time.monotonic())

    def part(self, name: str, body: Callable[[], Any]) -> None:
        """Runs a part, keeps what it found or how it failed, and writes the file anew."""
        if not self.left:
            self.found[name] = {"left_out": f"all {SECONDS:.0f} seconds were used up"}
            self.failed.append(name)
        else:
            begin = time.monotonic()
            try:
                self.found[name] = body()
            except Exception as error:  # the other parts shall still be run: a GPU may be at hand only once
                traceback.print_exc()
                self.found[name] = {"failed": f"{type(error).__name__}: {error}"}
                self.failed.append(name)
            print(f"{name}: {time.monotonic() - begin:.0f} seconds", flush=True)
        write_whole(self.out, json.dumps(self.found, indent=2))

    def tests(self) -> dict[str, Any]:
        """The tests that need a GPU; the CPU's part of them runs, too."""
        junit = self.folder / "tests.xml"
        files = [
            "tests/process/test_device_memory.py", "tests/cluster/test_on_devices.py",
            "tests/cluster/test_on_several_devices.py",
        ]  # fmt: skip
        chosen = ["-m", "cuda"] if self.place.type == "cuda" else ["-k", "first_worker"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *chosen, f"--junitxml={junit}", *files],
            cwd=ROOT, capture_output=True, text=True, timeout=min(TESTS_SECONDS, self.left),
        )  # fmt: skip
        last = [line for line in done.stdout.splitlines() if line.strip()][-25:]
        if done.returncode:
            self.failed.append("tests")
        return {"exit_code": done.returncode, "said": last}

    def prepared(self) -> dict[str, Any]:
        """Generates the sentences and prepares them."""
        generate.write(self.folder / "text", {"train": self.size.pairs, "test": self.size.lines}, seed=1)
        text = self.folder / "text"
        options = PrepareOptions(
            train_source=(text / "train.en",), train_target=(text / "train.de",), vocab_size=200,
            out=self.folder / "data",
        )  # fmt: skip
        self.data = prepare(options)
        return {"pairs": len(self.data.train)}

    def options(self, workers: int, devices: str | None = None) -> TrainOptions:
        """Of training on ``devices``; None: on the first GPU."""
        return TrainOptions(
            out=self.folder / "run", preset=self.size.preset, mini_batch_words=self.size.words, workers=workers,
            devices=devices or self.device, sync_mode="hybrid", cpu_threads=1,
        )  # fmt: skip

    @property
    def configuration(self) -> ModelConfiguration:
        """Of the model."""
        return self.options(1).configuration(self.size.vocabulary, self.size.vocabulary, True)

    def training(self, workers: int, arithmetic: Mapping[str, str], devices: str | None = None) -> dict[str, Any]:
        """Workers and server, as in training.

        Args:
            arithmetic: in which workers compute, as `WorkerSettings` has it.
            devices: over which they are spread, and which own a part of the vectors each; None: the first GPU.
        """
        options, configuration = self.options(workers, devices), self.configuration
        plan = training_plan(options, self.data)
        settings = WorkerSettings(
            self.data.folder.resolve(), configuration, options.seed, options.label_smoothing, 1, **arithmetic
        )
        ours = OurCluster(options, settings, plan)
        try:
            where = ", ".join(map(str, ours.memory.devices))
            ours.turn(3)  # warms up
            ours.cluster.update_seconds()
            rates, pushes = [], 0
            end = time.monotonic() + min(self.size.turn, self.left)
            while not rates or time.monotonic() < end:
                turn = ours.turn(8)
                rates.append(turn.rate)
                pushes += len(turn.pushes)
            pieces = max(push.computed.pieces for push in turn.pushes)
            updates = ours.cluster.update_seconds()
        finally:
            ours.close()
        rate = statistics.median(rates)
        alone = self.found.get(title(1, arithmetic), {})
        operations = operations_per_token(configuration, self.data, plan)
        achieved = operations * rate / 1e12
        return {
            "tokens_per_second": rate, "rates": rates, "pushes": pushes, "pieces": pieces, "vectors_on": where,
            "of_one_worker": rate / alone["tokens_per_second"] if "tokens_per_second" in alone else None,
            "host_seconds_per_update": updates, "operations_per_target_token": operations, "tflops": achieved,
            "utilisation": None if self.peak is None else achieved / self.peak / len(set(options.device_list())),
        }  # fmt: skip

    def costs(self) -> dict[str, Any]:
        """What pushes and updates cost alone, and their share of the time between two pushes of one worker."""
        layout, place = layout_of(self.configuration), self.place
        vectors = torch.zeros(4, layout.size, device=place)
        parameters, total, slot, gradient = vectors
        optimizer = FlatOptimizer(parameters, self.options(1).settings())
        views, gradients = layout.views(slot), layout.views(gradient)

        def store() -> None:
            torch._foreach_copy_(views, gradients)
            torch.linalg.vector_norm(slot)

        seconds = {
            "store": timed(place, store),
            "sum": timed(place, lambda: total.add_(slot)),
            "update": timed(place, lambda: optimizer.step(parameters, total, 1, 1e-4)),
        }
        shares = {}
        for name, found in self.found.items():
            if name.startswith("training, 1 worker") and "tokens_per_second" in found:
                between = self.size.words / found["tokens_per_second"]
                shares[name] = sum(seconds.values()) / between
        return {"seconds": seconds, "share of pushes and updates": shares}

    def translating(self) -> dict[str, Any]:
        """Sentences a second of our engines and of CTranslate2 by hand, with new parameters and a fixed length."""
        lines = (self.folder / "text" / "test.en").read_text(encoding="utf-8").splitlines()
        options = self.options(1)
        size = self.data.source_vocabulary.size
        configuration = options.configuration(size, size, True)
        model = build_model(configuration, 1)
        layout, folder = FlatLayout(model), self.folder / "model"
        folder.mkdir()
        vocabularies = [self.data.folder / name for name in ("source.model", "target.model")]
        joint = self.data.folder / "vocabulary.model"
        source, target = vocabularies if vocabularies[0].exists() else (joint, joint)
        save_model(folder, configuration, layout.named(layout.gather(model)), source, target)
        found: dict[str, Any] = {}
        for engine in ("torch", "by-hand"):
            try:
                decoder = Decoder(Job(engine, folder, lines, 1, 64, self.size.length, self.device))
            except Exception as error:  # CTranslate2's wheel may not fit this machine's CUDA
                found[engine] = {"failed": str(error)}
                continue
            try:
                for beam in (5, 1):
                    decoder.turn(beam)  # warms up
                    rates = [len(lines) / decoder.turn(beam).seconds for _ in range(3)]
                    found[f"{engine}, beam {beam}"] = {"sentences_per_second": statistics.median(rates)}
            finally:
                decoder.close()
        return found


def arithmetics() -> list[dict[str, str]]:
    """In what workers can compute: float32, and bfloat16 where they know it."""
    known = {field.name for field in fields(WorkerSettings)}
    return [{}, {"precision": "bfloat16"}] if "precision" in known else [{}]


def title(workers: int, arithmetic: Mapping[str, str]) -> str:
    """Of the part that trains so."""
    return f"training, {workers} worker{'s' if workers > 1 else ''}, {arithmetic.get('precision', 'float32')}"


def operations_per_token(configuration: ModelConfiguration, data: PreparedData, plan: BatchPlan) -> float:
    """Floating-point operations of a gradient in products with the model's matrices, for each target token.

    Each number of a matrix is multiplied once with each token that it is applied to, and twice on the way back; that
    is six operations. Attention's own products and padding are not counted, so it is a lower bound.
    """
    batch = data.train.batch(plan.sentences(BatchId(1, 0)))
    return operations(configuration, batch.source_tokens, batch.target_tokens) / batch.target_tokens


def operations(configuration: ModelConfiguration, source_tokens: int, target_tokens: int) -> float:
    """Of the gradient of a batch with so many tokens; see `operations_per_token`."""
    total = 0.0
    for place in layout_of(configuration).places:
        if len(place.shape) == 2 and not place.name.endswith("embedding.weight"):  # which are looked up
            of_source = place.name.startswith("encoder.") or ".cross_attention.key_value." in place.name
            total += 6.0 * (place.end - place.begin) * (source_tokens if of_source else target_tokens)
    return total


def timed(device: torch.device, body: Callable[[], object], times: int = 20) -> float:
    """Seconds of ``body``, the mean of several after a first one."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    body()
    wait()
    begin = time.monotonic()
    for _ in range(times):
        body()
    wait()
    return (time.monotonic() - begin) / times


def name_of(device: torch.device) -> str:
    """What a device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU, in a small size"


def peak_of(name: str) -> float | None:
    """The device's peak by its name; None: it is not in the table."""
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def main() -> int:
    """Runs all parts; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"), help="the file to write")
    parser.add_argument("--device", default="cuda:0", help="the GPU to measure on")
    parser.add_argument("--peak", type=float, help="its dense bfloat16 peak in 10^12 operations a second")
    parser.add_argument("--small-on-cpu", action="store_true", help="try this script without a GPU")
    asked = parser.parse_args()
    try:
        device = "cpu" if asked.small_on_cpu else device_named(asked.device, "--device")
        if device == "cpu" and not asked.small_on_cpu:
            raise UserError("--device cpu is no GPU; try the script on the CPU with --small-on-cpu.")
        if device != "cpu" and not gpu_count():
            raise UserError(
                f"torch {torch.__version__} finds no CUDA device here; run this on a machine with a GPU and torch "
                f"built for CUDA, or try the script with --small-on-cpu."
            )
        check_here([device], "--device")
    except UserError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))
    with TemporaryDirectory(prefix="nmt-async-gpu-check-") as folder:
        peak = asked.peak or peak_of(name_of(torch.device(device)))
        check = Check(device, SMALL if device == "cpu" else Size(), asked.out, peak, Path(folder))
        check.part("prepared", check.prepared)
        for arithmetic in arithmetics() if device != "cpu" else [{}]:
            for workers in (1, 2, 4):
                name = (
                    f"training, {workers} worker{'s' if workers > 1 else ''}, {arithmetic.get('precision', 'float32')}"
                )
                check.part(name, lambda workers=workers, arithmetic=arithmetic: check.training(workers, arithmetic))
        gpus = all_gpus() if device != "cpu" else []
        for arithmetic in arithmetics() if len(gpus) > 1 else []:
            name = f"training, a worker on each of {len(gpus)} GPUs, {arithmetic.get('precision', 'float32')}"
            check.part(name, lambda arithmetic=arithmetic: check.training(len(gpus), arithmetic, ",".join(gpus)))
        check.part("costs", check.costs)
        check.part("translating", check.translating)
        check.part("tests", check.tests)
    told = f"{asked.out}: " + (f"failed: {', '.join(dict.fromkeys(check.failed))}" if check.failed else "all parts ran")
    print(told)
    return int(bool(check.failed))


if __name__ == "__main__":
    sys.exit(main())
