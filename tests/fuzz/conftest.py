"""More examples than usual may take longer than other tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import EXAMPLES

SECONDS_EACH = 1.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(max(180.0, SECONDS_EACH * EXAMPLES)))
