from __future__ import annotations

import os
import signal

import pytest
import torch
from hypothesis import settings

# A deadline is a timed assertion: it fails on a busy machine. Where CI is set, every commit is judged by the same
# examples; elsewhere each run tries new ones.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")

pytest_plugins = ("tiny_model", "training_runs")

# A shell that starts the tests in the background has SIGINT ignored, in all that they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The models that a test builds, and the fixtures built for it, begin with the same weights every time."""
    torch.manual_seed(1)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small gain nothing from more, and tests run side by side."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
