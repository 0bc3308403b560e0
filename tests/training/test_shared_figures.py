"""What the figures of a shared run say of each machine, from the run to the page that people read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from training_runs import events_of, run_small

from nmt_async.display.recorded_run import recorded_state
from nmt_async.display.watch import WatchOptions, watch
from nmt_async.errors import UserError
from nmt_async.reading import read_json_lines
from nmt_async.report.one_run import words_of
from nmt_async.report.page import write_report
from nmt_async.study.collect import collect
from nmt_async.study.result import Result
from nmt_async.sync.journal import Kind
from nmt_async.sync.push import Push, Update
from nmt_async.text.plan import BatchId
from nmt_async.training.metrics import Moment, ReportPeriod
from tests.training.test_shared_runs import run_both

SHARED: dict[str, Any] = {
    "cluster": "simulated", "nodes": 2, "workers": 2, "profile": "uneven", "between": "lagged", "sync_mode": "hybrid",
    "accumulate": 2, "disp_freq": "2",
}  # fmt: skip


def records(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [line for line in read_json_lines(run / "metrics.jsonl") if line["kind"] == kind]


def total(run: Path, rank: int) -> int:
    return sum(record["machine_tokens"][rank] for record in records(run))


def assert_of_all_machines(run: Path) -> None:
    """The figures of the machines come to those of all together."""
    for record in records(run):
        tokens, pushes, ages = (record[f"machine_{name}"] for name in ("tokens", "pushes", "staleness"))
        assert sum(tokens) == record["stretch_tokens"]
        assert sum(pushes) == sum(record["staleness"].values())
        summed = sum(age * count for age, count in zip(ages, pushes, strict=True) if count)
        assert summed / sum(pushes) == pytest.approx(record["staleness_mean"], rel=1e-4)


@pytest.mark.parametrize("way", [
    {"between": "sync", "sync_mode": "sync", "accumulate": None}, {}, {"between": "local", "local_updates": 3},
    {"between": "local", "local_updates": 4, "outer_fragments": 2},
], ids=["sync", "lagged", "local", "fragments"])  # fmt: skip
def test_what_machines_did_adds_up_in_every_way(small_data: Path, tmp_path: Path, way: dict[str, Any]) -> None:
    run = tmp_path / "run"
    said = run_small(small_data, run, **{**SHARED, **way}, stop_after="12").said
    assert_of_all_machines(run)
    assert records(run, "machines") == [
        {"kind": "machines", "update": 0, "here": 0, "names": ["machine 0 (simulated)", "machine 1 (simulated)"],
         "workers": [2, 2]}
    ]  # fmt: skip
    assert "4 workers on 2 machines" in said
    assert said.count("| machines: target/s ") == len(records(run))
    log = (run / "train.log").read_text()
    assert log.count("] [machines] machine 0 (simulated) ") == len(records(run))


def test_real_machines_tell_each_other_what_they_did(small_data: Path, tmp_path: Path, port: int) -> None:
    """Each writes of both, by their journals; and each waits as it says of itself."""
    run = tmp_path / "run"
    run_both(small_data, run, port, between="lagged", sync_mode="hybrid", accumulate=2, stop_after="12", disp_freq="3")
    folders = [run, run / "machine-1"]
    for folder in folders:
        assert_of_all_machines(folder)
        for rank, of in enumerate(folders):
            own = sum(event.tokens for event in events_of(of) if event.kind is Kind.UPDATED)
            assert total(folder, rank) == own
    first, second = (records(folder) for folder in folders)
    assert [record["machine_tokens"] for record in first] == [record["machine_tokens"] for record in second]
    assert [record["machine_waiting"] for record in first] == [record["machine_waiting"] for record in second]
    for record in first:
        for share, pushes in zip(record["machine_waiting"], record["machine_pushes"], strict=True):
            if share is None:  # in lagged, a machine that was called before it had anything tells of no time
                assert pushes == 0
            else:
                assert 0 <= share < 1
    assert [records(folder, "machines")[0]["here"] for folder in folders] == [0, 1]
    shown = io.StringIO()
    watch(WatchOptions(once=True), run / "machine-1", shown)
    name = records(run, "machines")[0]["names"][1]
    assert f"{run / 'machine-1'} is what {name} writes; machine 0" in shown.getvalue()
    assert f"{name} of 2 with 2 workers" in shown.getvalue()
    shares = [tokens / first[-1]["stretch_tokens"] for tokens in first[-1]["machine_tokens"]]
    assert f"\n{name} | target/s " in shown.getvalue()
    assert f" | {shares[1]:.0%} of the tokens | " in shown.getvalue()


def test_a_stretch_goes_on_when_the_run_does_and_begins_anew_on_other_machines(
    small_data: Path, tmp_path: Path
) -> None:
    run, options = tmp_path / "run", {**SHARED, "disp_freq": "4"}
    run_small(small_data, run, **options, stop_after="6", save_freq="3")
    ended_with_a_report = records(run)[-1]
    assert ended_with_a_report["update"] == 6
    run_small(small_data, run, **options, stop_after="12")
    assert_of_all_machines(run)
    assert len(records(run, "machines")) == 1, "they are the same"
    run_small(small_data, run, **{**options, "nodes": 1, "between": None}, stop_after="14")
    last = records(run)[-1]
    assert last["machine_tokens"] == [last["stretch_tokens"]]
    assert [line["update"] for line in records(run, "machines")] == [0, 12]


def an_update(*workers: int) -> Update:
    pushes = tuple(
        Push(worker, BatchId(1, number), 0, tokens=10 + number, loss=1.0) for number, worker in enumerate(workers)
    )
    return Update(1, pushes, tuple(range(len(workers))), 0.1, 1.0)


def report_of(period: ReportPeriod) -> Any:
    return period.report(Moment(updates=1, tokens=46, seconds=2.0), [], 0, 0.0, 0.0)


def test_pushes_are_of_the_machine_that_has_the_worker() -> None:
    """Workers 0 and 1 are the first machine's, 2 the second one's, and of the third nothing came."""
    period = ReportPeriod(Moment())
    update = an_update(0, 2, 1, 2)
    period.add(update)
    period.add_machines(update, (2, 1, 1), [(3.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
    again = ReportPeriod.restored(period.state())
    for report in (report_of(period), report_of(again)):
        assert report.machine_tokens == [10 + 12, 11 + 13, 0]
        assert report.machine_pushes == [2, 2, 0]
        assert report.machine_staleness == [1.0, 2.0, None]
        assert report.machine_waiting == [0.25, 0.5, None]
    again.add_machines(update, (2, 2), [(1.0, 0.0), (1.0, 0.0)])
    assert report_of(again).machine_pushes == [2, 2], "of another number of machines: since there is that"


def test_a_checkpoint_of_a_version_that_did_not_know_machines_is_gone_on_with() -> None:
    period = ReportPeriod(Moment())
    period.add(an_update(0, 1))
    state = period.state()
    del state["machines"]
    report = report_of(ReportPeriod.restored(state))
    assert report.machine_tokens == []
    assert "machine_tokens" not in report.as_mapping()


def test_the_report_of_a_run_has_its_machines(shared_run: Path, real_run: Path, tmp_path: Path) -> None:
    result = collect(shared_run)
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json").machines[0].tokens == result.machines[0].tokens
    assert [machine.name for machine in result.machines] == ["machine 0 (simulated)", "machine 1 (simulated)"]
    assert [machine.tokens for machine in result.machines] == [total(shared_run, rank) for rank in (0, 1)]
    assert result.workers == 4
    seconds = records(shared_run)[-1]["time"]
    assert result.machines[1].tokens_per_second == pytest.approx(total(shared_run, 1) / seconds, rel=1e-4)
    write_report(tmp_path / "report", words_of(result, "run", ""), [result])
    text = (tmp_path / "report" / "report.md").read_text()
    share = total(shared_run, 1) / sum(total(shared_run, rank) for rank in (0, 1))
    assert f"| machine 1 (simulated) | 2 | {total(shared_run, 1):,} | " in text
    assert f" | {100 * share:.1f} % | " in text
    page = (tmp_path / "report" / "report.html").read_text()
    assert '">Machines</h2>' in page
    assert (tmp_path / "report" / "plots" / "machines-throughput.svg").exists()
    alone = collect(real_run)
    assert alone.machines == ()
    write_report(tmp_path / "alone", words_of(alone, "run", ""), [alone])
    assert "achines" not in (tmp_path / "alone" / "report.md").read_text()
    assert not list((tmp_path / "alone" / "plots").glob("machines-*"))


def test_the_state_of_a_shared_run_at_an_update_names_its_machines(shared_run: Path) -> None:
    state = recorded_state(shared_run, 4)
    assert state.title is not None
    assert state.report is not None
    assert state.title.workers() == "4 workers on 2 machines"
    assert state.title.rule() == "hybrid, 2 pushes a machine"
    assert state.report.machine_tokens == records(shared_run)[1]["machine_tokens"]


def test_a_folder_that_only_holds_a_machines_own_names_that(shared_run: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "machine-1").mkdir(parents=True)
    (tmp_path / "run" / "machine-1" / "config.yaml").write_bytes((shared_run / "config.yaml").read_bytes())
    for read in (collect, lambda run: watch(WatchOptions(once=True), run, io.StringIO())):
        with pytest.raises(UserError, match=r"run/machine-1 is one"):
            read(tmp_path / "run")
