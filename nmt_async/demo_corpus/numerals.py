"""Numbers in words, English (British: "three hundred and two") and German ("dreihundertzwei")."""

from __future__ import annotations

_ENGLISH = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_ENGLISH_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_GERMAN = (
    "null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun",
    "zehn", "elf", "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
)  # fmt: skip
_GERMAN_TENS = ("zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")
_ENGLISH_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_GERMAN_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}


def english(number: int) -> str:
    """``number`` (0 to 999,999) in words."""
    if number < 20:
        return _ENGLISH[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _ENGLISH_TENS[tens - 2] + (f"-{_ENGLISH[ones]}" if ones else "")
    unit, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, unit)
    link = " " if rest >= 100 else " and "
    return f"{english(many)} {name}" + (link + english(rest) if rest else "")


def german(number: int, *, counting: bool = True) -> str:
    """``number`` (0 to 999,999) as one word; ``counting`` ends in *eins*, as a number that counts no noun does."""
    if number < 20:
        return "eins" if number == 1 and counting else _GERMAN[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_GERMAN[ones]}und" if ones else "") + _GERMAN_TENS[tens - 2]
    unit, name = (100, "hundert") if number < 1000 else (1000, "tausend")
    many, rest = divmod(number, unit)
    return german(many, counting=False) + name + (german(rest, counting=counting) if rest else "")


def english_ordinal(number: int) -> str:
    """``number`` (1 to 99) as in "the twenty-third"."""
    head, dash, last = english(number).rpartition("-")
    if last.endswith("y"):
        return f"{last[:-1]}ieth"
    return head + dash + _ENGLISH_ORDINALS.get(last, last + "th")


def german_ordinal(number: int) -> str:
    """``number`` (1 to 99) as the stem to which an adjective's ending is added: "dreiundzwanzigst"."""
    if number in _GERMAN_ORDINALS:
        return _GERMAN_ORDINALS[number]
    return german(number) + ("t" if number < 20 else "st")


def english_year(year: int) -> str:
    """``year`` (1100 to 2099) as it is said: "nineteen eighty-four", "two thousand and five"."""
    century, rest = divmod(year, 100)
    if century == 20:
        return english(year)
    if rest < 10:
        return f"{english(century)} hundred" + (f" and {english(rest)}" if rest else "")
    return f"{english(century)} {english(rest)}"


def german_year(year: int) -> str:
    """``year`` (1100 to 2099) as it is said: "neunzehnhundertvierundachtzig", "zweitausendfünf"."""
    century, rest = divmod(year, 100)
    if century == 20:
        return german(year)
    return german(century) + "hundert" + (german(rest) if rest else "")
