from __future__ import annotations

import json
import math

import pytest

from nmt_async.translate.formats import AlignmentForm, Printed, json_line
from nmt_async.translate.translator import NOTHING, Candidate, Translation

BEST = Candidate(
    "ein\tHund", -1.5, -0.75, ("▁ein", "▁Hund"), (-0.5, -0.75, -0.25), ((0.9, 0.1), (0.2, 0.8), (0.0, 1.0))
)
SECOND = Candidate("Hund", -3.0, -1.5, ("▁Hund",), (-2.0, -1.0), ((0.4, 0.6), (0.5, 0.5)))
BOTH = Translation((BEST, SECOND))
SOFT, HARD = AlignmentForm.parse("soft"), AlignmentForm.parse("hard")


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (Printed(), ["ein\tHund"]),
        (Printed(words=True), ["ein\tHund ||| WordScores= -0.50000 -0.75000 -0.25000"]),
        (Printed(alignment=HARD), ["ein\tHund ||| 0-0 1-1 1-2"]),
        (
            Printed(n_best=True),
            ["6 ||| ein\tHund ||| F0= -1.500000 ||| -0.750000", "6 ||| Hund ||| F0= -3.000000 ||| -1.500000"],
        ),
        (
            Printed(n_best=True, words=True, alignment=SOFT),
            [
                "6 ||| ein\tHund ||| 0.9,0.1 0.2,0.8 0,1 ||| WordScores= -0.50000 -0.75000 -0.25000 "
                "||| F0= -1.500000 ||| -0.750000",
                "6 ||| Hund ||| 0.4,0.6 0.5,0.5 ||| WordScores= -2.00000 -1.00000 ||| F0= -3.000000 ||| -1.500000",
            ],
        ),
        (Printed("tsv"), ["7\t1\tein Hund\t-1.500000\t-0.750000"]),
        (
            Printed("tsv", n_best=True, words=True, alignment=HARD),
            [
                "7\t1\tein Hund\t-1.500000\t-0.750000\t▁ein ▁Hund\t-0.500000 -0.750000 -0.250000\t0-0 1-1 1-2",
                "7\t2\tHund\t-3.000000\t-1.500000\t▁Hund\t-2.000000 -1.000000\t0-1 1-0",
            ],
        ),
    ],
)
def test_a_translation_is_printed_in_marians_form_or_in_columns(printed, lines):
    assert printed.lines(7, BOTH) == lines


def test_an_object_holds_what_was_asked_for():
    assert json.loads(Printed("jsonl").lines(7, BOTH)[0]) == {
        "line": 7, "translation": "ein\tHund", "score": -1.5, "normalised": -0.75,
    }  # fmt: skip
    (line,) = Printed("jsonl", n_best=True, words=True, alignment=SOFT).lines(7, BOTH)
    values = json.loads(line)
    best, second = values["n_best"]
    assert values == {"line": 7, **best, "n_best": [best, second]}
    assert best["tokens"] == list(BEST.tokens)
    assert best["token_scores"] == list(BEST.token_scores)
    assert best["alignment"] == [list(row) for row in BEST.alignment or ()]
    hard = json.loads(Printed("jsonl", alignment=HARD).lines(7, BOTH)[0])
    assert hard["alignment"] == [[0, 0], [1, 1], [1, 2]]


def test_a_line_without_words_has_as_many_fields_as_any():
    printed = Printed(words=True, alignment=HARD)
    assert printed.lines(1, NOTHING) == [" |||  ||| WordScores="]
    for form in (Printed("tsv", words=True, alignment=SOFT), Printed(n_best=True, words=True)):
        separator = "\t" if form.form == "tsv" else " ||| "
        assert len(form.lines(1, NOTHING)[0].split(separator)) == len(form.lines(1, BOTH)[0].split(separator))
    assert json.loads(Printed("jsonl", words=True, alignment=SOFT).lines(1, NOTHING)[0])["alignment"] == []


def test_json_has_null_for_what_it_cannot_say():
    assert (
        json_line({"a": -math.inf, "b": [math.nan, 1.0], "c": "ü\u2028"})
        == '{"a": null, "b": [null, 1.0], "c": "ü\u2028"}'
    )
