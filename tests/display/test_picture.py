"""The picture of a run's display, from the run's records."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from made_runs import trained, validated, write_run

from nmt_async.display.picture import main, recorded_state

RECORDS = [trained(50), trained(100, loss=2.5), validated(100), trained(150, loss=2.25)]
METRICS = "".join(json.dumps(record.as_mapping()) + "\n" for record in RECORDS)


def test_the_picture_is_an_svg_that_needs_nothing_from_the_network(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", METRICS)
    assert main([str(run), "--out", str(tmp_path / "display.svg")]) == 0
    svg = (tmp_path / "display.svg").read_text()
    text = "".join(ElementTree.fromstring(svg).itertext()).replace("\N{NO-BREAK SPACE}", " ")
    for part in ("hybrid, 2 pushes an update", "2 workers on cpu", " 15%", "2.2500", "★ best"):
        assert part in text
    assert "url(http" not in svg
    assert "@font-face" not in svg
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_the_picture_can_be_of_an_earlier_update(tmp_path: Path) -> None:
    state = recorded_state(write_run(tmp_path / "run", METRICS), update=100)
    assert (state.update, state.losses, state.share) == (100, (3.0, 2.5), 0.1)
    assert [report.update for report in state.validations] == [100]


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    assert recorded_state(write_run(tmp_path / "run", METRICS + '{"kind": "tr')).update == 150


@pytest.mark.parametrize(
    ("metrics", "options", "sentence"),
    [
        ("", [], "holds no report of training; there is nothing to show yet."),
        (METRICS, ["--update", "7"], "holds no report of training until update 7;"),
        ("nonsense\n" + METRICS, [], "metrics.jsonl, line 1: this is not a report of training or validation ("),
        ('{"kind": "train"}\n' + METRICS, [], "line 1: this is not a report"),
        (METRICS, ["--width", "10"], "--width must be 40 or more, --height 1 or more."),
    ],
)
def test_a_run_without_what_a_picture_needs_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metrics: str, options: list[str], sentence: str
) -> None:
    run = write_run(tmp_path / "run", metrics)
    assert main([str(run), "--out", str(tmp_path / "display.svg"), *options]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (tmp_path / "display.svg").exists()


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "display.svg")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_damaged_options_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", METRICS)
    (run / "config.yaml").write_text("stop-after: 1ku\n")
    assert main([str(run), "--out", str(tmp_path / "display.svg")]) == 2
    assert "is not the configuration of a run" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", METRICS)
    assert main([str(run), "--out", str(tmp_path / "absent" / "display.svg")]) == 2
    assert capsys.readouterr().err.endswith("display.svg: No such file or directory.\n")
