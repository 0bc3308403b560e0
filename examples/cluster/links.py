"""Measures the ways of exchanging on two hosts of one machine, with a link between them that is as slow as asked for.

The hosts are network namespaces, the link is a pair of virtual interfaces that `tc` slows: run it as root on Linux,
with Debian's iproute2, on idle cores.

    python examples/cluster/links.py DATA --speed 100mbit --accumulate 11 --stop-after 1200kt --rounds 2

Each round runs every way once. Beside each throughput stands what the simulated cluster predicts, from the speed of
machines that never exchange. The checkpoints of a run are scored afterwards, when nothing else computes: after how many
seconds of training a way reached the cross-entropy that the worst of them ends with.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import read_values
from nmt_async.cluster.profile import ClusterProfile, LinkProfile, WorkerProfile
from nmt_async.planning.options import link_speed
from nmt_async.planning.simulation import even_plan, nominal_machines
from nmt_async.reading import read_json_lines
from nmt_async.sync.between.outer_settings import OuterSettings
from nmt_async.sync.between.ways import WAYS
from nmt_async.sync.rules import rule_for
from nmt_async.text.prepared import PreparedData
from nmt_async.training.validation_scores import sentence_losses

HOSTS = ("nmt-a", "nmt-b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29400
FRAGMENTS = "local in fragments"
SEGMENT = 0.966
"""Of what crosses an Ethernet link, the share that TCP carries for its user, with packets of 1,500 bytes."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def hosts(speed: str, latency: float) -> Iterator[None]:
    """Two hosts and the link between them.

    Args:
        speed: as tc takes it: ``100mbit``.
        latency: milliseconds in one direction.
    """
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", "nmt-va", "netns", HOSTS[0], "type", "veth", "peer", "name", "nmt-vb", "netns", HOSTS[1])
        for host, device, address in zip(HOSTS, ("nmt-va", "nmt-vb"), ADDRESSES, strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", host, "link", "set", device, "up")
            ip("-n", host, "link", "set", "lo", "up")
            slow = ["tc", "-n", host, "qdisc", "add", "dev", device]
            if latency:
                late = ["netem", "delay", f"{latency}ms", "rate", speed, "limit", "100000"]
                subprocess.run([*slow, "root", *late], check=True)
            else:
                bucket = ["tbf", "rate", speed, "burst", "64kb", "latency", "50ms"]
                subprocess.run([*slow, "root", *bucket], check=True)
        yield
    finally:
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def train(folder: Path, arguments: argparse.Namespace, between: str | None) -> list[Path]:
    """A run of both hosts, or one of each where they never exchange; their folders."""
    program = shutil.which("nmt-async", path=str(Path(sys.executable).parent)) or "nmt-async"
    runs, processes = [], []
    for rank, host in enumerate(HOSTS):
        out = folder / (between or f"never-{rank}").replace(" ", "-")
        words = [
            "ip", "netns", "exec", host, program, "train", arguments.data, "--out", out, "--preset", arguments.preset,
            "--workers", 1, "--cpu-threads", 1, "--mini-batch-words", arguments.words, "--accumulate",
            arguments.accumulate, "--sync-mode", "hybrid", "--stop-after", arguments.stop_after, "--disp-freq", "1u",
            "--save-freq", arguments.save_freq, "--keep-last", 1000, "--valid-freq", "1000000u",
            "--no-valid-translate", "--learn-rate", arguments.learn_rate, "--lr-warmup", arguments.lr_warmup,
            "--seed", 1, "--quiet",
        ]  # fmt: skip
        if between is not None:
            place = f"{ADDRESSES[0]}:{PORT}"
            words += ["--local-updates", arguments.local_updates] if between.startswith("local") else []
            if between == FRAGMENTS:
                words += ["--outer-fragments", arguments.fragments, "--outer-dtype", "bfloat16"]
            words += ["--nodes", 2, "--node-rank", rank, "--rendezvous", place, "--between", between.split()[0]]
            runs.append(out if rank == 0 else out / f"machine-{rank}")
        else:
            runs.append(out)
        processes.append(subprocess.Popen([str(word) for word in words]))
    codes = [process.wait(arguments.patience) for process in processes]
    if any(codes):
        raise SystemExit(f"{between or 'never'}: the trainers ended with {codes}.")
    return runs


def tokens_per_second(run: Path, skip: int = 3) -> float:
    """Of all machines of a run, without its first reports."""
    figures = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "train"][skip:]
    tokens = figures[-1]["target_tokens"] - figures[0]["target_tokens"]
    return float(tokens / (figures[-1]["time"] - figures[0]["time"]))


def waiting(run: Path, skip: int = 3) -> float:
    """Of the time of the first machine's worker, the share that it waited, without its first reports."""
    figures = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "train"][skip:]
    seconds = sum(line["seconds"] for line in figures)
    return float(sum(line["waiting_share"][0] * line["seconds"] for line in figures) / seconds)


def latest(run: Path, name: str, kind: str = "train") -> float:
    return [line[name] for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == kind][-1]


def predicted(way: str, arguments: argparse.Namespace, speeds: list[float], update: float, size: int) -> float:
    """Tokens a second by the simulated cluster."""
    bytes_per_second = SEGMENT * link_speed(arguments.speed.replace("mbit", "Mbit").replace("gbit", "Gbit"))
    link = LinkProfile(arguments.latency / 1000, bytes_per_second)
    workers = tuple(WorkerProfile(tokens_per_second=speed, jitter=0.05) for speed in speeds)
    profile = ClusterProfile("measured", workers, seconds_per_update=update, between=link)
    rule = rule_for("hybrid", 1, arguments.accumulate)
    tokens = arguments.words
    outer = OuterSettings(updates=arguments.local_updates)
    if way == FRAGMENTS:
        outer = OuterSettings(updates=arguments.local_updates, fragments=arguments.fragments, dtype="bfloat16")
    plan = even_plan(tokens, 100_000)
    machines = nominal_machines(rule, WAYS[way.split()[0]], 2, profile, plan, size, outer=outer)
    total, begin = 0, 0.0
    for number, made in enumerate(machines.updates()):
        if number == 20:
            begin = machines.time
        elif number > 20 and made is not None:
            total += made.tokens
        if number == 120:
            break
    return total / (machines.time - begin)


def curve(run: Path, data: PreparedData) -> list[tuple[float, float]]:
    """Of each checkpoint the seconds of training until then, and the cross-entropy of the validation set."""
    assert data.valid is not None
    tokens, points = int(data.valid.target.lengths.sum()), []
    for _, folder in sorted(folders_by_update(run / "checkpoints", "step").items()):
        losses = sentence_losses(load_model(folder).model, data.valid)
        points.append((float(read_values(folder)["moment"]["seconds"]), float(losses.sum() / tokens)))
    return points


def seconds_to(quality: float, points: list[tuple[float, float]]) -> float:
    """Of training until a cross-entropy is reached for the first time; infinite if it never is."""
    for (before, worse), (after, better) in itertools.pairwise(points):
        if better <= quality:
            return float(np.interp(-quality, [-worse, -better], [before, after]))
    return float("inf")


def measured(folder: Path, arguments: argparse.Namespace, data: PreparedData) -> list[dict[str, Any]]:
    """Every way once."""
    alone = train(folder, arguments, None)
    speeds = [tokens_per_second(run) for run in alone]
    update = latest(alone[0], "update_seconds")
    size = int(read_values(max(folders_by_update(alone[0] / "checkpoints", "step").items())[1])["size"])
    bound = sum(speeds)
    found: list[dict[str, Any]] = [
        {"between": "never", "tokens_per_second": bound, "of_never": 1.0, "waiting": waiting(alone[0])}
    ]
    print(f"link {arguments.speed}, {arguments.latency:g} ms; {size:,} parameters; update {1000 * update:.0f} ms")
    for way in arguments.ways.split(","):
        run = train(folder, arguments, way)[0]
        rate = tokens_per_second(run, 1 if way == "local" else 3)
        expected = predicted(way, arguments, speeds, update, size)
        found.append({
            "between": way, "tokens_per_second": rate, "of_never": rate / bound, "predicted": expected,
            "measured_of_predicted": rate / expected, "waiting": waiting(run),
            "staleness": latest(run, "staleness_mean"), "effective_batch": latest(run, "effective_batch"),
            "curve": curve(run, data),
        })  # fmt: skip
        shutil.rmtree(run)
    quality = max(entry["curve"][-1][1] for entry in found[1:])
    for entry in found[1:]:
        entry["cross_entropy"] = entry["curve"][-1][1]
        entry["quality"], entry["seconds_to_quality"] = quality, seconds_to(quality, entry["curve"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--speed", default="100mbit", help="of the link, as tc takes it")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds in one direction")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--words", type=int, default=512, help="target tokens in a push")
    parser.add_argument("--accumulate", type=int, default=11, help="pushes of each machine in an update")
    parser.add_argument("--local-updates", type=int, default=4)
    parser.add_argument("--fragments", type=int, default=4)
    parser.add_argument("--stop-after", default="1200kt")
    parser.add_argument("--save-freq", default="100kt")
    parser.add_argument("--learn-rate", default="0.004")
    parser.add_argument("--lr-warmup", default="600kt")
    parser.add_argument("--ways", default=",".join([*WAYS, FRAGMENTS]))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds for one run")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    data, rounds = PreparedData.open(arguments.data), list[list[dict[str, Any]]]()
    with hosts(arguments.speed, arguments.latency):
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory(prefix="nmt-links-") as name:
                rounds.append(measured(Path(name), arguments, data))
            if arguments.json is not None:
                options = {name: str(value) for name, value in vars(arguments).items()}
                arguments.json.write_text(json.dumps({"options": options, "rounds": rounds}, indent=2))
    for entries in zip(*rounds, strict=True):
        words = [f"{entries[0]['between']:>18}"]
        for name, value in entries[0].items():
            if isinstance(value, float):
                values = [entry[name] for entry in entries]
                each = f" ({', '.join(f'{one:.4g}' for one in values)})" if len(values) > 1 else ""
                words.append(f"{name} {median(values):.4g}{each}")
        print("  ".join(words))


if __name__ == "__main__":
    main()
