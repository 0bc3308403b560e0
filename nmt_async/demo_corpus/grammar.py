"""The sentences of the generated corpus: who does what when, and what things are like and cost.

Each function draws one sentence and its German translation. German word order is written out here: the finite verb in
second place also after a fronted time, first in a question, and participle, infinitive or particle at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from nmt_async.demo_corpus import lexicon as words
from nmt_async.demo_corpus.amounts import (
    NUMBERS,
    Pair,
    draw_clock,
    draw_clock_of_day,
    draw_date,
    draw_measure,
    draw_phrase,
    draw_price,
    draw_year,
    some,
)


def sentence(english: str, german: str, mark: str = ".") -> Pair:
    return english[0].upper() + english[1:] + mark, german[0].upper() + german[1:] + mark


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _noun_phrase(
    rng: Random, noun: words.Noun, case: words.Case, determiner: str, plural: bool, negated: bool = False
) -> Pair:
    """A noun with its determiner and perhaps an adjective; ``negated`` turns *ein* and no article into *kein*."""
    gender = "p" if plural else noun.gender
    key = "no" if negated and determiner in ("a", "") else determiner
    article, ending = words.DECLENSIONS[key, case, gender]
    adjective, german_adjective = some(rng, words.ADJECTIVES) if rng.random() < 0.45 else ("", "")
    if german_adjective:
        german_adjective += ending
    english_noun = noun.english_plural if plural else noun.english
    if plural:
        determiner = {"a": "", "this": "these"}.get(determiner, determiner)
    elif determiner == "a" and (adjective or english_noun)[0] in "aeiou":
        determiner = "an"
    return (
        _joined(determiner, adjective, english_noun),
        _joined(article, german_adjective, noun.german_plural if plural else noun.german),
    )


def _object(rng: Random, nouns: Sequence[words.Noun], negated: bool) -> tuple[Pair, bool]:
    """An accusative object, and whether it carries the negation itself (as *kein*)."""
    noun = some(rng, nouns)
    if nouns is words.DRINKS:
        bare = rng.random() < 0.5
        article = words.DECLENSIONS["no" if negated and bare else "" if bare else "the", "accusative", noun.gender][0]
        return (("" if bare else "the ") + noun.english, _joined(article, noun.german)), bare
    plural = rng.random() < 0.35
    if plural and not negated and rng.random() < 0.3:
        number = NUMBERS[rng.randint(2, 12)]
        english, german = _noun_phrase(rng, noun, "accusative", "", plural)
        return (f"{number[0]} {english}", f"{number[1]} {german}"), False
    determiner = some(rng, ("the", "the", "a", "a", "this", "my", "his", "her"))
    return _noun_phrase(rng, noun, "accusative", determiner, plural, negated), determiner == "a"


def _time(rng: Random, tense: str) -> Pair:
    """When something happens, in words that fit the tense: "present", "past" or "future"."""
    kind = rng.random()
    if kind < 0.5:
        times = {"past": words.PAST_TIMES, "present": words.PRESENT_TIMES, "future": words.FUTURE_TIMES}
        return some(rng, times[tense])
    day = some(rng, words.WEEKDAYS)
    if kind < 0.7:
        return f"on {day[0]}", f"am {day[1]}"
    if kind < 0.8:
        clock = draw_clock(rng)
        return f"on {day[0]} at {clock[0]}", f"am {day[1]} um {clock[1]}"
    if kind < 0.9:
        clock = draw_clock(rng)
        return f"at {clock[0]}", f"um {clock[1]}"
    english, german = draw_date(rng, "en")
    return f"on {english}", f"am {german}"


def _verb_group(rng: Random, verb: words.Verb, subject: words.Subject) -> tuple[str, str, str, str, str, str]:
    """One tense or modal of a verb.

    Returns:
        the tense for its time expressions, the English affirmative, auxiliary and base form,
        the German finite verb, and what stands at the end of the German clause.
    """
    third = subject.person == 2
    do = "does" if third else "do"
    kind = rng.random()
    if kind < 0.4:
        finite = verb.present(subject.person)
        if verb.particle and subject.person == 3:
            finite = finite.removeprefix(verb.particle)
        return "present", verb.english_third if third else verb.english, do, verb.english, finite, verb.particle
    if kind < 0.65:
        finite = ("habe", "hast", "hat", "haben")[subject.person]
        return "past", verb.english_past, "did", verb.english, finite, verb.participle
    if kind < 0.8:
        finite = ("werde", "wirst", "wird", "werden")[subject.person]
        return "future", f"will {verb.english}", "will", verb.english, finite, verb.infinitive
    modal = some(rng, tuple(words.MODALS))
    finite = words.MODALS[modal][subject.person]
    if modal == "want to":
        wish = f"want to {verb.english}"
        return "present", f"wants to {verb.english}" if third else wish, do, wish, finite, verb.infinitive
    return "future", f"{modal} {verb.english}", modal, verb.english, finite, verb.infinitive


_ACTIONS = (
    *((words.SEE_OR_BUY, nouns) for nouns in (words.THINGS, words.THINGS, words.ANIMATE)),
    (words.EAT, words.FOOD),
    (words.DRINK, words.DRINKS),
    (words.GIVE, words.THINGS),
)


def _action(rng: Random) -> Pair:
    """Somebody does something: a statement, perhaps negated or with its time in front, or a question."""
    verbs, nouns = some(rng, _ACTIONS)
    subject = some(rng, words.SUBJECTS)
    verb = some(rng, verbs)
    tense, affirmative, auxiliary, base, finite, end = _verb_group(rng, verb, subject)
    form = rng.random()
    negated = form < 0.2
    (english, german), kein = _object(rng, nouns, negated)
    if verbs is words.GIVE:
        recipient = some(rng, [pair for pair in words.RECIPIENTS if pair[0] != subject.english])
        english, german = f"{recipient[0]} {english}", f"{recipient[1]} {german}"
    if negated:
        affirmative = (auxiliary + ("not " if auxiliary == "can" else " not ")) + base
        german += "" if kein else " nicht"
    elif verbs is words.SEE_OR_BUY and not verb.particle and rng.random() < 0.15:
        place = some(rng, words.PLACES)
        english, german = f"{english} {place[0]}", f"{german} {place[1]}"
    if 0.2 <= form < 0.4:
        time = _time(rng, tense)
        return sentence(
            f"{time[0]} {subject.english} {affirmative} {english}",
            _joined(time[1], finite, subject.german, german, end),
        )
    time = _time(rng, tense) if rng.random() < 0.4 else ("", "")
    if form < 0.8:
        return sentence(
            _joined(subject.english, affirmative, english, time[0]),
            _joined(subject.german, finite, time[1], german, end),
        )
    question = ("", "") if form < 0.9 else some(rng, (("where", "wo"), ("why", "warum"), ("when", "wann")))
    if question[0]:
        time = "", ""
    return sentence(
        _joined(question[0], auxiliary, subject.english, base, english, time[0]),
        _joined(question[1], finite, subject.german, time[1], german, end),
        "?",
    )


def _quality(rng: Random) -> Pair:
    """What something is like."""
    plural = rng.random() < 0.3
    determiner = some(rng, ("the", "this", "my", "his", "her"))
    thing = _noun_phrase(rng, some(rng, words.THINGS + words.ANIMATE), "nominative", determiner, plural)
    verb = ("are", "sind") if plural else ("is", "ist")
    degree = some(rng, (("", ""), ("very", "sehr"), ("not", "nicht")))
    adjective = some(rng, [pair for pair in words.ADJECTIVES if pair[0] not in thing[0]])
    return sentence(
        _joined(thing[0], verb[0], degree[0], adjective[0]), _joined(thing[1], verb[1], degree[1], adjective[1])
    )


def _cost(rng: Random) -> Pair:
    plural = rng.random() < 0.3
    noun = some(rng, words.THINGS + words.FOOD)
    thing = _noun_phrase(rng, noun, "nominative", some(rng, ("the", "this")), plural)
    price = draw_price(rng, most=19 if noun in words.FOOD else 199)
    verb = ("cost", "kosten") if plural else ("costs", "kostet")
    return sentence(f"{thing[0]} {verb[0]} {price[0]}", f"{thing[1]} {verb[1]} {price[1]}")


def _age_or_birth(rng: Random) -> Pair:
    subject = some(rng, words.SUBJECTS)
    if rng.random() < 0.5:
        english, german = NUMBERS[rng.randint(2, 99)]
        be = ("am", "are", "is", "are")[subject.person], ("bin", "bist", "ist", "sind")[subject.person]
        return sentence(
            f"{subject.english} {be[0]} {english} years old", f"{subject.german} {be[1]} {german} Jahre alt"
        )
    date, year = draw_date(rng, "en"), draw_year(rng)
    be = ("was", "were", "was", "were")[subject.person], ("wurde", "wurdest", "wurde", "wurden")[subject.person]
    return sentence(
        f"{subject.english} {be[0]} born on {date[0]} {year[0]}",
        f"{subject.german} {be[1]} am {date[1]} {year[1]} geboren",
    )


def _timetable(rng: Random) -> Pair:
    if rng.random() < 0.5:
        who, verb = some(rng, words.EVENTS), (*some(rng, words.EVENT_VERBS), "")
    else:
        who, verb = some(rng, words.VEHICLES), some(rng, words.VEHICLE_VERBS)
    day, clock = some(rng, words.WEEKDAYS), draw_clock_of_day(rng)
    if rng.random() < 0.4:
        return sentence(
            f"on {day[0]} {who[0]} {verb[0]} at {clock[0]}",
            _joined(f"am {day[1]} {verb[1]} {who[1]} um {clock[1]}", verb[2]),
        )
    return sentence(
        f"{who[0]} {verb[0]} on {day[0]} at {clock[0]}",
        _joined(f"{who[1]} {verb[1]} am {day[1]} um {clock[1]}", verb[2]),
    )


def _today_or_now(rng: Random) -> Pair:
    if rng.random() < 0.4:
        english, german = draw_clock_of_day(rng)
        return sentence(f"it is {english}", f"es ist {german}")
    day, date = some(rng, words.WEEKDAYS), draw_date(rng, "e")
    return sentence(f"today is {day[0]}, {date[0]}", f"heute ist {day[1]}, der {date[1]}")


def _distance(rng: Random) -> Pair:
    english, german = draw_measure(rng, words.UNITS[1:2])
    city = some(rng, words.CITIES)
    return sentence(f"it is {english} to {city[0]}", f"es sind {german} bis {city[1]}")


KINDS: tuple[Callable[[Random], Pair], ...] = (
    *[_action] * 9, *[draw_phrase] * 3, *[_quality] * 2, *[_cost] * 2, *[_age_or_birth] * 2, *[_timetable] * 2,
    _today_or_now, _distance,
)  # fmt: skip
