"""What a package offers is there under its short name, and asking for it loads no more than it needs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import nmt_async

PACKAGES = sorted(
    f"nmt_async.{path.parent.name}"
    for path in Path(nmt_async.__file__).parent.glob("*/__init__.py")
    if "__all__" in path.read_text(encoding="utf-8")
)

WITHOUT_TORCH = [
    *PACKAGES,
    *(f"nmt_async.{name}.options" for name in ("search", "translate", "score", "export", "text")),
    "nmt_async.checkpoints.run_models",
    "nmt_async.model.configuration",
    "nmt_async.text.vocabulary",
]
"""What the command line asks for options, and for help."""


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_there_and_no_other(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        found = getattr(package, public)
        assert getattr(found, "__module__", name).startswith((name, "types", "typing")), public
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'nothing_of_the_kind'"):
        package.nothing_of_the_kind  # noqa: B018


def test_options_and_public_names_are_declared_without_torch() -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_TORCH!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
