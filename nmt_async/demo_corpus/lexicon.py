"""The words of the generated corpus with the forms that English and German need, and how German inflects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Case = Literal["nominative", "accusative", "dative"]
Gender = Literal["m", "f", "n", "p"]
"""Masculine, feminine, neuter; ``p`` is the plural, which has no genders."""


@dataclass(frozen=True)
class Noun:
    """A noun whose German forms differ between singular and plural only (dative plurals are not used)."""

    english: str
    english_plural: str
    gender: Gender
    german: str
    german_plural: str


@dataclass(frozen=True)
class Verb:
    """A verb whose German Perfekt is formed with *haben*.

    Attributes:
        english: the base form; ``english_third`` follows he, she and it; ``english_past`` all subjects.
        first, second, third: German present after ich, du, er; the plural is the infinitive, without ``particle``.
        particle: what a separable verb sends to the end of a main clause.
    """

    english: str
    english_third: str
    english_past: str
    infinitive: str
    first: str
    second: str
    third: str
    participle: str
    particle: str = ""

    def present(self, person: int) -> str:
        """The German present by person: 0 ich, 1 du, 2 er, 3 wir and sie."""
        return (self.first, self.second, self.third, self.infinitive)[person]


@dataclass(frozen=True)
class Subject:
    """Who does something; ``person`` counts 0 ich, 1 du, 2 er, 3 wir and sie."""

    english: str
    german: str
    person: int


def _nouns(lines: str) -> tuple[Noun, ...]:
    return tuple(Noun(*line.split()) for line in lines.strip().splitlines())  # type: ignore[arg-type]


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    """``"red = rot, old = alt"`` as pairs, English first."""
    return tuple((english.strip(), german.strip()) for english, german in (pair.split("=") for pair in text.split(",")))


def _verbs(lines: str) -> tuple[Verb, ...]:
    """One verb a line: English base, third person, past | infinitive, ich, du, er, participle, particle."""
    verbs = []
    for line in lines.strip().splitlines():
        english, german = line.split("|")
        verbs.append(Verb(*(form.strip() for form in english.split(",")), *german.split()))
    return tuple(verbs)


THINGS = _nouns("""
    car cars n Auto Autos
    house houses n Haus Häuser
    book books n Buch Bücher
    picture pictures n Bild Bilder
    window windows n Fenster Fenster
    bicycle bicycles n Fahrrad Fahrräder
    shirt shirts n Hemd Hemden
    table tables m Tisch Tische
    chair chairs m Stuhl Stühle
    letter letters m Brief Briefe
    key keys m Schlüssel Schlüssel
    coat coats m Mantel Mäntel
    hat hats m Hut Hüte
    lamp lamps f Lampe Lampen
    door doors f Tür Türen
    bag bags f Tasche Taschen
    clock clocks f Uhr Uhren
    bottle bottles f Flasche Flaschen
    flower flowers f Blume Blumen
    newspaper newspapers f Zeitung Zeitungen
""")
ANIMATE = _nouns("""
    dog dogs m Hund Hunde
    cat cats f Katze Katzen
    horse horses n Pferd Pferde
    bird birds m Vogel Vögel
""")
FOOD = _nouns("""
    apple apples m Apfel Äpfel
    cake cakes m Kuchen Kuchen
    egg eggs n Ei Eier
    pear pears f Birne Birnen
    potato potatoes f Kartoffel Kartoffeln
    tomato tomatoes f Tomate Tomaten
    carrot carrots f Karotte Karotten
""")
DRINKS = _nouns("""
    milk milk f Milch Milch
    tea tea m Tee Tee
    coffee coffee m Kaffee Kaffee
    water water n Wasser Wasser
    beer beer n Bier Bier
    wine wine m Wein Wein
    juice juice m Saft Saft
""")
ORDERED = _nouns("""
    day days m Tag Tage
    week weeks f Woche Wochen
    year years n Jahr Jahre
    house houses n Haus Häuser
    letter letters m Brief Briefe
    street streets f Straße Straßen
    picture pictures n Bild Bilder
""")

ADJECTIVES = _pairs(
    "red = rot, green = grün, blue = blau, black = schwarz, white = weiß, old = alt, new = neu, big = groß,"
    "small = klein, beautiful = schön, cheap = billig, heavy = schwer, good = gut, valuable = wertvoll"
)

SEE_OR_BUY = _verbs("""
    buy, buys, bought | kaufen kaufe kaufst kauft gekauft
    sell, sells, sold | verkaufen verkaufe verkaufst verkauft verkauft
    see, sees, saw | sehen sehe siehst sieht gesehen
    find, finds, found | finden finde findest findet gefunden
    need, needs, needed | brauchen brauche brauchst braucht gebraucht
    look for, looks for, looked for | suchen suche suchst sucht gesucht
    draw, draws, drew | zeichnen zeichne zeichnest zeichnet gezeichnet
    forget, forgets, forgot | vergessen vergesse vergisst vergisst vergessen
    pick up, picks up, picked up | abholen hole holst holt abgeholt ab
    bring along, brings along, brought along | mitbringen bringe bringst bringt mitgebracht mit
""")
EAT = _verbs("""
    eat, eats, ate | essen esse isst isst gegessen
    order, orders, ordered | bestellen bestelle bestellst bestellt bestellt
    bring along, brings along, brought along | mitbringen bringe bringst bringt mitgebracht mit
""")
DRINK = _verbs("""
    drink, drinks, drank | trinken trinke trinkst trinkt getrunken
    order, orders, ordered | bestellen bestelle bestellst bestellt bestellt
""")
GIVE = _verbs("""
    give, gives, gave | geben gebe gibst gibt gegeben
    show, shows, showed | zeigen zeige zeigst zeigt gezeigt
    send, sends, sent | schicken schicke schickst schickt geschickt
""")
# The German forms by person; in English all but "want to" are auxiliaries.
MODALS = {
    "can": ("kann", "kannst", "kann", "können"),
    "should": ("sollte", "solltest", "sollte", "sollten"),
    "want to": ("will", "willst", "will", "wollen"),
}

SUBJECTS = tuple(
    Subject(english, german, person)
    for person, text in (
        (0, "I = ich"),
        (1, "you = du"),
        (2, "he = er, she = sie, Anna = Anna, Paul = Paul, Maria = Maria, the man = der Mann, the woman = die Frau,"
            "the child = das Kind, the teacher = der Lehrer, the doctor = der Arzt, my father = mein Vater,"
            "my mother = meine Mutter, my brother = mein Bruder, my sister = meine Schwester"),
        (3, "we = wir, they = sie, the children = die Kinder, the men = die Männer, the women = die Frauen,"
            "my parents = meine Eltern"),
    )
    for english, german in _pairs(text)
)  # fmt: skip
RECIPIENTS = _pairs(
    "the man = dem Mann, the woman = der Frau, the child = dem Kind, the teacher = dem Lehrer,"
    "my father = meinem Vater, my mother = meiner Mutter, my brother = meinem Bruder,"
    "my sister = meiner Schwester, the children = den Kindern"
)
EVENTS = _pairs("the film = der Film, the concert = das Konzert, the course = der Kurs, the lesson = die Stunde")
EVENT_VERBS = _pairs("begins = beginnt, ends = endet")
VEHICLES = _pairs("the train = der Zug, the bus = der Bus, the ship = das Schiff")
VEHICLE_VERBS = (("leaves", "fährt", "ab"), ("arrives", "kommt", "an"))

WEEKDAYS = _pairs(
    "Monday = Montag, Tuesday = Dienstag, Wednesday = Mittwoch, Thursday = Donnerstag, Friday = Freitag,"
    "Saturday = Samstag, Sunday = Sonntag"
)
# With the number of days a month can have.
MONTHS = tuple(
    (english, german, days)
    for (english, german), days in zip(
        _pairs(
            "January = Januar, February = Februar, March = März, April = April, May = Mai, June = Juni, July = Juli,"
            "August = August, September = September, October = Oktober, November = November, December = Dezember"
        ),
        (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31),
        strict=True,
    )
)
PAST_TIMES = _pairs("yesterday = gestern, last week = letzte Woche, last year = letztes Jahr")
PRESENT_TIMES = _pairs("today = heute, now = jetzt, every day = jeden Tag, every week = jede Woche")
FUTURE_TIMES = _pairs("tomorrow = morgen, next week = nächste Woche, next year = nächstes Jahr")
# With the first and the last hour of each.
DAY_PARTS = (
    ("in the morning", "morgens", 6, 11),
    ("in the afternoon", "nachmittags", 2, 5),
    ("in the evening", "abends", 6, 10),
)
PLACES = _pairs(
    "in the garden = im Garten, in the kitchen = in der Küche, in the city = in der Stadt,"
    "in the shop = im Geschäft, at the station = am Bahnhof, at the market = am Markt, at school = in der Schule"
)
CITIES = _pairs("Berlin = Berlin, Hamburg = Hamburg, Vienna = Wien, Munich = München, Cologne = Köln")
UNITS = _pairs(
    "metres = Meter, kilometres = Kilometer, litres = Liter, grams = Gramm, kilograms = Kilogramm,"
    "minutes = Minuten, hours = Stunden, days = Tage, weeks = Wochen, years = Jahre"
)

# Endings by case for the genders m f n p; "-" is none.
_STRONG = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en"}
_WEAK = {"nominative": "e e e en", "accusative": "en e e en", "dative": "en en en en"}
_MIXED = {"nominative": "er e es en", "accusative": "en e es en", "dative": "en en en en"}
_THE = {"nominative": "der die das die", "accusative": "den die das die", "dative": "dem der dem den"}
_EIN = {"nominative": "- e - e", "accusative": "en e - e", "dative": "em er em en"}


def _declensions() -> dict[tuple[str, Case, Gender], tuple[str, str]]:
    table: dict[tuple[str, Case, Gender], tuple[str, str]] = {}
    genders: tuple[Gender, ...] = ("m", "f", "n", "p")
    cases: tuple[Case, ...] = ("nominative", "accusative", "dative")
    for case in cases:
        columns = (table_[case].split() for table_ in (_STRONG, _WEAK, _MIXED, _THE, _EIN))
        for gender, strong, weak, mixed, the, ein in zip(genders, *columns, strict=True):
            table["", case, gender] = "", strong
            table["the", case, gender] = the, weak
            table["this", case, gender] = "dies" + strong, weak
            for english, stem in (("a", "ein"), ("no", "kein"), ("my", "mein"), ("his", "sein"), ("her", "ihr")):
                table[english, case, gender] = stem + ein.strip("-"), mixed
            table["a", case, "p"] = "", _STRONG[case].split()[-1]
    return table


DECLENSIONS = _declensions()
"""German determiner and adjective ending, by English determiner, case and gender; ``""`` is no determiner."""

VERBS = SEE_OR_BUY + EAT + DRINK + GIVE
