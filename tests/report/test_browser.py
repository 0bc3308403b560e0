"""The page in a real browser: offline, light and dark, wide and on a phone."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, Browser
from synthetic import machines, result, study

from nmt_async.report.beside_tables import beside_table, times_to_quality
from nmt_async.report.content import Answer, Words
from nmt_async.report.looks import shown_conditions
from nmt_async.report.page import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

LONG = "a-condition-with-one-very-long-name-that-nothing-can-break"
BEYOND = """[...document.querySelectorAll('body *')].filter(element => !element.closest('.scroll')
    && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
    .map(element => element.tagName + ' ' + element.textContent.slice(0, 40))"""
SIZES = """[...document.querySelectorAll('svg.plot')].map(plot => [plot.closest('figure').id,
    plot.getBoundingClientRect().width, plot.getBoundingClientRect().height])"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results = [
        *study(),
        result(LONG, machines=machines(4)),
        result("async", 3, points=4, diverged="the parameters are not finite."),
    ]
    conditions = shown_conditions(results)
    further = beside_table(conditions, conditions[0])
    words = Words(
        title="Does it hold?", question="With equal tokens? " + "verylongword" * 8,
        verdicts=(Answer("Hybrid matches sync", "By 0.04 nats.", "undecided at this budget", further, "a paper"),),
        times=times_to_quality(conditions, conditions[0]), tables=(further,),
        notes=("hybrid:8 is not finished.",), command="nmt-async compare data " + "--modes sync,async " * 9,
    )  # fmt: skip
    return write_report(tmp_path_factory.mktemp("report"), words, results)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The page of one run that many machines share."""
    words = Words(title="A run", question="How did it go?")
    return write_report(tmp_path_factory.mktemp("shared"), words, [result(machines=machines(12))])


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.mark.parametrize("width", [1280, 768, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["report", "shared"])
def test_the_page_shows_all_plots_without_complaint_and_fits_its_window(browser, request, which, scheme, width):
    report, before = request.getfixturevalue(which), len(browser.asked_for)
    browser.open(report, width, scheme)
    browser.ask("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask(BEYOND) == []
    sizes = browser.ask(SIZES)
    files = {f"plot-{path.stem}" for path in (report.parent / "plots").glob("*.svg")}
    assert {name for name, _, _ in sizes} == files
    assert all(across > 250 and down > 50 for _, across, down in sizes)
    assert browser.complaints == []
    assert set(browser.asked_for[before:]) <= {report.as_uri(), "about:blank"}


def test_ink_follows_the_readers_scheme(browser, report):
    shades = {}
    for scheme in ("light", "dark"):
        browser.open(report, 1280, scheme)
        shades[scheme] = [
            browser.ask(f"getComputedStyle(document.querySelector('{what}')).{how}")
            for what, how in (("body", "backgroundColor"), ("body", "color"), ("svg.plot text", "fill"))
        ]
    bright = {
        scheme: [sum(map(float, shade.strip("rgb()").split(","))) > 382 for shade in each]
        for scheme, each in shades.items()
    }
    assert bright["light"][:2] == [True, False]
    assert bright["dark"] == [False, True, True]


def test_a_link_to_a_run_opens_its_details(browser, report):
    browser.open(report, 1280, "light", anchor="#run-hybrid-4.seed2")
    assert browser.ask("document.getElementById('run-hybrid-4.seed2').closest('details').open") is True


def test_a_plots_file_is_shown_by_itself(browser, report):
    for path in sorted((report.parent / "plots").glob("*.svg"))[:3]:
        browser.open(path, 800, "dark")
        assert browser.ask("document.documentElement.getBoundingClientRect().width") > 300
    assert browser.complaints == []


def test_nothing_is_left_half_written(report):
    names = {path.name for path in report.parent.rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "results.csv"} <= names
    assert not any(name.endswith(".partial") for name in names)
    assert {name.removesuffix(".svg") for name in names if name.endswith(".svg")} == {
        name.removesuffix(".png") for name in names if name.endswith(".png")
    }
