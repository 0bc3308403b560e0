"""Dates, clock times, prices and measures in English and German, drawn at random for the generated corpus."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from nmt_async.demo_corpus import lexicon as words
from nmt_async.demo_corpus import numerals

T = TypeVar("T")
Pair = tuple[str, str]
"""English and German."""

NUMBERS = tuple((numerals.english(number), numerals.german(number, counting=False)) for number in range(1000))
"""0 to 999 as they stand before a noun."""


def some(rng: Random, items: Sequence[T]) -> T:
    """One of ``items``, all equally likely."""
    # Random.choice is exact but twice as slow, and a corpus draws some twenty times a sentence.
    return items[int(rng.random() * len(items))]


def draw_date(rng: Random, ending: str) -> Pair:
    """A day of a month; ``ending`` is *e* after *der* and *en* after *am* and *dem*."""
    english, german, days = some(rng, words.MONTHS)
    day = 1 + int(rng.random() * days)
    ordinal = numerals.english_ordinal(day), numerals.german_ordinal(day)
    return f"the {ordinal[0]} of {english}", f"{ordinal[1]}{ending} {german}"


def draw_year(rng: Random) -> Pair:
    """A year from 1900 to 2029."""
    year = rng.randint(1900, 2029)
    return numerals.english_year(year), numerals.german_year(year)


def draw_clock(rng: Random, first: int = 1, last: int = 12) -> Pair:
    """A time of day without its preposition, in the hours ``first`` to ``last``: "half past three", *halb vier*."""
    hour = rng.randint(first, last)
    kind = int(rng.random() * 4)
    if kind == 0:
        return f"{numerals.english(hour)} o'clock", f"{numerals.german(hour, counting=False)} Uhr"
    if kind == 1:
        return f"half past {numerals.english(hour)}", f"halb {numerals.german(hour % 12 + 1)}"
    minutes = some(rng, (("five", "fünf"), ("ten", "zehn"), ("quarter", "Viertel"), ("twenty", "zwanzig")))
    link = ("past", "nach") if kind == 2 else ("to", "vor")
    return f"{minutes[0]} {link[0]} {numerals.english(hour)}", f"{minutes[1]} {link[1]} {numerals.german(hour)}"


def draw_clock_of_day(rng: Random) -> Pair:
    """A time with its part of the day: "half past three in the afternoon", *halb vier nachmittags*."""
    part, german_part, first, last = some(rng, words.DAY_PARTS)
    english, german = draw_clock(rng, first, last)
    return f"{english} {part}", f"{german} {german_part}"


def draw_price(rng: Random, most: int) -> Pair:
    """A price of 2 to ``most`` (under 1,000) euros, perhaps with cents."""
    euros, cents = rng.randint(2, most), some(rng, (0, 0, 10, 20, 25, 50, 75, 95, 99))
    euros += euros % 100 == 1  # *einhundertein Euro* is said by few
    english, german = NUMBERS[euros][0] + " euros", NUMBERS[euros][1] + " Euro"
    if not cents:
        return english, german
    return f"{english} and {NUMBERS[cents][0]} cents", f"{german} und {NUMBERS[cents][1]} Cent"


def draw_measure(rng: Random, units: Sequence[Pair] = words.UNITS) -> Pair:
    """2 to 999 of a unit."""
    number = rng.randint(2, 999)
    number += number % 100 == 1
    unit = some(rng, units)
    return f"{NUMBERS[number][0]} {unit[0]}", f"{NUMBERS[number][1]} {unit[1]}"


def draw_phrase(rng: Random) -> Pair:
    """No sentence: a number, a date, a measure, an ordinal with its noun."""
    kind = int(rng.random() * 5)
    if kind == 0:
        number = rng.randint(101, 999)
        return numerals.english(number), numerals.german(number)
    if kind == 1:
        number = rng.randint(1001, 999_999)
        return numerals.english(number), numerals.german(number)
    if kind == 2:
        date, year = draw_date(rng, "e"), draw_year(rng)
        return f"{date[0]} {year[0]}", f"der {date[1]} {year[1]}"
    if kind == 3:
        return draw_measure(rng)
    number, noun = rng.randint(1, 99), some(rng, words.ORDERED)
    article, ending = words.DECLENSIONS["the", "nominative", noun.gender]
    return (
        f"the {numerals.english_ordinal(number)} {noun.english}",
        f"{article} {numerals.german_ordinal(number)}{ending} {noun.german}",
    )
