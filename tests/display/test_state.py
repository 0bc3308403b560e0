"""What a display knows: time that moves between reports, and the time left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_runs import midway, title, trained

from nmt_async.display.reports import MachinesReport, TrainReport, ValidReport
from nmt_async.display.state import DisplayState


def test_elapsed_time_moves_between_reports_and_follows_the_run_at_each() -> None:
    state = DisplayState(now=100.0).begun(title())
    assert state.at(107.0).elapsed == pytest.approx(7)
    state = state.at(110.0).trained(trained(16))
    assert state.elapsed == pytest.approx(8)
    assert state.at(115.0).elapsed == pytest.approx(13)


def test_a_resumed_run_goes_on_from_its_earlier_time() -> None:
    assert DisplayState(now=5.0).begun(replace(title(), seconds=3600.0)).at(6.0).elapsed == pytest.approx(3601)


def test_time_left_is_that_of_this_sittings_pace() -> None:
    state = DisplayState().begun(title()).at(10.0).progressed(0.5, 500)
    assert state.left is None
    state = state.at(20.0).progressed(0.6, 600)
    assert state.left == pytest.approx(40)
    assert state.at(25.0).left == pytest.approx(35)
    assert state.at(1000.0).left == 0
    assert state.progressed(None, 601).left is None


def test_the_last_report_keeps_the_waiting_of_workers_that_have_ended() -> None:
    state = DisplayState().begun(title()).trained(trained(10)).trained(replace(trained(12), waiting_share=[]))
    assert state.report is not None
    assert state.report.waiting_share == trained(10).waiting_share


def test_reports_come_back_from_what_metrics_record_of_them() -> None:
    state = midway()
    assert state.report is not None
    report, valid = trained(7), state.validations[0]
    assert TrainReport.from_mapping(report.as_mapping()) == report
    assert ValidReport.from_mapping(valid.as_mapping()) == valid


def test_machines_come_back_from_what_metrics_record_of_them() -> None:
    machines = MachinesReport(7, 1, ["machine 0 (a)", "machine 1 (b)"], [4, 2])
    assert MachinesReport.from_mapping(machines.as_mapping()) == machines
    of_two = {"machine_tokens": [3, 0], "machine_pushes": [1, 0], "machine_waiting": [0.5, None]}
    report = replace(trained(7), **of_two, machine_staleness=[1.0, None])
    assert TrainReport.from_mapping(report.as_mapping()) == report


@pytest.mark.parametrize("change", [
    {"names": ["a"]}, {"here": 2}, {"here": -1}, {"workers": [1, 0]}, {"workers": [1, "2"]}, {"names": ["a", None]},
])  # fmt: skip
def test_what_cannot_be_of_machines_is_refused(change: dict[str, object]) -> None:
    values = MachinesReport(7, 1, ["a", "b"], [4, 2]).as_mapping()
    with pytest.raises((TypeError, ValueError)):
        MachinesReport.from_mapping({**values, **change})


@pytest.mark.parametrize("change", [
    {"machine_tokens": [1]}, {"machine_tokens": [1, -1]}, {"machine_waiting": [0.5, 1e9]},
    {"machine_staleness": [0.5, -1.0]}, {"machine_staleness": [0.5, "1"]}, {"machine_waiting": []},
])  # fmt: skip
def test_what_cannot_be_of_a_shared_run_is_refused(change: dict[str, object]) -> None:
    figures = {"machine_tokens": [1, 2], "machine_pushes": [1, 1], "machine_waiting": [0.1, None]}
    report = replace(trained(7), **figures, machine_staleness=[0.5, 0.5])
    with pytest.raises((TypeError, ValueError)):
        TrainReport.from_mapping({**report.as_mapping(), **change})
