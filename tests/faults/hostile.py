"""What can be done to a folder or a file to do harm with it, and what the commands say then."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

MARK = "harm-was-done"
RESUME = {"cluster": "simulated", "profile": "uneven", "stop_after": "8", "disp_freq": "2", "valid_freq": "3"}


class Harm:
    """A pickle that leaves a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {MARK}",)


PICKLE = pickle.dumps(Harm())
TAG = f"sync-mode: !!python/object/apply:os.system ['touch {MARK}']\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
DEEP = "[" * 200_000


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def models(run: Path) -> list[Path]:
    """What the run's pointers name."""
    return [run / (run / pointer).read_text().strip() for pointer in ("last", "best")]


def in_models(name: str, content: bytes) -> Callable[[Path], None]:
    """The file in the models, with its hash noted as if it belonged there."""

    def change(run: Path) -> None:
        for folder in models(run):
            (folder / name).write_bytes(content)
            with_hash(folder, name)

    return change


def with_hash(folder: Path, name: str) -> None:
    """Notes the file's hash as if it belonged there."""
    digest, sums = hashlib.sha256((folder / name).read_bytes()).hexdigest(), folder / "SHA256SUMS"
    if sums.exists():
        lines = [line for line in sums.read_text().splitlines() if not line.endswith(f"  {name}")]
        sums.write_text("\n".join([*lines, f"{digest}  {name}"]) + "\n")
    elif name not in ("model.json", "state.json"):
        edited(folder / "model.json", lambda values: values["sha256"].update({name: digest}))


def parameters(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """One parameter made another, with the file's hash."""

    def spoil(run: Path) -> None:
        for folder in models(run):
            tensors = load_file(folder / "model.safetensors")
            tensors["output_bias"] = change(tensors["output_bias"])
            save_file(tensors, folder / "model.safetensors")
            with_hash(folder, "model.safetensors")

    return spoil


def described(**sizes: Any) -> Callable[[Path], None]:
    """A model said to be of other sizes than its file."""

    def change(run: Path) -> None:
        for folder in models(run):
            edited(folder / "model.json", lambda values: values["configuration"].update(sizes))
            with_hash(folder, "model.json")

    return change


def header(length: int, text: str) -> bytes:
    """The beginning of a safetensors file."""
    return struct.pack("<Q", length) + text.encode()


def huge_tensor() -> bytes:
    text = json.dumps({"output_bias": {"dtype": "F32", "shape": [10**9, 10**6], "data_offsets": [0, 4 * 10**15]}})
    return header(len(text), text) + bytes(64)


def pointing(text: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for pointer in ("last", "best"):
            (run / pointer).write_text(text)

    return change


MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle for parameters": (in_models("model.safetensors", PICKLE), "model.safetensors does not fit"),
    "a pickle for a vocabulary": (in_models("vocabulary.model", PICKLE), "is not a SentencePiece model"),
    "a pickle for a description": (in_models("model.json", PICKLE), "is damaged"),
    "a header without end": (in_models("model.safetensors", header(2**63, "{}")), "does not fit model.json"),
    "a header of a gigabyte": (in_models("model.safetensors", header(2**30, "{}")), "does not fit model.json"),
    "a tensor of petabytes": (in_models("model.safetensors", huge_tensor()), "does not fit model.json"),
    "another shape": (parameters(lambda tensor: tensor[:-1].clone()), "output_bias has shape"),
    "another type": (parameters(lambda tensor: tensor.long()), "output_bias has type I64"),
    "complex numbers": (parameters(lambda tensor: tensor.to(torch.complex64)), "does not fit model.json"),
    "a model of terabytes": (described(target_vocabulary=2**24, source_vocabulary=2**24, dim_emb=2**16), "has shape"),
    "layers without end": (described(enc_depth=10**12), "enc_depth is 1000000000000 and not from 1 to 1,000"),
    "positions without end": (described(max_positions=10**12), "max_positions is 1000000000000"),
    "a size that is text": (described(dim_emb="128"), "dim_emb cannot be '128'"),
    "a negative size": (described(dim_ffn=-1), "dim_ffn is -1"),
    "nesting without end": (in_models("model.json", DEEP.encode()), "model.json is damaged"),
    "a pointer upwards": (pointing("../../../../etc"), "which is not in"),
    "a pointer to the root": (pointing("/etc"), "which is not in"),
    "a pointer of a megabyte": (pointing("x" * 2**20), "there is no model.json in it"),
    "a pointer with a NUL": (pointing("a\0b"), "which is not in"),
}
"""What was done to a run's models, and what translating with it says then."""


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda data: edited(data / "manifest.json", change)


def another_file(name: str) -> Callable[[Path], None]:
    return manifest(lambda values: values["files"].update({name: {"bytes": 1, "sha256": ""}}))


def vocabulary_of_harm(data: Path) -> None:
    (data / "vocabulary.model").write_bytes(PICKLE)
    described = {"bytes": len(PICKLE), "sha256": hashlib.sha256(PICKLE).hexdigest()}
    edited(data / "manifest.json", lambda values: values["files"].update({"vocabulary.model": described}))


def offsets(*changes: tuple[int, int]) -> Callable[[Path], None]:
    def spoil(data: Path) -> None:
        places = np.fromfile(data / "train.source.offsets", "<i8")
        for index, value in changes:
            places[index] = value
        places.tofile(data / "train.source.offsets")

    return spoil


DATA: dict[str, tuple[Callable[[Path], None], str]] = {
    "a file elsewhere": (
        manifest(
            lambda values: values["files"].update({"../../../etc/passwd": values["files"].pop("valid.source.txt")})
        ),
        "'../../../etc/passwd', which is not in the folder",
    ),
    "a file at the root": (another_file("/etc/passwd"), "'/etc/passwd', which is not in the folder"),
    "half a letter for a file": (another_file("\ud800"), r"'\ud800', which is not in the folder"),
    "a file of two lines": (another_file("a\nb"), r"'a\nb', which is not in the folder"),
    "a file of too many letters": (another_file("x" * 3000), "xxx', which is not in the folder"),
    "a file of too many bytes": (another_file("ж" * 200), "жжж', which is not in the folder"),
    "tokens without end": (
        manifest(lambda values: values["splits"]["train"]["source"].update(tokens=10**15)),
        "of 1,000,000,000,000,000 and",
    ),
    "pairs without end": (
        manifest(lambda values: values["splits"]["train"].update(kept=10**15)),
        "says 1,000,000,000,000,000 pairs",
    ),
    "an end far behind the file's": (offsets((-1, 10**15)), "do not fit each other"),
    "a sentence that begins before the file": (offsets((3, -(2**62))), "train.source.offsets is damaged"),
    "a sentence that ends behind the file": (offsets((3, 2**62)), "train.source.offsets is damaged"),
    "a pickle for a manifest": (lambda data: (data / "manifest.json").write_bytes(PICKLE), "manifest.json is damaged"),
    "a pickle for a vocabulary": (vocabulary_of_harm, "is not a SentencePiece model"),
    "nesting without end": (lambda data: (data / "manifest.json").write_text(DEEP), "nested too deeply"),
    "a list for a manifest": (lambda data: (data / "manifest.json").write_text("[]"), "is not a JSON object"),
}
HASHES_FIRST = {"an end far behind the file's": "has another SHA-256"}
"""What `prepare` says instead."""
"""What was done to a prepared folder, and what every command that reads it says then."""


def instead(name: str, text: str) -> Callable[[Path], None]:
    return lambda run: (run / name).write_text(text)


def a_pipe(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return change


def a_link(name: str, to: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(to)

    return change


def figure(**values: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        lines = (run / "metrics.jsonl").read_text().splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | values)
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    return change


def state(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """The newest checkpoint's state made another, with its hash."""

    def spoil(run: Path) -> None:
        folder = models(run)[0]
        written = json.loads((folder / "state.json").read_text())
        change(written["state"])
        digest = hashlib.sha256((folder / "state.safetensors").read_bytes())
        digest.update(json.dumps(written["state"]).encode())
        if "sha256" in written:
            written["sha256"] = digest.hexdigest()
        (folder / "state.json").write_text(json.dumps(written))
        with_hash(folder, "state.json")

    return spoil


def moved_checkpoints(run: Path) -> None:
    elsewhere = run.with_name(run.name + "-checkpoints")
    (run / "checkpoints").rename(elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)


def many_workers(run: Path) -> None:
    configured = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(configured.replace("workers: 2", f"workers: {10**15}"))


def in_states(name: str, content: bytes) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for folder in (run / "checkpoints").glob("step-*"):
            (folder / name).write_bytes(content)

    return change


def ledger(**values: Any) -> Callable[[Path], None]:
    return state(lambda whole: whole["coordinator"]["ledger"].update(values))


WATCHED, REPORTED, RESUMED = ("watch",), ("watch", "report"), ("train",)
RUNS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "a tag that makes objects": (instead("config.yaml", TAG), REPORTED + RESUMED, "is not YAML"),
    "a billion laughs": (instead("config.yaml", LAUGHS), REPORTED + RESUMED, "more than 1,000,000 values"),
    "a billion merges": (instead("config.yaml", MERGES), REPORTED + RESUMED, "more than 1,000,000 values"),
    "a value within itself": (instead("config.yaml", "a: &a [*a]\n"), REPORTED + RESUMED, "is not YAML"),
    "nesting without end": (instead("config.yaml", f"a: {DEEP}"), REPORTED + RESUMED, "nested too deeply"),
    "a pipe for a configuration": (a_pipe("config.yaml"), REPORTED, "is not the folder of a run"),
    "a pipe to resume from": (a_pipe("config.yaml"), RESUMED, "config.yaml is not a file"),
    "a pipe for figures": (a_pipe("metrics.jsonl"), WATCHED, "it is not an ordinary file"),
    "a pipe to write figures to": (a_pipe("metrics.jsonl"), RESUMED, "metrics.jsonl is neither a file nor a folder"),
    "a device for figures": (a_link("metrics.jsonl", "/dev/zero"), WATCHED, "it is not an ordinary file"),
    "figures elsewhere": (a_link("metrics.jsonl", "../precious"), RESUMED, "metrics.jsonl is a link"),
    "a lock elsewhere": (a_link(".lock", "../precious"), RESUMED, ".lock is a link"),
    "a log elsewhere": (a_link("train.log", "../precious"), RESUMED, "train.log is a link"),
    "checkpoints elsewhere": (moved_checkpoints, RESUMED, "checkpoints is a link"),
    "workers without end": (many_workers, REPORTED[:1] + RESUMED, "1000000000000000 is not a number"),
    "staleness without end": (figure(staleness={str(10**15): 1}), REPORTED, "no push is so stale"),
    "waiting without end": (figure(waiting_share=[1e308, -1e308]), REPORTED, "no worker waits so long"),
    "figures that are text": (figure(loss="low"), REPORTED, "loss cannot be 'low'"),
    "an update that is none": (figure(update=10**400), REPORTED, "update has too many digits"),
    "a batch that is not planned": (ledger(position=[1, 10**9]), RESUMED, "no batch 1000000000 of epoch 1"),
    "an epoch that is text": (ledger(position=["1", 0]), RESUMED, "is no batch"),
    "a state without a server": (state(lambda whole: whole["coordinator"].pop("server")), RESUMED, "KeyError"),
    "a pickle for a state": (in_states("state.safetensors", PICKLE), RESUMED, "every checkpoint is damaged"),
    "nesting without end in a state": (in_states("state.json", DEEP.encode()), RESUMED, "every checkpoint is damaged"),
}
"""What was done to a run's folder, and what the commands say then; ``train`` is to go on with it."""

STUDY = """
base: {preset: tiny, workers: 2, cluster: simulated}
conditions: {only: {sync-mode: async}}
sizes: {core: {budget: 2e, validations: 2, seeds: [1], conditions: [only]}}
"""
RESULTS = {
    "a pickle": (PICKLE, "cannot be read as the result"),
    "nesting without end": (DEEP.encode(), "nested too deeply"),
    "another format": (b'{"format": 99}', "a format that this version does not know"),
    "nothing but a format": (b'{"format": 1}', "setting is missing"),
    "workers without end": (json.dumps({"format": 1, "workers": 10**400}).encode(), "only.seed1.json cannot be read"),
}
"""What lies where the result of a study's setting should, and what the study says then."""

STUDIES = {
    "a tag that makes objects": (TAG, "is not YAML"),
    "a billion laughs": (LAUGHS, "stands for more than 1,000,000 values"),
    "a number of any length": (f"base: {{seed: 0x{'f' * 9000}}}", "a number of thousands of digits"),
    "a megabyte of opening brackets": (DEEP * 5, "nested too deeply"),
    "five megabytes": ("# x\n" * 1_400_000, "more than 4,194,304 bytes"),
    "NUL": ("a\0b", "is not YAML"),
}
