"""``nmt-async simulate`` as a user types it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from nmt_async.cli.main import run

TYPED = ["simulate", "--profile", "slow-link", "--workers", "1..4", "--modes", "sync,hybrid:W", "--quiet"]


def test_it_prints_a_table_and_writes_rows_and_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TYPED, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "profile slow-link" in said
    assert "staleness" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    with (tmp_path / "out/predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mode"], row["workers"]) for row in rows] == [(m, w) for m in ("sync", "hybrid:W") for w in "124"]
    plots = {path.name for path in (tmp_path / "out").iterdir()} - {"predictions.csv"}
    names = ("throughput", "staleness", "effective-batch", "waiting")
    assert plots == {f"{name}.{form}" for name in names for form in ("svg", "png")}
    assert "with 4 workers" in (tmp_path / "out/throughput.svg").read_text(encoding="utf-8")


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TYPED, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [each["workers"] for each in made] == [1, 2, 4, 1, 2, 4]
    assert made[0]["speedup"] == 1.0


def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--modes", "hybrid:many"]) == 2
    assert capsys.readouterr().err.startswith("nmt-async: --modes: 'hybrid:many' is not a mode")
