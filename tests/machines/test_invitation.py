"""With whom a machine trains: as the options say, or as torchrun or Slurm started it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nmt_async.errors import UserError
from nmt_async.machines.invitation import Invitation, invitation_of

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "r", "LOCAL_WORLD_SIZE": "1", "RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "3",
}  # fmt: skip
SLURM = {
    "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_JOB_ID": "45678",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],cpu1",
}  # fmt: skip


@pytest.mark.parametrize(("text", "host", "port"), [
    ("10.0.0.1:29500", "10.0.0.1", 29500), ("gpu1", "gpu1", 29400), ("[fd00::1]:1", "fd00::1", 1),
])  # fmt: skip
def test_a_place_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert invitation_of(2, None, text, {}) == Invitation(host, port, 2)


@pytest.mark.parametrize("text", [":29500", "host:", "host:0", "host:70000", "host:no"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give HOST:PORT"):
        invitation_of(2, 0, text, {})


def test_one_machine_is_alone() -> None:
    assert invitation_of(None, None, None, {}) is None
    assert invitation_of(1, None, None, {}) is None
    assert invitation_of(None, None, None, {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None


def test_torchrun_says_who_is_who() -> None:
    assert invitation_of(None, None, None, TORCHRUN) == Invitation("10.0.0.1", 29500, 2, 1, False, 3, restarts=True)
    assert invitation_of(2, None, None, TORCHRUN) is not None
    first = invitation_of(None, None, None, {**TORCHRUN, "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "False"})
    assert first is not None
    assert first.hosts, "without a store of its agent, the first process has it"


def test_slurm_says_who_is_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without scontrol
    assert invitation_of(None, None, None, SLURM) == Invitation("gpu03", 25678, 2, 0, True)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho head\necho other\n")
    scontrol.chmod(0o755)
    found = invitation_of(None, None, None, {**SLURM, "SLURM_PROCID": "1"})
    assert found == Invitation("head", 25678, 2, 1, False)
    assert invitation_of(None, None, "10.0.0.7:1234", SLURM) == Invitation("10.0.0.7", 1234, 2, 0, True)


@pytest.mark.parametrize(("nodes", "rank", "place", "environment", "sentence"), [
    (2, 2, "host", {}, "2 machines have the ranks 0 to 1"),
    (2, None, None, {}, "say with --rendezvous HOST:PORT"),
    (3, None, None, TORCHRUN, "torchrun started 2"),
    (3, None, None, SLURM, "Slurm started 2"),
    (None, None, None, {**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}, "give --nproc-per-node 1"),
    (None, None, None, {**TORCHRUN, "RANK": "x"}, "environment is not whole"),
    (None, None, None, {**SLURM, "SLURM_NTASKS": "8"}, "give srun --ntasks-per-node=1"),
    (None, None, None, {**SLURM, "SLURM_JOB_ID": ""}, "environment is not whole"),
    (None, None, None, {**SLURM, "SLURM_STEP_NODELIST": ""}, "say where they meet with --rendezvous"),
])  # fmt: skip
def test_what_cannot_be_is_refused(
    nodes: int | None, rank: int | None, place: str | None, environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        invitation_of(nodes, rank, place, environment)
