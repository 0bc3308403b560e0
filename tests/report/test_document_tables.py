"""Tables of two ways at once say what the runs in their corners came to."""

from __future__ import annotations

from dataclasses import replace

from made_results import condition, learning, made

from nmt_async.report.document_tables import isolation_table, rates_table
from nmt_async.study.conditions import Condition

END = learning(4)


def corner(name: str, above: float, batch: float, age: int) -> Condition:
    """Ends ``above`` the learning curve, with updates of this batch and staleness."""
    made_up = condition(name, above, staleness={age: 10})
    return replace(made_up, results=tuple(replace(each, effective_batch=batch) for each in made_up.results))


CORNERS = [
    corner("sync", 0.0, 2000.0, 0),
    corner("small-fresh", 0.1, 500.0, 0),
    corner("async", 0.7, 500.0, 3),
    corner("local:4", 0.2, 2000.0, 3),
]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_each_corner_stands_where_its_batch_and_staleness_put_it() -> None:
    head, _, large, small, costs = map(cells, isolation_table(CORNERS, {}).splitlines())
    assert head == ["target tokens in an update", "staleness 0.00", "staleness 3.00", "staleness costs"]
    assert (large[0], small[0]) == ("2,000", "500")
    assert large[1].startswith(f"[{END:.3f} (95 %") and large[1].endswith("](#run-sync)")  # noqa: PT018
    assert large[2].endswith("](#run-local-4)")
    assert small[1].endswith("](#run-small-fresh)")
    assert small[2].startswith(f"[{END + 0.7:.3f}")
    assert (large[3], small[3]) == ("+0.200", "+0.600")
    assert costs == ["the small batch costs", "+0.100", "+0.500", "beyond their sum: +0.400"]


def test_without_all_corners_there_is_no_table() -> None:
    assert "[sync](#run-sync), [small-fresh](#run-small-fresh)" in isolation_table(CORNERS[:2], {})
    assert "needs runs of its four corners" in isolation_table([*CORNERS, corner("other", 0.0, 2000.0, 0)], {})


def at_rate(name: str, rate: float, above: float, **options: object) -> Condition:
    each = made(f"{name} @{rate:g}", curve=lambda million: learning(million) + above, **options)  # type: ignore[arg-type]
    return Condition(
        each.setting.condition,
        (replace(each, setting=replace(each.setting, options={"learn-rate": rate, "sync-mode": name})),),
    )


def test_learning_rates_stand_in_order_and_the_best_of_each_way_in_bold() -> None:
    shown = [
        at_rate("sync", 0.002, 0.0), at_rate("sync", 0.0005, 0.3), at_rate("async", 0.0005, 0.1),
        at_rate("async", 0.002, 0.0, diverged="not finite"), at_rate("local:4", 0.002, 0.2),
    ]  # fmt: skip
    head, _, low, high = map(cells, rates_table(shown, {}).splitlines())
    assert head == ["learning rate", "sync", "async", "local:4 @0.002"]
    assert (low[0], high[0]) == ("0.0005", "0.002")
    assert [cell.startswith("**") for cell in (low[1], high[1], low[2], high[2])] == [False, True, True, False]
    assert "diverged" in high[2]
    assert low[3] == "–"
    assert not high[3].startswith("**")
