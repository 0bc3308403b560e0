"""The documents of the repository as the tests of this folder read them: tables, blocks of code, command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md"))
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def read(document: Path | str) -> str:
    """The text of a document, which is named as seen from the root."""
    return (ROOT / document).read_text(encoding="utf-8")


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
    return [block for found, block in FENCE.findall(text) if found == language]


def code_lines(text: str) -> Iterator[str]:
    """The lines of all blocks of code, fenced or indented; a line that ends with a backslash is one with the next."""
    indented = re.findall(r"^ {4}\S.*(?:\n {4}.*)*", FENCE.sub("", text), flags=re.MULTILINE)
    for block in (*(block for _, block in FENCE.findall(text)), *indented):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())


def code_spans(text: str) -> list[str]:
    """What stands between backticks in running text."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def words_of(line: str) -> list[str]:
    """The words of the `nmt-async` command in a line, without the prompt, what is redirected, and a remark.

    Empty where there is none.
    """
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="<>|&;()")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe in an output
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        del words[0]
    if words[:1] != ["nmt-async"]:
        return []
    end = next((at for at, word in enumerate(words) if word[0] in "<>|&;("), len(words))
    return words[:end]
