"""What `make soak` prints at its end, and that it sees what goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from soak import main
from strikes import KILLS, STRIKES

from nmt_async.sync.journal import Event, Kind
from nmt_async.sync.ledger import Ledger

SHORT = ["--minutes", "0", "--virtual-kills", "40", "--seed", "5"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def counts(printed: str) -> dict[str, str]:
    return dict(re.findall(r"^ *(\S.*\S) {2,}(\S.*)$", printed, re.MULTILINE))


def test_a_soak_counts_what_it_did_and_what_that_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SHORT) == 0
    printed = capsys.readouterr().out
    found = counts(printed)
    assert int(found["worker killed (virtual)"]) + int(found["run killed (virtual)"]) >= 40
    assert [found[name] for name in ("batches lost", "batches counted twice", "hangs", "anything else wrong")] == [
        "0"
    ] * 4
    assert "make soak ARGS='--seed 5'" in printed
    assert main(SHORT) == 0
    assert capsys.readouterr().out == printed


def test_a_soak_sees_batches_that_are_lost(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    take = Ledger.take

    def forget(self: Ledger, event: Event) -> None:
        take(self, event)
        if event.kind is Kind.RETURNED:
            self.waiting.remove(event.batch)
            self._undelivered.remove(event.batch)

    monkeypatch.setattr(Ledger, "take", forget)
    assert main(SHORT) == 1
    printed = capsys.readouterr().out
    assert int(counts(printed)["batches lost"]) > 0
    assert "The runs that went wrong are kept in " in printed


def test_every_kill_is_a_fault_that_a_soak_knows() -> None:
    assert STRIKES.keys() >= KILLS
