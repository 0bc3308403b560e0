"""Small made-up parallel text for the tests of ``text``."""

from __future__ import annotations

import random
from pathlib import Path

_WORDS = {
    "the": "der", "old": "alte", "small": "kleine", "red": "rote", "train": "Zug", "house": "Hauswirt", "dog": "Hund",
    "cat": "Kater", "river": "Fluss", "sees": "sieht", "follows": "verfolgt", "hears": "vernimmt", "tree": "Baum",
    "never": "niemals", "always": "immer", "today": "heute", "tomorrow": "morgen", "quietly": "leise", "bridge": "Steg",
}  # fmt: skip


def phrases(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """``count`` different pairs of four to nine words and a number."""
    chance = random.Random(seed)
    pairs = []
    for number in range(count):
        english = [chance.choice(list(_WORDS)) for _ in range(chance.randint(4, 9))]
        pairs.append((" ".join([*english, str(number)]), " ".join([*(_WORDS[word] for word in english), str(number)])))
    return pairs


def write_lines(path: Path, lines: list[str]) -> Path:
    """``path`` with these lines, each ended by a newline."""
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    return path


def write_pairs(folder: Path, name: str, pairs: list[tuple[str, str]]) -> tuple[Path, Path]:
    """``folder/name.en`` and ``folder/name.de``."""
    return (
        write_lines(folder / f"{name}.en", [source for source, _ in pairs]),
        write_lines(folder / f"{name}.de", [target for _, target in pairs]),
    )
