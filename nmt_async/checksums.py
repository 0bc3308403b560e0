"""SHA-256 of a folder's files, noted when they are written and compared before they are used.

They stand in the folder's ``SHA256SUMS``, whose form is that of the program sha256sum: ``sha256sum -c SHA256SUMS``
checks the folder without us.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from nmt_async.reading import LARGEST, open_ordinary
from nmt_async.writing import write_whole

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0]+)")
SHOWN = 8
"""Digits of a hash that a sentence shows; the whole of it stands in the file."""


def sha256_of(path: Path) -> str:
    """In hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open_ordinary(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def note_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Writes ``folder``'s hashes, by the name of the file."""
    write_whole(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in hashes.items()))


def noted_hashes(folder: Path) -> dict[str, str]:
    """What `note_hashes` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; the text says what is.
    """
    noted = {}
    with open_ordinary(folder / SUMS) as file:
        text = file.read(LARGEST).decode(errors="replace")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{SUMS} is damaged (line {number} is not a SHA-256 and the name of a file)")
        noted[found[2]] = found[1]
    return noted


def damage_of(path: Path, noted: str) -> str:
    """What is wrong with the file: ``is missing``, ``is damaged (…)``; empty if its hash is the one ``noted``."""
    try:
        found = sha256_of(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if found == noted:
        return ""
    return f"is damaged (its SHA-256 is {found[:SHOWN]}…, noted was {noted[:SHOWN]}…)"


def damages(folder: Path, noted: Mapping[str, str]) -> list[str]:
    """A phrase for each file of ``folder`` that is not as ``noted``: ``model.safetensors is missing``."""
    found = ((name, damage_of(folder / name, digest)) for name, digest in noted.items())
    return [f"{name} {damage}" for name, damage in found if damage]
