"""Tests that run on the CPU and, where there is one, on a CUDA device: the same test, so that its code is tried."""

from __future__ import annotations

import pytest
import torch


def needs(gpus: int) -> list[pytest.MarkDecorator]:
    """Marks of a test that needs so many CUDA devices."""
    there = torch.cuda.device_count()
    reason = f"no CUDA device here: `make gpu-check` runs it ({gpus} needed, {there} found)"
    return [pytest.mark.cuda, pytest.mark.skipif(there < gpus, reason=reason)]


EACH_DEVICE = ["cpu", pytest.param("cuda:0", marks=needs(1))]
"""Values of a parameter."""
