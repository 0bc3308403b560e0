"""The page's words and figures: those of the results, all of them, and nothing that could harm."""

from __future__ import annotations

import csv
import io
import math
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import Page
from synthetic import machines, result, study

from nmt_async.errors import UserError
from nmt_async.formatting import duration
from nmt_async.report.content import Answer, Cell, Column, Table, Words
from nmt_async.report.looks import shown_conditions
from nmt_async.report.page import html_page, markdown_page
from nmt_async.report.plots import all_plots
from nmt_async.report.results_csv import COLUMNS, csv_text
from nmt_async.report.tables import over_seeds
from nmt_async.study.result import Point

WORDS = Words(title="A study", question="Does it hold?")
FINITE = st.floats(0.01, 9999, allow_nan=False)
POINTS = st.lists(st.builds(Point, update=st.integers(0, 10**6), tokens=st.integers(0, 10**10), seconds=FINITE,
                            epochs=FINITE, cross_entropy=FINITE, bleu=st.none() | FINITE, chrf=st.none() | FINITE),
                  max_size=4).map(tuple)  # fmt: skip


def page_of(*results, words=WORDS):
    return Page(html_page(words, shown_conditions(results), ()))


@given(POINTS, FINITE, FINITE)
def test_figures_on_the_page_and_in_the_table_are_those_of_the_result(points, rate, batch):
    made = result(points=1, tokens_per_second=rate, effective_batch=batch)
    made = replace(made, points=points)
    page = page_of(made, result("async"))
    row = dict(zip(page.tables["Each run at its end"][0], page.tables["Each run at its end"][1], strict=True))
    assert float(row["tokens/s"].replace(",", "")) == pytest.approx(rate, abs=0.5)
    assert float(row["effective batch"].replace(",", "")) == pytest.approx(batch, abs=0.5)
    if points:
        assert float(row["cross-entropy"].replace(",", "")) == pytest.approx(points[-1].cross_entropy, abs=5e-4)
    rows = list(csv.DictReader(io.StringIO(csv_text([made]))))
    assert [float(line["cross_entropy"]) for line in rows] == [point.cross_entropy for point in points]
    assert [line["bleu"] for line in rows] == ["" if point.bleu is None else str(point.bleu) for point in points]
    assert [int(line["tokens"]) for line in rows] == [point.tokens for point in points]


def test_every_validation_of_every_run_is_on_the_page_and_in_the_table():
    results = study(seeds=2)
    page = page_of(*results)
    shown = page.tables["Validations"]
    expected = [point for each in results for point in each.points]
    assert [line[0] for line in shown if line[0] != "update"] == [f"{point.update:,}" for point in expected]
    assert [line[4] for line in shown if line[0] != "update"] == [f"{point.cross_entropy:.4f}" for point in expected]
    lines = list(csv.DictReader(io.StringIO(csv_text(results))))
    assert len(lines) == len(expected)
    assert list(lines[0])[: len(COLUMNS)] == list(COLUMNS)
    assert [line["option.sync-mode"] for line in lines[:1]] == ["sync"]


def test_every_run_is_told_with_its_command_and_folder_and_every_link_leads_somewhere():
    results = study()
    page = page_of(*results)
    for each in results:
        assert each.command in page.text
        assert each.folder in page.text
        assert f"run-{each.setting.name}" in page.links
    assert set(page.links) <= set(page.anchors)
    assert len(set(page.anchors)) == len(page.anchors)


def test_conditions_are_averaged_over_seeds_with_half_their_range():
    one, other = result(seed=1), result(seed=2)
    page = page_of(one, other, result("async"))
    ((caption, table),) = [(name, rows) for name, rows in page.tables.items() if name.startswith("At the end")]
    assert "half their range" in caption
    ends = [each.points[-1].cross_entropy for each in (one, other)]
    row = dict(zip(table[0], table[1], strict=True))
    assert row["cross-entropy"] == f"{sum(ends) / 2:.3f} ± {abs(ends[0] - ends[1]) / 2:.3f}"
    assert row["seeds"] == "2"


def test_the_settings_differ_in_what_the_table_shows_and_share_what_is_below_it():
    page = page_of(*study(seeds=1))
    table = page.tables["What the settings differ in"]
    assert table[0][:3] == ["condition", "mode", "seeds"]
    assert set(table[0][3:]) == {"sync-mode", "accumulate", "local-accumulate"}
    assert [line[0] for line in table[1:]] == ["sync", "async", "hybrid:4", "local:4"]
    assert "stop-after" in page.text


@given(st.text(string.printable + "äß—„\u202e", min_size=1, max_size=30), st.text(max_size=30))
def test_no_name_or_word_can_become_markup(name, text):
    plain = page_of(result())
    words = replace(WORDS, title=name, question=text, verdicts=(Answer(text, name, name or "x"),), notes=(text,))
    page = page_of(replace(result(), command=name, diverged=text, folder=name), words=words)
    assert {tag for tag in page.tags if tag not in plain.tags} <= {"article", "h3", "span", "ul", "li"}
    assert page.tags.get("script", 0) == 0
    assert page.tags["html"] == 1
    assert not any(attribute.startswith("on") for _, attribute, _ in page.attributes)


def test_the_page_needs_no_other_file_and_no_script():
    text = html_page(WORDS, shown_conditions(study()), ())
    page = Page(text)
    assert not {"script", "img", "iframe", "object", "embed"} & page.tags.keys()
    loaded = [value for tag, name, value in page.attributes if name in ("src", "href", "srcset") and tag != "a"]
    assert loaded == ["data:,"]
    assert "@import" not in text
    assert "url(" not in text


def test_a_verdict_has_its_outcome_text_and_table():
    table = Table("Differences", (Column("condition"), Column("nats", True)), ((Cell("async"), "+0.33"),))
    verdict = Answer("Async loses", "By a third of a nat.\n\nAs the paper says.", "holds", table, "docs/claims.yaml")
    words = replace(WORDS, verdicts=(verdict,), notes=("hybrid:8 is not finished.",))
    page = page_of(*study(seeds=1), words=words)
    assert page.tables["Differences"] == [["condition", "nats"], ["async", "+0.33"]]
    for part in ("Async loses", "holds", "By a third of a nat.", "As the paper says.", "hybrid:8 is not finished."):
        assert part in page.text
    short = markdown_page(words, shown_conditions(study(seeds=1)), ())
    assert "**Async loses: holds**" in short
    assert "- hybrid:8 is not finished." in short
    assert short.count("\n| ") == 2 + 4  # header, rule, conditions


def test_what_is_typed_is_set_off_in_words():
    verdict = Answer("Sync", "Of `post sync @0.001` and `a<b`: <b>", "holds")
    conditions = shown_conditions([result()])
    text = html_page(replace(WORDS, verdicts=(verdict,)), conditions, ())
    assert "Of <code>post sync @0.001</code> and <code>a&lt;b</code>: &lt;b&gt;" in text
    short = markdown_page(replace(WORDS, verdicts=(verdict,)), conditions, ())
    assert "Of `post sync @0.001` and `a<b`: \\<b\\>" in short


def test_markdown_means_nothing_in_names():
    words = replace(WORDS, title="a|b *c* <script>")
    short = markdown_page(words, shown_conditions([result("x|y_z")]), ())
    assert short.startswith("# a\\|b \\*c\\* \\<script\\>\n")
    assert "| x\\|y\\_z |" in short


def test_a_run_that_could_not_go_on_says_so_in_its_condition_and_its_details():
    broken = result("async", 2, points=3, diverged="the parameters are not finite after update 12.")
    page = page_of(result("async", 1), broken, result("sync"))
    assert "It diverged: the parameters are not finite after update 12." in page.text
    table = next(rows for name, rows in page.tables.items() if name.startswith("At the end"))
    assert dict(zip(table[0], table[1], strict=True))["diverged"] == "1"


def test_machines_that_share_a_run_are_in_its_part_or_among_its_details():
    shared = result(machines=machines(3))
    rows = [
        ["machine 0 (node000.cluster.example.org)", "1", "15,000", "100", "16.7 %", "13.0 %", "1.50"],
        ["machine 1 (node001.cluster.example.org)", "1", "30,000", "200", "33.3 %", "13.0 %", "–"],
        ["machine 2 (node002.cluster.example.org)", "1", "45,000", "300", "50.0 %", "13.0 %", "–"],
    ]
    for results in ([shared], [shared, result("async")]):
        conditions = shown_conditions(results)
        page = Page(html_page(WORDS, conditions, all_plots(conditions)))
        assert page.tables["The machines that share the run"][1:] == rows
    assert "The machines that share the run" not in page_of(result(), result("async")).tables
    assert "machine 2" in markdown_page(WORDS, shown_conditions([shared]), ())
    assert "machine 2" not in markdown_page(WORDS, shown_conditions([shared, result("async")]), ())


def test_results_on_different_data_have_no_page_together():
    with pytest.raises(UserError, match="different data"):
        shown_conditions([result(), result("async", data="other")])


def test_a_score_that_a_seed_lacks_has_no_mean():
    assert over_seeds([1.0, None], 2) == "–"
    assert over_seeds([1.0, math.nan], 2) == "–"
    assert over_seeds([], 2) == "–"
    assert over_seeds([1.0], 2) == "1.00"


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "0.5 s"), (59.7, "1:00"), (1696, "28:16"), (11110, "3:05:10")])
def test_durations_are_read_at_a_glance(seconds, words):
    assert duration(seconds) == words
