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


MACHINES = [
    "simulate",
    "--workers",
    "2",
    "--nodes",
    "1..4",
    "--modes",
    "sync,hybrid:W",
    "--model-size",
    "10M",
    "--quiet",
]


def test_machines_exchange_in_every_way_that_fits_the_mode(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*MACHINES, "--json", "--link-speed", "1Gbit", "--link-latency", "0.5"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(each["mode"], each["between"], each["machines"], each["workers"]) for each in made] == [
        (mode, way, machines, 2 * machines)
        for mode, ways in (("sync", ("sync", "local")), ("hybrid:W", ("sync", "lagged", "local")))
        for way in ways
        for machines in (1, 2, 4)
    ]
    sync, lagged, local = (
        next(each for each in made if (each["mode"], each["between"], each["machines"]) == ("hybrid:W", way, 4))
        for way in ("sync", "lagged", "local")
    )
    assert lagged["tokens_per_second"] > sync["tokens_per_second"]
    assert local["tokens_per_second"] > sync["tokens_per_second"]
    assert sync["link_bytes"] == 2 * 3 / 4 * 40e6


def test_a_table_of_machines_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*MACHINES, "--between", "lagged"]) == 0
    said = capsys.readouterr().out
    assert "hybrid:W, lagged" in said
    assert "chines" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "…" not in said


@pytest.mark.parametrize(("words", "sentence"), [
    (["--nodes", "1,2", "--workers", "1,2"], "--nodes and --workers are two lists"),
    (["--nodes", "2", "--between", "lagged,other"], "--between: 'other' is not one of sync, lagged"),
    (["--nodes", "2", "--between", "lagged", "--modes", "sync"], "--modes sync: its workers wait for an update"),
    (["--nodes", "2", "--link-speed", "fast"], "--link-speed: 'fast' is no speed; give it as 100Mbit"),
    (["--nodes", "2", "--link-latency", "-1"], "--link-latency: -1 is not from 0"),
    (["--nodes", "x"], "--nodes: 'x' is neither a number of machines nor a range"),
])  # fmt: skip
def test_mistakes_about_machines(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", "--workers", "2", "--modes", "hybrid:W", *words]) == 2
    assert sentence in capsys.readouterr().err
