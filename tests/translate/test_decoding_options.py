from __future__ import annotations

import pytest
import torch

from nmt_async.errors import UserError
from nmt_async.translate.options import DecodingOptions
from nmt_async.translate.translator import use_device


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"beam_size": 0}, "--beam-size"),
        ({"beam_size": 1001}, "--beam-size"),
        ({"max_length": 1}, "--max-length"),
        ({"mini_batch": 0}, "--mini-batch"),
        ({"normalize": -0.1}, "--normalize"),
        ({"normalize": float("nan")}, "--normalize"),
        ({"max_length_factor": 0.0}, "--max-length-factor"),
        ({"threads": 0}, "--threads"),
    ],
)
def test_a_value_without_sense_is_named(changes, flag):
    with pytest.raises(UserError, match=flag):
        DecodingOptions(**changes)


@pytest.mark.parametrize("name", ["tpu", "cpu:x", "", "cuda:-1", "meta"])
def test_an_unknown_device_is_named(name):
    with pytest.raises(UserError, match="--device"):
        use_device(DecodingOptions(device=name))


def test_one_device_is_one():
    with pytest.raises(UserError, match="--device cpu,cuda:0 names several devices; give one"):
        use_device(DecodingOptions(device="cpu,cuda:0"))


def test_a_cuda_device_that_is_absent_is_named():
    name = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(UserError, match=f"--device {name}"):
        use_device(DecodingOptions(device=name))
