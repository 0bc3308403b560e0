"""Claims are read from a file, and a mistake in it is named with the claim."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nmt_async.errors import UserError
from nmt_async.study.claims import Choice, Claim, Minimum, read_claims

OURS = Path(__file__).parents[2] / "examples" / "reproduction" / "claims.yaml"

GOOD: dict[str, Any] = {
    "names": {"async": "post async @0.001", "best sync": ["post sync @0.0005", "post sync @0.001"]},
    "minimum": {"tokens": "3Mt", "seeds": 3},
    "claims": [
        {
            "id": "async-worse",
            "source": "paper, abstract",
            "says": "Async is worse.",
            "criteria": [
                {"quantity": "final cross-entropy", "compare": "async", "against": "best sync", "above": 0.05},
                {
                    "quantity": "final cross-entropy", "compare": "async", "against": "post sync @0.001", "at": "1Mt",
                    "beside": {"compare": "rnn async", "against": ["rnn sync", "rnn sync @2"]}, "above": -1, "below": 1,
                },
            ],
        },
        {
            "id": "soon",
            "source": "us",
            "says": "Fast enough.",
            "minimum": {"seeds": 1},
            "criteria": [{"quantity": "tokens to quality", "compare": "async", "target": 2.5, "below": 3000000}],
        },
    ],
}  # fmt: skip


def read(folder: Path, values: Any) -> tuple[Claim, ...]:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return read_claims(path)


def with_change(place: tuple[Any, ...], value: Any) -> Any:
    values = deepcopy(GOOD)
    *above, key = place
    parent: Any = values
    for step in above:
        parent = parent[step]
    if value == "gone":
        del parent[key]
    else:
        parent[key] = value
    return values


def test_names_stand_for_conditions_or_the_best_of_several(tmp_path: Path) -> None:
    first, second = read(tmp_path, GOOD)
    criterion = first.criteria[0]
    assert criterion.sides.compare == Choice("async", ("post async @0.001",))
    assert criterion.sides.against == Choice("best sync", ("post sync @0.0005", "post sync @0.001"))
    assert (criterion.above, criterion.below) == (0.05, math.inf)
    assert (first.minimum, second.minimum) == (Minimum(3_000_000, 3), Minimum(3_000_000, 1))
    assert first.criteria[1].sides.tokens == 1_000_000
    assert first.conditions == (
        "post async @0.001", "post sync @0.0005", "post sync @0.001", "rnn async", "rnn sync", "rnn sync @2",
    )  # fmt: skip
    assert second.criteria[0].target == 2.5


CRITERION = ("claims", 0, "criteria", 0)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("claims",), "gone", "'claims' is missing"),
        (("claims",), [], "claims must be a list with something in it"),
        (("extra",), 1, "'extra' means nothing here"),
        (("names",), ["sync"], "'names' is not a mapping"),
        (("names", "async"), 3, "name 'async'"),
        (("minimum", "tokens"), "3M", "counts updates"),
        (("minimum", "seeds"), 0, "not a count of runs"),
        (("claims", 1, "id"), "async-worse", "two claims are called 'async-worse'"),
        (("claims", 1, "says"), "", r"claim 2 \(soon\): says"),
        (("claims", 1), {"id": "x\n" * 2000}, r"claim 2 \(x\\nx[^)]{,90}\): 'source' is missing"),
        (("claims", 0, "verdict"), "holds", r"claim 1 \(async-worse\): 'verdict' means nothing here"),
        ((*CRITERION, "quantity"), "perplexity", r"\(async-worse\): quantity 'perplexity' is not known"),
        ((*CRITERION, "above"), "gone", "could not fail"),
        ((*CRITERION, "above"), "much", "must be a number"),
        ((*CRITERION, "above"), math.inf, "must be a number"),
        ((*CRITERION, "above"), True, "must be a number"),
        ((*CRITERION, "below"), 0.01, "no value is above 0.05 and below 0.01"),
        ((*CRITERION, "target"), 2.0, "means nothing for final cross-entropy"),
        (("claims", 1, "criteria", 0, "at"), "1Mt", "means nothing for tokens to quality"),
        (("claims", 1, "criteria", 0, "target"), "gone", "needs an 'against' or a 'target'"),
        (("claims", 0, "criteria", 1, "against"), "gone", "'beside' needs an 'against'"),
        (("claims", 0, "criteria", 1, "beside", "against"), "gone", "'against' is missing"),
        ((*CRITERION, "compare"), [], "a list with something in it"),
        ((*CRITERION, "compare"), {"a": 1}, "must be text"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_claim(
    tmp_path: Path, place: tuple[Any, ...], value: Any, said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path, with_change(place, value))
    assert "claims.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, item in below for place in places(item, (*here, key)))]


damages = st.sampled_from(["gone", None, "x", "", [], {}, [[1]], {"x": 1}, {1: 2}, True, -1.5, math.nan, 10**400])
no_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)


@no_folder
@given(st.sampled_from([place for place in places(GOOD) if place]), damages)
def test_any_damage_is_read_as_claims_or_is_a_mistake_of_the_user(
    tmp_path: Path, place: tuple[Any, ...], damage: Any
) -> None:
    try:
        claims = read(tmp_path, with_change(place, damage))
    except UserError:
        return
    assert all(claim.criteria and claim.conditions for claim in claims)


@no_folder
@given(
    st.text(max_size=60) | st.sampled_from(["claims: 2019-13-45", "a: &a [*a]", "[" * 3000, "claims: " + "9" * 5000])
)
def test_any_text_is_read_as_claims_or_is_a_mistake_of_the_user(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UserError):
        read_claims(path)


def test_the_claims_of_the_reproduction_can_be_read_and_could_fail() -> None:
    claims = read_claims(OURS)
    assert {"async-worse", "hybrid-restores", "both-hurt-most", "hybrid-sooner", "rnn-suffers-less"} <= {
        claim.id for claim in claims
    }
    for claim in claims:
        assert all(math.isfinite(one.above) or math.isfinite(one.below) for one in claim.criteria)
        assert claim.minimum.seeds >= 2
