"""The data step of the English-Indonesian example: three domains as plain files, and the declarations of their corpora.

Takes ``en-id/DOMAIN.train-small.LANGUAGE.gz`` and ``en-id/DOMAIN.test.LANGUAGE.gz`` from the folder that NMT_ASYNC_DATA
names. Every twentieth pair of the training text serves for validation, and is not trained on. README.md beside this
file says where the text comes from.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import zlib
from itertools import permutations
from pathlib import Path

import yaml

from nmt_async.errors import UserError
from nmt_async.writing import write_whole

DOMAINS = ("general", "news", "religious")
LANGUAGES = ("en", "id")
EVERY = 20
"""Of so many training pairs the last one is for validation."""


def read(folder: Path, name: str) -> list[str]:
    """The lines of ``name`` ("news.test.en").

    Raises:
        UserError: it is absent or damaged.
    """
    path = folder / f"{name}.gz"
    try:
        return gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}); see examples/en-id/README.md for the text.") from None
    except (EOFError, zlib.error, UnicodeDecodeError):
        raise UserError(f"{path} is damaged; get it again.") from None


def split(lines: list[str]) -> tuple[list[str], list[str]]:
    """What is trained on, and what is validated with."""
    held_out = lines[EVERY - 1 :: EVERY]
    return [line for number, line in enumerate(lines, 1) if number % EVERY], held_out


def declaration(text: Path, source: str, target: str, tags: bool) -> dict[str, list[dict[str, str]]]:
    """The corpora of all domains, from one language to the other, as ``prepare --corpora`` reads them."""
    corpora = []
    for domain in DOMAINS:
        files = {
            f"{prefix}{side}": str(text / f"{domain}.{part}.{language}")
            for prefix, part in (("", "train"), ("valid-", "valid"))
            for side, language in (("source", source), ("target", target))
        }
        corpora.append({"name": domain, **files, **({"tag": f"__{domain}__"} if tags else {})})
    return {"corpora": corpora}


def write(out: Path, data: Path, test_lines: int | None) -> None:
    """Writes text and declarations into ``out``.

    Raises:
        UserError: a text is absent, damaged, or does not fit its translation.
    """
    out.mkdir(parents=True, exist_ok=True)
    for domain in DOMAINS:
        for part in ("train-small", "test"):
            sides = [read(data / "en-id", f"{domain}.{part}.{language}") for language in LANGUAGES]
            if len(sides[0]) != len(sides[1]):
                raise UserError(f"{data}/en-id: {domain}.{part} has {len(sides[0])} and {len(sides[1])} lines.")
            for language, lines in zip(LANGUAGES, sides, strict=True):
                parts = (
                    {"test": lines[:test_lines]}
                    if part == "test"
                    else dict(zip(("train", "valid"), split(lines), strict=True))
                )
                for name, kept in parts.items():
                    write_whole(out / f"{domain}.{name}.{language}", "".join(f"{line}\n" for line in kept).encode())
    for source, target in permutations(LANGUAGES):
        for name, tags in (("union", False), ("tags", True)):
            content = yaml.safe_dump(declaration(out, source, target, tags), sort_keys=False)
            write_whole(out / f"{source}-{target}.{name}.yaml", content)


def main() -> int:
    """Exit code 0, or 2 where a file is missing or wrong."""
    parser = argparse.ArgumentParser(
        description="Puts the text of three domains, English and Indonesian, into a folder."
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder; gets news.train.en, en-id.union.yaml, ...")
    parser.add_argument("--test-lines", type=int, help="of each test text, so many only")
    options = parser.parse_args()
    try:
        data = os.environ.get("NMT_ASYNC_DATA")
        if not data:
            raise UserError("NMT_ASYNC_DATA names no folder; see examples/en-id/README.md for the text.")
        write(options.out, Path(data), options.test_lines)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror}; name a folder that can be written.", file=sys.stderr)
        return 2
    print(f"English and Indonesian of {', '.join(DOMAINS)} are in {options.out}: train, valid and test.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
