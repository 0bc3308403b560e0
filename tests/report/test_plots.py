"""Plots: which there are, what lines are made of, and that they are told apart without colour and in the dark."""

from __future__ import annotations

import itertools
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import machines, result, study

from nmt_async.errors import UserError
from nmt_async.report.canvas import INK, MUTED, VARIABLES
from nmt_async.report.content import TimeRatio, TimeToQuality, Words
from nmt_async.report.lines import line, lines_plot, mean_line, spread
from nmt_async.report.looks import SERIES, look, short_name, shown_conditions
from nmt_async.report.page import write_report
from nmt_async.report.plots import all_plots, telling_machines, validation

WORDS = Words(title="A study", question="Does it hold?")
PAPER, NIGHT = "#ffffff", "#14171c"


@pytest.fixture(scope="module")
def plots():
    times = TimeToQuality("BLEU 30", "sync", (TimeRatio("async", None), TimeRatio("hybrid:4", 0.81, 0.74, 0.92)))
    return {plot.name: plot for plot in all_plots(shown_conditions(study()), [times])}


def test_there_is_a_plot_of_everything_that_the_results_hold(plots):
    assert set(plots) == {
        *(f"{score}-{where}" for score in ("cross-entropy", "bleu") for where in ("tokens", "updates", "time")),
        "staleness", "effective-batch", "waiting", "throughput", "time-to-quality-1", "course-loss",
        "course-learning-rate", "course-gradient-norm", "course-tokens-per-second", "course-effective-batch",
        "course-staleness-mean",
    }  # fmt: skip


def test_a_run_without_translations_and_reports_has_the_plots_that_are_left():
    points = tuple(replace(point, bleu=None) for point in result().points)
    names = {plot.name for plot in all_plots(shown_conditions([replace(result(), points=points, stretches=())]))}
    assert names == {"cross-entropy-tokens", "cross-entropy-updates", "cross-entropy-time", "staleness", "waiting"}


def test_a_run_that_broke_at_once_still_has_plots():
    points = tuple(replace(point, cross_entropy=float("nan"), bleu=None) for point in result().points)
    broken = replace(result("async"), points=points, stretches=(), diverged="not finite")
    assert {"cross-entropy-tokens", "staleness"} <= {
        plot.name for plot in all_plots(shown_conditions([replace(result(), stretches=()), broken]))
    }


def test_every_plot_is_whole_xml_with_a_title_a_description_and_names_of_its_own(plots):
    names: list[str] = []
    for plot in plots.values():
        tree = ET.fromstring(plot.svg_file)
        title, described = tree.findall("{*}title")[0], tree.findall("{*}desc")[0]
        assert title.text == plot.title
        assert described.text == plot.alternative
        assert plot.png.startswith(b"\x89PNG")
        names += re.findall(r'\bid="([^"]+)"', plot.svg)
        used = re.findall(r'(?:href="|url\()#([^")]+)', plot.svg)
        assert set(used) <= set(names)
    assert len(names) == len(set(names))


def test_a_plot_names_every_condition_and_takes_its_colours_from_the_page(plots):
    for plot in plots.values():
        if plot.name.startswith("time-to-quality"):
            continue
        for condition in ("sync", "async", "hybrid:4", "local:4"):
            assert f">{condition}<" in plot.svg
            assert condition in plot.alternative
        colours = set(re.findall(r"#[0-9a-f]{6}", plot.svg))
        assert colours <= set(VARIABLES)
        bare = re.sub(r"(fill|stroke): (#[0-9a-f]{6}); \1: var\(--[\w-]+, \2\)", "", plot.svg)
        assert not re.search(r"#[0-9a-f]{6}", bare)


def test_the_time_to_a_quality_stands_beside_its_interval(plots):
    assert "0.81 [0.74, 0.92]" in plots["time-to-quality-1"].svg
    assert "async: not reached" in plots["time-to-quality-1"].alternative


def test_a_single_run_that_machines_share_has_plots_of_each_machine():
    shown = {plot.name: plot for plot in all_plots(shown_conditions([result(machines=machines(3))]))}
    assert {name for name in shown if name.startswith("machines-")} == {
        "machines-throughput", "machines-waiting", "machines-staleness",
    }  # fmt: skip
    assert all(f"machine {rank}<" in shown["machines-throughput"].svg for rank in range(3))
    assert "machine 1 (node001.cluster.example.org): 333.3" in shown["machines-throughput"].svg, "10,000 in 30 seconds"
    assert "machine 1" not in shown["machines-staleness"].svg, "nothing is known of its"
    beside = all_plots(shown_conditions([result(machines=machines(3)), result("async")]))
    assert not [plot.name for plot in beside if plot.name.startswith("machines-")]


def test_of_many_machines_the_fastest_and_the_slowest_are_drawn():
    shown, told = telling_machines(result(machines=machines(40)))
    assert [each.label for each in shown] == [f"machine {rank}" for rank in (0, 1, 2, 37, 38, 39)]
    assert told == " Of 40 machines, those with the most and with the fewest tokens a second."
    again = result(machines=(*machines(2), replace(machines(1)[0], name="machine 0 (another host)")))
    assert [each.label for each in telling_machines(again)[0]] == [
        "machine 0 (node000.clus…", "machine 1 (node001.clus…", "machine 0 (another host)",
    ]  # fmt: skip


def test_plots_are_the_same_each_time():
    few = shown_conditions([replace(result(), points=(), stretches=())])
    one, other = ([(plot.svg, plot.png) for plot in all_plots(few)] for _ in range(2))
    assert one == other


def test_more_conditions_than_one_plot_can_show_are_parted_by_what_else_they_are():
    ways = ("sync", "async", "hybrid:4")
    names = [f"{norm} {way} @{rate}" for norm in ("pre", "post") for rate in (0.001, 0.002) for way in ways]
    against = {
        f"{norm} {way} @{rate}": f"{norm} sync @{rate}"
        for norm in ("pre", "post") for rate in (0.001, 0.002) for way in ways[1:]
    }  # fmt: skip
    shown = shown_conditions([replace(result(name, points=2), stretches=()) for name in names], against)
    assert [condition.family for condition in shown[::3]] == ["pre @0.001", "pre @0.002", "post @0.001", "post @0.002"]
    assert len({condition.look for condition in shown}) == len(ways)
    plots = all_plots(shown)
    assert list(dict.fromkeys(plot.group for plot in plots)) == [condition.family for condition in shown[::3]]
    assert len({plot.name for plot in plots}) == len(plots)
    for plot in plots:
        assert all(f">{way}<" in plot.svg for way in ways)
        assert not any(f">{name}<" in plot.svg for name in names)
    alone = [replace(result(name, points=0), stretches=()) for name in (*names, "post async @0.1")]
    assert shown_conditions(alone, against)[-1].family == "Further conditions"
    assert shown_conditions(alone, against)[-1].label == "post async @0.1"
    several = [replace(result(f"hybrid:{n}"), points=(), stretches=()) for n in range(1, 9)]
    beside_one = {f"hybrid:{n}": "hybrid:1" for n in range(2, 9)}
    for named in ({}, beside_one):
        assert {condition.family for condition in shown_conditions(several, named)} == {""}


def test_more_conditions_than_fit_beside_their_lines_are_named_below():
    conditions = tuple(f"sync@{rate}" for rate in range(12))
    short = shown_conditions([result(name, points=3, stretches=()) for name in conditions])
    drawn = lines_plot(
        short,
        validation("tokens", "cross_entropy"),
        name="one",
        title="One",
        where="tokens",
        caption="",
    )
    assert drawn is not None
    assert all(f">{name}<" in drawn.svg for name in conditions)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_stand_out_from_a_light_and_a_dark_page():
    for light, dark in SERIES:
        assert contrast(light, PAPER) >= 3
        assert contrast(dark, NIGHT) >= 3
    for colour in (INK, MUTED):
        assert contrast(colour, PAPER) >= 4.5
        assert contrast(VARIABLES[colour][1], NIGHT) >= 4.5


def test_conditions_differ_in_line_and_marker_too():
    looks = [look(number) for number in range(280)]
    assert len(set(looks)) == 280
    assert len({(each.dash, each.marker) for each in looks[:35]}) == 35
    assert len(short_name("hybrid:16+local:2@0.0005")) == 24
    assert short_name("x" * 40) == "x" * 23 + "…"


def test_points_without_a_finite_value_are_in_no_line():
    where, what = line([3, 1, 2, 4], [30.0, None, float("nan"), 40.0])
    assert (where.tolist(), what.tolist()) == ([3, 4], [30, 40])


def test_the_mean_is_taken_where_all_seeds_are():
    first, second = line([1, 2, 3], [3.0, 2.0, 1.0]), line([2, 4], [4.0, 2.0])
    where, what = mean_line([first, second])
    assert where.tolist() == [2, 3]
    assert what.tolist() == [3.0, 2.0]
    assert not len(mean_line([first, line([7], [1.0])])[0])
    assert not len(mean_line([first, line([], [])])[0])


@given(st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8))
def test_names_beside_lines_do_not_touch_and_keep_their_order(wanted):
    heights = spread(wanted, 0.078)
    ordered = sorted(heights)
    assert all(-1e-9 <= height <= 1 + 1e-9 for height in heights)
    assert all(above - below >= 0.078 - 1e-9 for below, above in itertools.pairwise(ordered))
    order = np.argsort(wanted, kind="stable")
    assert all(heights[one] <= heights[other] for one, other in itertools.pairwise(order))


def test_without_matplotlib_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'nmt-async\[report\]'"):
        write_report(tmp_path / "report", WORDS, [result()])
    assert not (tmp_path / "report").exists()


def test_no_results_make_no_report(tmp_path):
    with pytest.raises(UserError, match="no results yet"):
        write_report(tmp_path, WORDS, [])


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(UserError, match="report cannot be written"):
        write_report(tmp_path / "report", WORDS, [replace(result(points=2), stretches=())])
    assert (tmp_path / "report").read_text() == "mine"
