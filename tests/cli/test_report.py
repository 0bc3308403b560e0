"""``nmt-async report`` as a user types it."""

from __future__ import annotations

import csv
import json

import pytest
from nmt_async.cli.main import run
from training_runs import run_small


@pytest.fixture(scope="module")
def finished(small_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("reported") / "run"
    run_small(
        small_data,
        out,
        stop_after="12",
        valid_freq="6",
        disp_freq="3",
        cluster="simulated",
        profile="uneven",
        workers=4,
    )
    return out


def test_a_run_becomes_a_page_with_its_plots_and_a_table(finished, capsys):
    assert run(["report", str(finished)]) == 0
    said = capsys.readouterr()
    page = finished / "report" / "report.html"
    assert (said.out, said.err) == (f"{page}\n", "")
    text = page.read_text()
    last = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["kind"] == "valid"
    assert f"{last['cross_entropy']:.3f}" in text
    assert str(finished) in text
    assert "4 workers, simulated, profile uneven" in text
    assert " of the virtual clock: " in text
    assert f"nmt-async report {finished}" in text
    rows = list(csv.DictReader((finished / "report" / "results.csv").open()))
    assert [row["update"] for row in rows] == ["6", "12"]
    assert float(rows[-1]["cross_entropy"]) == last["cross_entropy"]
    plots = {path.name for path in (finished / "report" / "plots").iterdir()}
    assert {"cross-entropy-tokens.svg", "cross-entropy-tokens.png", "staleness.svg", "course-loss.svg"} <= plots
    assert not any(name.startswith("bleu") for name in plots)


def test_a_report_goes_where_it_should_and_says_nothing_when_quiet(finished, tmp_path, capsys):
    assert run(["report", str(finished), "--out", str(tmp_path / "there"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "there" / "report.md").read_text().startswith("# Run run\n")


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_what_is_no_run_is_refused_in_a_sentence(place, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(["report", str(tmp_path / place)]) == 2
    assert capsys.readouterr().err == (
        f"nmt-async: {tmp_path / place} is not the folder of a run (no config.yaml and metrics.jsonl in it).\n"
    )
    assert not (tmp_path / place / "report").exists()
