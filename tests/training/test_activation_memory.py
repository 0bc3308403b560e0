"""The memory that is stated for a batch is what a worker takes for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nmt_async.cli.main import run as command
from training_runs import typed

from nmt_async.model.kernels import kernels_for, not_in_bfloat16

pytestmark = pytest.mark.numeric

SIZES = {
    "source_vocabulary": 8000, "target_vocabulary": 8000, "dim_emb": 128, "dropout": 0.1, "tied": "all",
    "enc_depth": 2, "dec_depth": 2,
}  # fmt: skip
TRANSFORMER = {**SIZES, "heads": 4, "dim_ffn": 512, "norm": "pre", "activation": "relu"}
MODELS: dict[str, dict[str, Any]] = {
    "transformer": TRANSFORMER,
    "ssru": {**TRANSFORMER, "decoder_autoreg": "ssru"},
    "rnn": {**SIZES, "heads": 0, "dim_ffn": 0, "norm": "", "activation": "", "enc_depth": 1, "dec_depth": 1,
            "model": "rnn", "dim_rnn": 128},
}  # fmt: skip

MEASURE = """
import json, sys
from pathlib import Path
import torch
from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.kernels import Arithmetic, compute_with
from nmt_async.model.loss import training_loss
from nmt_async.text.batch import Batch
from nmt_async.training.activation_memory import activation_bytes

def mebibytes(name):
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024

torch.set_num_threads(1)
sizes, kernels, precision = json.loads(sys.argv[1])
arithmetic = Arithmetic(kernels, precision)
model = build_model(ModelConfiguration(**sizes)).train()

def compute(rows, source, target):
    lengths = torch.full((rows,), source), torch.full((rows,), target)
    batch = Batch(torch.ones(rows, source).long(), lengths[0], torch.ones(rows, target).long(), lengths[1])
    compute_with(model, arithmetic)
    model.zero_grad()
    training_loss(model, batch, 0.1, arithmetic).backward()
    model.zero_grad()

compute(2, 8, 8)  # what kernels keep for themselves
Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what it is now
before = mebibytes("VmRSS")
compute(100, 20, 32)
print(mebibytes("VmHWM") - before, activation_bytes(model, arithmetic, 100, (20, 32)) / 2**20)
"""


@pytest.mark.parametrize("kernels", ["fused", "torch"])
@pytest.mark.parametrize(("kind", "precision"), [(kind, "float32") for kind in MODELS] + [("transformer", "bfloat16")])
def test_a_batch_takes_about_what_is_stated(kind: str, precision: str, kernels: str) -> None:
    if kernels == "fused" and kernels_for(torch.device("cpu")) != kernels:
        pytest.skip("torch has no oneDNN here")
    if precision == "bfloat16" and (reason := not_in_bfloat16(torch.device("cpu"))) is not None:
        pytest.skip(f"no bfloat16 here: {reason}")
    words = [sys.executable, "-c", MEASURE, json.dumps([MODELS[kind], kernels, precision])]
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is the system's at once, and not the next one's
    environment = {**os.environ, **given_back}
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True, env=environment)
    found, stated = map(float, done.stdout.split())
    # What is for a moment, such as the gradients of an activation, is not counted.
    assert 0.8 * found - 10 < stated < 1.1 * found + 10


def test_a_dry_run_states_it_for_the_largest_batch(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = []
    for words in ("300", "1200"):
        arguments = typed(tmp_path / "run", mini_batch_words=words)
        assert command(["train", str(small_data), *arguments, "--dry-run"]) == 0
        [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("memory, activations")]
        assert "MiB in each worker for " in line
        stated.append(float(line.split("about ")[1].split(" MiB")[0]))
    assert 2 * stated[0] < stated[1] < 8 * stated[0]
