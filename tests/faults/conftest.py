from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import prepare_small


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder without validation pairs, which would cost each run another process; not to be changed."""
    return prepare_small(tmp_path_factory.mktemp("unvalidated"), valid_source=(), valid_target=())
