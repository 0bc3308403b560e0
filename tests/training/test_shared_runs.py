"""Runs that real machines share, here two trainers on one host: one run, whatever happens to either of them."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch
from commands import PATIENCE, Command
from safetensors.torch import load_file
from training_runs import COMMAND, events_of, run_small, start_typed, typed, until

from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.checkpoints.training_state import read_values
from nmt_async.errors import UserError
from nmt_async.reading import read_json_lines
from nmt_async.sync.between.joint_journal import joint, passed_over
from nmt_async.sync.between.lineage import Start
from nmt_async.text.plan import BatchId
from nmt_async.training.run_folder import read_outcome
from nmt_async.training.sharing import Here, folder_of, starts_in, unlike_processors

BOTH = {"workers": 1, "sync_mode": "sync", "disp_freq": "2", "save_freq": "4"}


def start_both(data: Path, out: Path, port: int, machines: int = 2, **changes: Any) -> list[subprocess.Popen[str]]:
    """A trainer for each machine."""
    place = {"nodes": machines, "rendezvous": f"127.0.0.1:{port}", "machine_timeout": "0.05min"}
    return [start_typed(data, out, **{**BOTH, **place, "node_rank": rank, **changes}) for rank in range(machines)]


def ends(machines: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """How each ended, and what it said."""
    said = [machine.communicate(timeout=PATIENCE) for machine in machines]
    return [(machine.returncode, out + err) for machine, (out, err) in zip(machines, said, strict=True)]


def run_both(data: Path, out: Path, port: int, **changes: Any) -> list[str]:
    """Two machines to their end; what they said."""
    ended = ends(start_both(data, out, port, **changes))
    assert [code for code, _ in ended] == [0, 0], ended
    return [said for _, said in ended]


def run_alone(data: Path, out: Path, **changes: Any) -> str:
    code, said = ends([start_typed(data, out, **{**BOTH, **changes})])[0]
    assert code == 0, said
    return said


def applied(run: Path, version: int) -> dict[tuple[int, int], int]:
    """The batches that are in the parameters of this version, by the journals of all machines; none is passed over."""
    folders = [run, *sorted(run.glob("machine-*"))]
    return joint([events_of(folder) for folder in folders], Start(99, version))


def replays(run: Path, update: int) -> None:
    """The journals of all machines lead to what the newest checkpoint holds, of that update."""
    code, said = ends([Command(["replay", run], stdout=PIPE, stderr=PIPE, text=True)])[0]
    assert (code, f"machines of {run}, replayed to update {update:,}, lead to what" in said) == (0, True), said


def test_two_machines_of_one_worker_are_one_of_two(small_data: Path, tmp_path: Path, port: int) -> None:
    """Bit for bit, also over resumes on other numbers of machines."""
    run_alone(small_data, tmp_path / "alone", workers=2, stop_after="12")
    both = tmp_path / "both"
    said = run_both(small_data, both, port, stop_after="6")
    assert "an update sums 1 push of about" in said[0]
    assert "from each of 2 machines: effective batch about" in said[0]
    said_alone = run_alone(small_data, both, workers=2, stop_after="8")
    assert "going on with one machine instead of 2: the effective batch stays about" in said_alone
    said = run_both(small_data, both, port, stop_after="12")
    assert "going on with 2 machines instead of 1: the effective batch stays about" in said[0]
    vectors = [load_file(run / "checkpoints" / "step-12" / "state.safetensors") for run in (both, tmp_path / "alone")]
    assert vectors[0].keys() == vectors[1].keys()
    for name, vector in vectors[0].items():
        assert torch.equal(vector, vectors[1][name]), name
    assert len(applied(both, 12)) == 24
    figures = [line for line in read_json_lines(both / "metrics.jsonl") if line["kind"] == "train"]
    there = [line for line in read_json_lines(both / "machine-1" / "metrics.jsonl") if line["kind"] == "train"]
    assert figures[-1]["target_tokens"] == there[-1]["target_tokens"]
    assert not (both / "machine-1" / "checkpoints" / "step-12").exists(), "checkpoints are written once"
    replays(both, 12)


def test_a_run_that_one_machine_has_gone_on_with_is_shared(small_data: Path, tmp_path: Path, port: int) -> None:
    """What that machine's own resumes made void is void, and nothing else; and N is another one then."""
    same = {"sync_mode": "hybrid", "accumulate": 4}
    for updates in ("4", "8"):
        run_alone(small_data, tmp_path / "run", workers=2, stop_after=updates, **same)
    said = run_both(small_data, tmp_path / "run", port, stop_after="10", **same)
    assert "going on after update 8" in said[0]
    assert "an update sums 2 pushes" in said[0]
    assert len(applied(tmp_path / "run", 10)) == 40
    replays(tmp_path / "run", 10)


def test_the_same_command_makes_the_same_update_on_other_machines(small_data: Path, tmp_path: Path, port: int) -> None:
    """N is that of the machines that the run was begun with."""
    run, typed_n = tmp_path / "run", {"sync_mode": "hybrid", "accumulate": 2}
    run_both(small_data, run, port, stop_after="2", **typed_n)
    said = run_alone(small_data, run, stop_after="4", **typed_n)
    assert "an update sums 4 pushes" in said
    said = run_both(small_data, run, port, stop_after="6", **typed_n)[1]
    assert "an update sums 2 pushes" in said
    other = ends(start_both(small_data, run, port, stop_after="8", **{**typed_n, "accumulate": 3}))
    assert [code for code, _ in other] == [2, 2]
    assert "give --accumulate 2 to go on with the same update" in other[0][1] + other[1][1]


def test_a_machine_that_has_joined_goes_on_with_the_same_command(small_data: Path, tmp_path: Path, port: int) -> None:
    """Three machines sum in the order of Gloo's ring, in which a replay sums, too."""
    run, same = tmp_path / "run", {"sync_mode": "hybrid", "accumulate": 3}
    run_both(small_data, run, port, stop_after="2", **same)
    for updates in ("4", "6"):
        said = ends(start_both(small_data, run, port, machines=3, stop_after=updates, **same))
        assert [code for code, _ in said] == [0, 0, 0], said
        assert "an update sums 2 pushes" in said[2][1]
    assert len(applied(run, 6)) == 2 * 6 + 4 * 6
    replays(run, 6)


def test_lagged_machines_lose_no_batch(small_data: Path, tmp_path: Path, port: int) -> None:
    said = run_both(
        small_data, tmp_path / "run", port, between="lagged", sync_mode="hybrid", accumulate=2, stop_after="2e"
    )
    assert "staleness at most about 1" in said[0]
    assert "workers compute on parameters predicted 1 update ahead" in said[0]
    figures = [line for line in read_json_lines(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "train"]
    found = applied(tmp_path / "run", figures[-1]["update"])
    batches = max(number for _, number in found) + 1
    assert not passed_over(found, batches)  # type: ignore[arg-type]
    assert len(found) == 2 * batches
    replays(tmp_path / "run", figures[-1]["update"])


def test_machines_with_updates_of_their_own(small_data: Path, tmp_path: Path, port: int) -> None:
    """They end with the same parameters, and every batch is in them."""
    run = tmp_path / "run"
    options = {"between": "local", "local_updates": 3, "outer_momentum": 0.5}
    said = run_both(small_data, run, port, stop_after="9", **options)
    assert "each of 2 machines makes 3 updates of its own" in said[0]
    assert len(applied(run, 9)) == 18
    run_both(small_data, run, port, stop_after="12", **options)
    assert len(applied(run, 12)) == 24
    values = load_file(run / "checkpoints" / "step-12" / "state.safetensors")
    assert values["outer_momentum"].any()
    figures = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "train"]
    there = [line for line in read_json_lines(run / "machine-1" / "metrics.jsonl") if line["kind"] == "train"]
    assert figures[-1]["target_tokens"] == there[-1]["target_tokens"]
    replays(run, 12)


def test_fragments_one_after_another(small_data: Path, tmp_path: Path, port: int) -> None:
    """Where a checkpoint is due the machines settle; each batch is in each fragment, and none is lost at the end."""
    run = tmp_path / "run"
    options = {
        "between": "local", "local_updates": 4, "outer_fragments": 4, "outer_dtype": "bfloat16", "save_freq": "6",
    }  # fmt: skip
    said = run_both(small_data, run, port, stop_after="30", **options)
    assert "one of 4 parts of the parameters after each update" in said[0]
    figures = [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == "train"]
    saved = [int(step.name[5:]) for step in (run / "checkpoints").glob("step-*")]
    assert max(saved) == figures[-1]["update"]
    assert len(saved) > 1, "it was saved on the way, too"
    found = applied(run, max(saved))
    assert len(found) == sum(figures[-1]["staleness"].values()) + sum(
        sum(line["staleness"].values()) for line in figures[:-1]
    )
    there = [line for line in read_json_lines(run / "machine-1" / "metrics.jsonl") if line["kind"] == "train"]
    assert figures[-1]["target_tokens"] == there[-1]["target_tokens"]
    batches = max(number for _, number in found) + 1
    run_both(small_data, run, port, stop_after="3e", **options)
    version = max(int(step.name[5:]) for step in (run / "checkpoints").glob("step-*"))
    assert len(applied(run, version)) == 3 * batches
    assert not passed_over(applied(run, version), batches)  # type: ignore[arg-type]


@pytest.mark.parametrize("who", [0, 1])
def test_a_machine_is_killed_and_the_run_goes_on(small_data: Path, tmp_path: Path, port: int, who: int) -> None:
    run = tmp_path / "run"
    machines = start_both(small_data, run, port, save_freq="5")
    until(lambda: (run / "checkpoints" / "step-5").exists(), "the first checkpoint")
    machines[who].kill()
    code, said = ends([machines[1 - who]])[0]
    machines[who].communicate()
    assert code == 1
    assert "nothing is heard any more of machine" in said
    assert "The run is saved at update" in said
    kept = run if who == 1 else run / "machine-1"
    assert read_outcome(kept)[0] == "failed"
    version = max(int(step.name[5:]) for step in (kept / "checkpoints").glob("step-*"))
    assert len(applied(run, version)) == 2 * version
    run_both(small_data, run, port, stop_after=f"{version + 10}")
    assert len(applied(run, version + 10)) == 2 * (version + 10)
    replays(run, version + 10)


@pytest.mark.parametrize("count", [2, 3])
def test_machines_with_updates_of_their_own_go_on_without_one(
    small_data: Path, tmp_path: Path, port: int, count: int
) -> None:
    run = tmp_path / "run"
    options = {**BOTH, "between": "local", "local_updates": 2, "nodes": count, "machine_timeout": "0.05min"}
    options |= {"sync_mode": "hybrid", "rendezvous": f"127.0.0.1:{port}"}
    machines = [start_typed(small_data, run, node_rank=0, **options)]
    until(lambda: is_open(port), "the meeting point")
    machines += [start_typed(small_data, run, node_rank=rank, **options) for rank in range(1, count)]
    until(lambda: (run / "checkpoints" / "step-4").exists(), "the first checkpoint")
    machines[1].kill()
    machines[1].communicate()
    goes_on = machines[:1] + machines[2:]
    folders = [folder_of(run, rank) for rank in range(count) if rank != 1]
    until(lambda: all(len(starts_in(events_of(folder))) == 2 for folder in folders), "the machines that are left")
    until(lambda: latest_step(run) > 4 + latest_start(run), "more updates")
    goes_on[0].send_signal(signal.SIGTERM)
    for code, said in ends(goes_on):
        assert code == 143, said
        assert "nothing is heard any more of machine 1" in said
        assert ("this one goes on alone" in said) is (count == 2)
        assert "1 push of about" in said
    assert not passed_over_of(run, latest_step(run))
    replays(run, latest_step(run))


def test_the_machine_that_validates_is_lost_with_its_disk(small_data: Path, tmp_path: Path, port: int) -> None:
    """In fragments, where the others have a state at some moments only; here the meeting point is another machine."""
    options = {**BOTH, "between": "local", "local_updates": 4, "outer_fragments": 2, "sync_mode": "hybrid"}
    options |= {"nodes": 2, "rendezvous": f"127.0.0.1:{port}", "machine_timeout": "0.05min", "save_freq": "8"}
    second = start_typed(small_data, tmp_path / "b", node_rank=1, **options)
    until(lambda: is_open(port), "the meeting point")
    first = start_typed(small_data, tmp_path / "a", node_rank=0, **options)
    until(lambda: latest_step(tmp_path / "a"), "the first checkpoint")
    first.kill()
    first.communicate()
    mine = tmp_path / "b" / "machine-1"
    until(lambda: len(starts_in(events_of(mine))) == 2, "the machine that is left")
    until(lambda: latest_step(mine) > latest_start(mine), "more updates")
    second.send_signal(signal.SIGTERM)
    code, said = ends([second])[0]
    assert code == 143
    assert "The run is saved at update" in said
    assert latest_start(mine) >= latest_step(tmp_path / "a") > 0, "it went on from what they had last agreed on"


def test_a_signal_before_a_loss_ends_the_run(small_data: Path, tmp_path: Path, port: int) -> None:
    options = {**BOTH, "between": "local", "local_updates": 2, "sync_mode": "hybrid"}
    machines = start_both(small_data, tmp_path / "run", port, **options)
    until(lambda: latest_step(tmp_path / "run"), "the first checkpoint")
    machines[1].send_signal(signal.SIGSTOP)
    machines[0].send_signal(signal.SIGTERM)
    code, said = ends(machines[:1])[0]
    machines[1].kill()
    machines[1].communicate()
    assert code == 143
    assert "The run is saved at update" in said
    assert "goes on alone" not in said


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def latest_step(run: Path) -> int:
    return max(folders_by_update(run / "checkpoints", "step"), default=0)


def latest_start(run: Path) -> int:
    """The version that the latest start went on from."""
    return max(starts_in(events_of(run))).version


def passed_over_of(run: Path, version: int) -> set[BatchId]:
    """Batches before the stream's position in that checkpoint that are neither applied nor to be dealt."""
    dealing = read_values(run / "checkpoints" / f"step-{version}")["coordinator"]["dealing"]
    found, to_deal = set(applied(run, version)), {BatchId(*batch) for batch in dealing["recalled"]}
    assert not found & to_deal
    epoch, number = dealing["position"]
    batches = max([number, *(batch for _, batch in found)]) + (epoch > 1)
    every = {BatchId(before, batch) for before in range(1, epoch) for batch in range(batches)}
    return (every | {BatchId(epoch, batch) for batch in range(number)}) - found - to_deal


def test_a_signal_to_one_pauses_all(small_data: Path, tmp_path: Path, port: int) -> None:
    run = tmp_path / "run"
    machines = start_both(small_data, run, port)
    until(lambda: (run / "checkpoints" / "step-4").exists(), "the first checkpoint")
    machines[1].send_signal(signal.SIGTERM)
    (code, said), (other_code, _) = ends(machines)
    assert (code, other_code) == (143, 143)
    assert "by a signal to another machine; the run is saved" in said
    assert [read_outcome(folder)[0] for folder in (run, run / "machine-1")] == ["interrupted"] * 2
    version = max(int(step.name[5:]) for step in (run / "checkpoints").glob("step-*"))
    assert len(applied(run, version)) == 2 * version


def test_machines_that_are_not_started_alike(small_data: Path, tmp_path: Path, port: int) -> None:
    place = {**BOTH, "nodes": 2, "rendezvous": f"127.0.0.1:{port}"}
    machines = [start_typed(small_data, tmp_path / "run", node_rank=rank, seed=rank, **place) for rank in range(2)]
    for code, said in ends(machines):
        assert code == 2
        assert "has --seed 1 and machine 0" in said
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"between": "lagged"}, "--between lagged: there is one machine only"),
    ({"rendezvous": "host:1"}, "--rendezvous host:1: there is one machine only"),
    ({"nodes": 2}, "say with --rendezvous HOST:PORT"),
    ({"node_rank": 0}, "--node-rank"),
    ({"nodes": 2, "rendezvous": "127.0.0.1:1", "cluster": "simulated"}, "--rendezvous 127.0.0.1:1: all machines of a"),
    ({"nodes": 3, "cluster": "simulated", "workers": None}, "4 workers cannot be shared out among 3 machines"),
    ({"nodes": 2, "rendezvous": "127.0.0.1:1", "between": "lagged", "sync_mode": "sync"}, "give --sync-mode hybrid"),
    ({"nodes": 2, "cluster": "simulated", "optimizer": "adam", "momentum_lookahead": "dana"}, "of its own workers"),
    ({"nodes": 2, "cluster": "simulated", "local_updates": 3}, "--local-updates"),
    ({"nodes": 2, "cluster": "simulated", "between": "local", "local_updates": 0}, "--local-updates: 0 is not from 1"),
    ({"nodes": 2, "cluster": "simulated", "between": "local", "outer_rate": 0}, "--outer-rate: 0 is not above 0"),
    ({"nodes": 2, "cluster": "simulated", "between": "local", "outer_momentum": 1}, "--outer-momentum: 1 is not from"),
    ({"nodes": 2, "cluster": "simulated", "between": "local", "outer_fragments": 5}, "5 fragments do not share"),
    ({"nodes": 2, "cluster": "simulated", "outer_dtype": "bfloat16"}, "--outer-dtype"),
    ({"nodes": 0}, "--nodes: 0 is not from 1"),
    ({"nodes": 2, "rendezvous": "127.0.0.1:1", "machine_timeout": "0min"}, "--machine-timeout"),
    ({"nodes": 2, "rendezvous": "127.0.0.1:1", "node_rank": -1}, "--node-rank: -1"),
])  # fmt: skip
def test_what_machines_cannot_do_is_refused(
    small_data: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    given = {name: value for name, value in {"workers": 2, **changes}.items() if value is not None}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    machine = Command(["train", small_data, "--out", tmp_path / "run", *words], stdout=PIPE, stderr=PIPE, text=True)
    code, said = ends([machine])[0]
    assert code == 2
    assert sentence in said


def test_torchrun_starts_them(small_data: Path, tmp_path: Path, port: int) -> None:
    """With its own rendezvous, one process on each of two machines, which are on one host here."""
    words = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "1", "--nnodes", "2"]
    script = tmp_path / "train.py"
    script.write_text("from nmt_async.cli.start import main\nmain()\n")
    options = ["train", str(small_data), *typed(tmp_path / "run", **{**BOTH, "stop_after": "4"})]
    launcher = [COMMAND[0], "-m", "torch.distributed.run", *words, "--nproc-per-node", "1", str(script), *options]
    ended = ends([subprocess.Popen(launcher, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"])
    assert [code for code, _ in ended] == [0, 0], ended
    assert len(applied(tmp_path / "run", 4)) == 8


def test_simulated_machines_are_one_run(small_data: Path, tmp_path: Path) -> None:
    """Two of one worker are one of two, in virtual time too; a lagged run goes on, and loses no batch."""
    place = {"cluster": "simulated", "sync_mode": "sync", "stop_after": "6", "save_freq": "3", "disp_freq": "3"}
    run_small(small_data, tmp_path / "alone", **{**place, "workers": 2})
    run_small(small_data, tmp_path / "both", **{**place, "workers": 1, "nodes": 2})
    vectors = [load_file(tmp_path / run / "checkpoints/step-6/state.safetensors") for run in ("alone", "both")]
    for name in ("parameters", "moment1"):
        assert torch.equal(vectors[0][name], vectors[1][name]), name
    lagged = {**place, "sync_mode": "hybrid", "between": "lagged", "workers": 2, "nodes": 2}
    run_small(small_data, tmp_path / "lagged", **{**lagged, "stop_after": "3"})
    said = run_small(small_data, tmp_path / "lagged", **lagged).said
    assert "going on after update 3" in said
    figures = [line for line in read_json_lines(tmp_path / "lagged" / "metrics.jsonl") if line["kind"] == "train"]
    assert [line["update"] for line in figures] == [3, 6]
    assert figures[-1]["time"] > figures[0]["time"], "the virtual time goes on"


def test_a_damaged_checkpoint_is_passed_over(small_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    place = {"cluster": "simulated", "nodes": 2, "workers": 1, "save_freq": "2", "keep_last": 2}
    run_small(small_data, run, stop_after="4", **place)
    damaged = run / "checkpoints" / "step-4" / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = run_small(small_data, run, stop_after="6", **place)
    assert "going on after update 2" in said.said
    assert any("step-4: " in warning and "another checkpoint is used" in warning for warning in said.warnings)
    for step in (run / "checkpoints").glob("step-*"):
        (step / "state.json").unlink()
    with pytest.raises(UserError, match="no checkpoint can be gone on with; choose another --out"):
        run_small(small_data, run, stop_after="8", **place)


class Mixed(Here):
    """Two machines, of which the second has another processor."""

    def gather(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        return [values, {"cpu": "x86_64 AVX2"}]


def test_unlike_processors_are_told_of() -> None:
    assert not unlike_processors(Here(2))
    said = unlike_processors(Mixed(2))
    assert "machine 1 (simulated) computes with x86_64 AVX2 and machine 0" in said
