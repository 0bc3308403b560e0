"""What is said of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from training_runs import small_options

from nmt_async.doctor.machine import cores, devices, quota, shared_space, torch_build
from nmt_async.errors import UserError
from nmt_async.free_memory import available_memory


def test_the_torch_build_is_told(tmp_path: Path) -> None:
    finding = torch_build(tmp_path / "no driver")
    assert finding.verdict == "fine"
    assert torch.__version__ in finding.found


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds the GPUs of this machine")
def test_a_driver_whose_gpus_torch_does_not_find_is_told(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("NVRM version: 1")
    finding = torch_build(tmp_path / "version")
    assert finding.verdict == "note"
    assert "install torch" in finding.advice


def test_devices_that_are_here_are_told(tmp_path: Path) -> None:
    assert next(finding.found for finding in devices(small_options(tmp_path, devices="cpu"))) == "cpu"


def test_a_device_that_is_not_here_is_wrong_and_a_mistake_is_one(tmp_path: Path) -> None:
    (finding,) = devices(small_options(tmp_path, devices="99"))
    assert finding.verdict == "wrong"
    assert "--devices" in finding.found
    assert "give other --devices" in finding.advice
    assert cores(small_options(tmp_path, devices="99")).verdict == "fine"
    for mistake in ({"devices": "tpu"}, {"workers": 0}):
        with pytest.raises(UserError):
            list(devices(small_options(tmp_path, **mistake)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_told_with_its_free_memory(tmp_path: Path) -> None:
    assert "free" in list(devices(small_options(tmp_path, devices="0")))[1].found


def test_workers_that_would_wait_for_a_core_are_noted(tmp_path: Path) -> None:
    there = len(os.sched_getaffinity(0))
    nowhere = tmp_path / "nowhere"
    assert cores(small_options(tmp_path, workers=there, cpu_threads=1), nowhere).verdict == "fine"
    finding = cores(small_options(tmp_path, workers=3 * there, cpu_threads=2), nowhere)
    assert finding.verdict == "note"
    assert finding.advice.endswith(f"give --workers {max(1, there // 2)}")


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert quota(tmp_path) == 0.5
    finding = cores(small_options(tmp_path, workers=2, cpu_threads=1), tmp_path)
    assert finding.verdict == "note"
    assert "no more time than 0.5 of them" in finding.found


def test_the_memory_that_can_be_had_is_the_least_of_machine_and_groups(tmp_path: Path) -> None:
    assert available_memory() > 0
    proc, group = tmp_path / "proc", tmp_path / "groups" / "a" / "b"
    (proc / "self").mkdir(parents=True)
    group.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     8 kB\n")
    assert available_memory(proc, tmp_path / "groups") == 8 * 1024
    (proc / "self" / "cgroup").write_text("0::/a/b\n")
    for folder, limit in ((group, "max"), (group.parent, "3000")):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("1000")
    assert available_memory(proc, tmp_path / "groups") == 2000


def test_the_room_in_dev_shm_is_told(tmp_path: Path) -> None:
    assert "are free in" in shared_space()
    assert shared_space(tmp_path / "absent").startswith("there is no")
