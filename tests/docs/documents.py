"""The documents of the repository as the tests of this folder read them: tables, blocks of code, command lines."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def behind(text: str, marker: str) -> str:
    """What follows the comment ``<!-- marker -->``, up to the next heading."""
    _, found, rest = text.partition(f"<!-- {marker} -->")
    assert found, f"no <!-- {marker} -->"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """What stands between backticks in the first cell of each row of the text's tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE)


def fenced(text: str, language: str) -> list[str]:
    """The blocks between fences that are of this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
