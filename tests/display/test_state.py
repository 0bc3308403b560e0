"""What a display knows: time that moves between reports, and the time left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_runs import midway, title, trained

from nmt_async.display.reports import TrainReport, ValidReport
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
