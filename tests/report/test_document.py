"""A document's tables and verdicts are made from results; what is written around them stays."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_results import condition, learning, made

from nmt_async.errors import UserError
from nmt_async.report.document import TABLES, is_current, regenerated
from nmt_async.study.claims import Choice, Claim, Criterion, Sides

RESULTS = [
    *condition("post sync @0.001", 0.0, 0.02).results,
    *condition("post async @0.001", 0.3, 0.31, staleness={3: 10}).results,
    *condition("post hybrid:4 @0.001", 0.05, 0.06, tokens_per_second=1500).results,
    *condition("post hybrid:4 @0.002", 0.05).results,
]
AGAINST = {f"post {way} @0.001": "post sync @0.001" for way in ("async", "hybrid:4")}
CLAIMS = [
    Claim(
        "async-worse", "paper, abstract", "Async is worse.",
        (
            Criterion(
                "final cross-entropy",
                Sides(Choice("a", ("post async @0.001",)), Choice("s", ("post sync @0.001",)), None),
                None, 0.05, float("inf"), None,
            ),
        ),
    )
]  # fmt: skip


def document(*regions: str) -> str:
    return "# Study\n\nWritten by hand.\n\n" + "".join(
        f"<!-- generated: {region} -->\n<!-- end -->\n\nMore by hand about {region}.\n\n" for region in regions
    )


def cells(text: str, row: str) -> list[str]:
    """The cells of the table's row that begins with the condition."""
    line = next(line for line in text.splitlines() if line.startswith(f"| [{row}]"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_document_made_anew_is_current_and_stays_the_same() -> None:
    everything = document(*TABLES, "verdicts")
    assert not is_current(everything, RESULTS, CLAIMS)
    made_once = regenerated(everything, RESULTS, CLAIMS)
    assert is_current(made_once, RESULTS, CLAIMS)
    assert regenerated(made_once, RESULTS, CLAIMS) == made_once


def test_what_is_written_by_hand_stays() -> None:
    text = regenerated(document("final", "verdicts"), RESULTS, CLAIMS)
    assert text.startswith("# Study\n\nWritten by hand.\n\n")
    assert "More by hand about final.\n" in text
    assert text.endswith("More by hand about verdicts.\n\n")


def test_the_order_of_results_within_conditions_changes_nothing() -> None:
    text = document(*TABLES, "verdicts")
    shuffled = [*RESULTS[1::-1], *RESULTS[2:]]
    assert regenerated(text, shuffled, CLAIMS) == regenerated(text, RESULTS, CLAIMS)


def test_a_result_that_changed_makes_the_document_old() -> None:
    text = regenerated(document("final"), RESULTS, CLAIMS, against=AGAINST)
    assert is_current(text, RESULTS, CLAIMS, against=AGAINST)
    changed = [*RESULTS[:-1], made("post hybrid:4 @0.002", curve=lambda _: 3.0)]
    assert not is_current(text, changed, CLAIMS, against=AGAINST)
    assert not is_current(text.replace("+0.2", "+0.1"), RESULTS, CLAIMS, against=AGAINST)


def test_final_figures_stand_beside_those_of_the_baseline() -> None:
    text = regenerated(document("final"), RESULTS, CLAIMS, against=AGAINST)
    row = cells(text, "post async @0.001")
    assert row[1:3] == ["1, 2", "4.00 M"]
    assert row[3].startswith("2.412 (95 % ")
    assert row[4].startswith("+0.295 (95 % ")
    assert cells(text, "post sync @0.001")[4] == "–"
    assert cells(text, "post hybrid:4 @0.002")[4] == "–"


def test_how_gradients_became_updates_is_shown() -> None:
    text = regenerated(document("updating"), RESULTS, CLAIMS, against=AGAINST)
    assert cells(text, "post async @0.001")[1:] == ["8", "2,000", "3.00", "15.0 %", "1,000", "1.00"]
    assert cells(text, "post hybrid:4 @0.001")[6] == "1.50"


def test_what_a_quality_costs_stands_beside_the_baseline() -> None:
    twice = made("hybrid:4", curve=lambda million: learning(million / 2), tokens_per_second=4000)
    text = regenerated(document("quality", "targets"), [made("sync"), twice], CLAIMS, against={"hybrid:4": "sync"})
    row = cells(text, "hybrid:4")
    assert row[1] == "[sync](#run-sync)"
    assert row[2] == f"{learning(2):.3f}"
    assert row[3] == "2.00"
    assert row[5] == "0.50"
    hardest = next(line for line in text.splitlines() if "| 2.15 |" in line)
    assert [cell.strip() for cell in hardest.split("|")][4] == "not reached"
    assert "No condition here has a baseline." in regenerated(document("quality"), [made("sync"), twice], CLAIMS)


def test_the_course_is_read_at_even_steps() -> None:
    text = regenerated(document("course"), [made("sync", curve=lambda _: 3.0)], CLAIMS)
    assert "| million tokens | 0.80 | 1.20 | 1.60 |" in text
    assert cells(text, "sync")[1:] == ["3.000"] * 9


def test_patterns_choose_conditions_and_what_was_not_run_is_said() -> None:
    text = regenerated(document("final | post hybrid* | rnn *"), RESULTS, CLAIMS)
    assert "post hybrid:4 @0.002" in text
    assert "post async" not in text
    assert "Not run: `rnn *`." in text
    assert "Nothing was run yet." in regenerated(document("final"), [], CLAIMS)


def test_every_figure_leads_to_the_command_that_made_it() -> None:
    text = regenerated(document(*TABLES), RESULTS, CLAIMS)
    targets = set(re.findall(r'<a id="([^"]+)">', text))
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= targets
    assert "nmt-async train data --sync-mode sync --seed 1" in text


def test_verdicts_say_what_they_rest_on() -> None:
    text = regenerated(document("verdicts"), RESULTS, CLAIMS)
    assert "1 holds, 0 fails, 0 undecided at this budget." in text
    assert "**async-worse** (paper, abstract): Async is worse. **holds**." in text
    assert "Final cross-entropy of `post async @0.001` against `post sync @0.001`: +0.295" in text
    assert "0 holds" in regenerated(document("verdicts"), [], CLAIMS)


def test_a_table_with_diverged_runs_says_so() -> None:
    diverged = [*RESULTS, made("post async @0.002", diverged="nan"), made("post sync @0.002")]
    text = regenerated(document(*TABLES, "verdicts"), diverged, CLAIMS)
    assert "Of the runs, 1 diverged." in text
    assert "diverged" in cells(text, "post async @0.002")[3]
    only = [made("post async @0.002", tokens=(), diverged="nan")]
    assert "All runs diverged." in regenerated(document(*TABLES), only, CLAIMS)


def test_a_run_without_validations_is_not_in_a_table() -> None:
    text = regenerated(document("final | post local:4"), [*RESULTS, made("post local:4", tokens=())], CLAIMS)
    assert "Not run: `post local:4`." in text


def test_bleu_is_shown_where_all_runs_have_it() -> None:
    scored = [replace(made(name, bleu=True)) for name in ("sync", "async")]
    assert "| BLEU |" in regenerated(document("final"), scored, CLAIMS)
    assert "| BLEU |" not in regenerated(document("final"), [*scored, made("hybrid:4")], CLAIMS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- generated: final -->\n", "no '<!-- end -->' behind"),
        ("a\nb\n<!-- end -->\n", "Line 3"),
        ("<!-- generated: final -->\n<!-- generated: final -->\n<!-- end -->", "Line 2"),
        ("<!-- generated: figures -->\n<!-- end -->", "asks for 'figures'"),
    ],
)
def test_markers_that_do_not_fit_are_a_mistake(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        regenerated(text, RESULTS, CLAIMS)


def test_a_marker_with_something_behind_it_is_not_passed_over() -> None:
    with pytest.raises(UserError, match="end the line there"):
        regenerated("<!-- generated: final --> \nold\n<!-- end -->\n", RESULTS, CLAIMS)
