"""``doctor`` on several machines at once, each of which is a thread here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from training_runs import small_options

from nmt_async.doctor import machines
from nmt_async.doctor.finding import Finding
from nmt_async.doctor.machines import machines_findings
from nmt_async.errors import UserError
from nmt_async.machines import meeting


def examined(port: int, fingerprints: list[str | None]) -> list[list[Finding]]:
    """What each of them finds."""

    def one(rank: int) -> list[Finding]:
        place = {"nodes": len(fingerprints), "node_rank": rank, "rendezvous": f"127.0.0.1:{port}"}
        return list(machines_findings(small_options(Path("run"), **place), fingerprints[rank], lambda _: None))

    with ThreadPoolExecutor(len(fingerprints)) as pool:
        return list(pool.map(one, range(len(fingerprints))))


def test_all_is_well(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "PROBE", 1000)
    for found in examined(port, ["abc", "abc"]):
        assert {finding.verdict for finding in found} == {"fine"}
        checks = [finding.check for finding in found]
        assert checks == ["machines", "nmt-async alike", "torch alike", "data alike", "clocks", "links"]
        assert "Gbit/s for sums" in found[-1].found


def test_other_data_is_found(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "PROBE", 1000)
    for found in examined(port, ["abc", "xyz"]):
        (data,) = [finding for finding in found if finding.check == "data alike"]
        assert data.verdict == "wrong"
        assert "machine 1 (" in data.found
        assert data.found.endswith("has xyz")


def test_clocks_that_are_apart(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "PROBE", 1000)
    moments = iter([1000.0, 1060.0])
    monkeypatch.setattr("nmt_async.doctor.machines.time.time", lambda: next(moments))
    for found in examined(port, [None, None]):
        (clocks,) = [finding for finding in found if finding.check == "clocks"]
        assert clocks.verdict == "note"
        assert "60 s behind" in clocks.found


def test_a_machine_that_cannot_be_reached(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nmt_async.machines.meeting.COMING", meeting.datetime.timedelta(seconds=1))
    place = {"nodes": 2, "node_rank": 0, "rendezvous": f"127.0.0.1:{port}"}
    (found,) = machines_findings(small_options(Path("run"), **place), None, lambda _: None)
    assert found.verdict == "wrong"
    assert "machines 1 of 2 did not come" in found.found


def test_one_machine_has_nothing_to_find() -> None:
    assert not list(machines_findings(small_options(Path("run")), None, lambda _: None))
    with pytest.raises(UserError, match="--between lagged: there is one machine only"):
        list(machines_findings(small_options(Path("run"), between="lagged"), None, lambda _: None))
