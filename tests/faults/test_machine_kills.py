"""What `make soak-machines` does, with three strikes."""

from __future__ import annotations

import re
from pathlib import Path

import machine_kills
import pytest


def test_machines_that_are_struck_lose_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert machine_kills.main(["--kills", "3", "--seed", "4"]) == 0, capsys.readouterr().out
    found = dict(re.findall(r"^(\S.*\S) {2,}(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    assert int(found["machines killed"]) + int(found["machines stopped"]) == 3
    assert [found[name] for name in ("batches lost", "batches twice", "hangs", "else wrong")] == ["0"] * 4
