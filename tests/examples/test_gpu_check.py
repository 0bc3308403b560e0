"""The check of GPUs: all of it but CUDA runs here, in a small size."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.text.batch import Batch

SCRIPT = Path(__file__).parents[2] / "examples" / "gpu-check" / "check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.timeout(900)
def test_all_parts_run_on_the_cpu_in_a_small_size(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--small-on-cpu", "--out", out, "--peak", "1"],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert "failed" not in json.dumps(found)
    training = [found[name] for name in found if name.startswith("training")]
    assert len(training) == 3
    for part in training:
        assert part["tokens_per_second"] > 0
        assert part["utilisation"] == pytest.approx(part["tflops"])
        assert part["of_one_worker"] is None or part["of_one_worker"] > 0
    assert min(found["costs"]["seconds"].values()) > 0
    assert list(found["costs"]["share of pushes and updates"].values())
    assert "torch, beam 5" in found["translating"]
    assert found["tests"]["exit_code"] == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize(("typed", "said"), [
    ((), "finds no CUDA device here; run this on a machine with a GPU"),
    (("--device", "cpu"), "--device cpu is no GPU; try the script on the CPU with --small-on-cpu"),
    (("--device", "tpu"), "--device: 'tpu' is not a device"),
])  # fmt: skip
def test_without_a_gpu_it_says_so_in_a_sentence(typed: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, *typed], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_is_told_and_the_others_go_on(check: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    checked = check.Check("cpu", check.SMALL, out, None, tmp_path)

    def fails() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    checked.part("first", fails)
    checked.part("second", lambda: 2)
    found = json.loads(out.read_text())
    assert found["first"] == {"failed": "RuntimeError: CUDA error: an illegal memory access was encountered"}
    assert (found["second"], checked.failed) == (2, ["first"])
    checked.end = 0.0
    checked.part("third", lambda: 3)
    assert "left_out" in json.loads(out.read_text())["third"]


@pytest.mark.parametrize("tied", ["all", "none"])
def test_operations_are_those_of_the_products_with_matrices(check: ModuleType, tied: str) -> None:
    configuration = ModelConfiguration(13, 13, 16, 2, 24, 1, 2, "pre", "relu", 0.0, tied, 32)
    model, pairs = build_model(configuration, 1), 3
    rows = [torch.full((pairs, length), 5) for length in (7, 4)]
    batch = batch_of(*rows)
    with FlopCounterMode(display=False) as counter:
        logits, targets = model(batch)
        smoothed_cross_entropy(logits, targets, 0.1).backward()
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counts.items() if str(operation) in ("aten.mm", "aten.addmm"))
    assert check.operations(configuration, 7 * pairs, 4 * pairs) == products


def batch_of(source: torch.Tensor, target: torch.Tensor) -> Batch:
    """Rows without padding."""
    lengths = [torch.full((len(rows),), rows.shape[1]) for rows in (source, target)]
    return Batch(source, lengths[0], target, lengths[1])


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA H200", 989.0), ("NVIDIA H100 80GB HBM3", 989.0), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA L40S", 362.0),
    ("NVIDIA A100-SXM4-80GB", 312.0), ("NVIDIA RTX A6000", 155.0), ("Tesla P4", None),
])  # fmt: skip
def test_the_peak_is_known_by_the_device_s_name(check: ModuleType, name: str, peak: float | None) -> None:
    assert check.peak_of(name) == peak
