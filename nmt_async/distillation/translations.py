"""A file of translations that grows, so that an interrupted command goes on behind the last one.

    {"format": 1, "made-with": {"teachers": ["5f3c…"], "beam-size": 4, …}}
    {"source": "A dog runs.", "reference": null, "target": "Ein Hund läuft.", "forward": 0.21, "backward": null, …}

The second kind of line stands there once for each line of the text, in its order.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError
from nmt_async.reading import as_dataclass, json_object, open_ordinary
from nmt_async.score.filtering import dual_score
from nmt_async.writing import AppendedFile

FORMAT = 1
SECURED = 1024
"""Pairs after which what was written is brought to the disk."""


@dataclass(frozen=True)
class Pair:
    """A line and what a teacher made of it.

    Attributes:
        reference: people's translation of it, where the teacher's candidates were set beside it.
        forward: the teacher's cross-entropy per subword, end mark counted, in nats.
        backward: that of a model from target to source, of the line; None where there is no such model.
        cut: the line was too long, and only its beginning was translated.
    """

    source: str
    reference: str | None
    target: str
    forward: float
    backward: float | None
    cut: bool

    @property
    def score(self) -> float:
        """From 0 to 1: the dual score, or without a backward model the geometric mean of the subwords' probabilities.
        0 where a side has no words, or one is not all of the other."""
        if self.cut or not self.source.strip() or not self.target.strip():
            return 0.0
        if self.backward is None:
            return math.exp(-self.forward)
        return dual_score(self.forward, self.backward)


def _pair_in(line: bytes) -> Pair | None:
    """The pair of a line; None if it is damaged."""
    try:
        pair = as_dataclass(Pair, json_object(line.decode()))
        return pair if line.endswith(b"\n") and 0 <= pair.score <= 1 else None
    except (ValueError, TypeError, OverflowError):
        return None


class TranslationsFile:
    """The file at ``path``; what stands behind a damaged line, as a crash leaves it, is cut off.

    Args:
        path: made if absent, and removed when it is closed without a pair.
        made_with: by the name of the option, what the translations depend on.
        warn: takes a sentence about what is cut off.

    Attributes:
        count: pairs that were there when it was opened.

    Raises:
        UserError: it was made with something else, is none, or another process writes it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self.path = path
        self.count = 0
        self._file = AppendedFile(path)
        self._lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._header = json.dumps({"format": FORMAT, "made-with": dict(made_with)}, ensure_ascii=False) + "\n"
        self._unsecured = 0
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another process writes {path}; wait for its end, or name another --text.") from None
            self._take_up(warn)
        except BaseException:
            self._file.close()
            os.close(self._lock)
            raise

    def _take_up(self, warn: Callable[[str], None]) -> None:
        """Counts the pairs, cuts off what is damaged, and looks at what they were made with."""
        whole = 0
        with open_ordinary(self.path) as file:
            first = file.readline()
            for line in file:
                if _pair_in(line) is None:
                    break
                self.count, whole = self.count + 1, whole + len(line)
        if self.count:
            self._check(first)
            whole += len(first)
        elif first.endswith(b"\n") and not first.startswith(b'{"format": '):
            raise self._none()  # somebody's file, which must not be emptied
        if lost := os.fstat(self._lock).st_size - whole:
            if self.count:
                warn(f"{self.path} is damaged behind pair {self.count:,} ({lost:,} bytes); it goes on from there.")
            os.ftruncate(self._lock, whole)

    def _none(self) -> UserError:
        return UserError(f"{self.path} is no file of translations; name another --text, or remove it.")

    def _check(self, first: bytes) -> None:
        try:
            header = json_object(first.decode())
            there = header["made-with"]
            if header["format"] != FORMAT or not isinstance(there, dict):
                raise ValueError
        except (ValueError, KeyError):
            raise self._none() from None
        for name, wanted in json_object(self._header)["made-with"].items():
            if there.get(name) != wanted:
                what = MODELS.get(name) or f"--{name} {there.get(name)}, not {wanted}"
                raise UserError(f"{self.path} was made with {what}; name another --text, or remove it.")

    def append(self, pair: Pair) -> None:
        """Writes it at once.

        Raises:
            OSError: it could not be written.
        """
        if self._header and not self.count:
            self._file.append(self._header)
        self._header = ""
        self._file.append(json.dumps(asdict(pair), ensure_ascii=False) + "\n")
        self._file.flush()
        self._unsecured += 1
        if self._unsecured >= SECURED:
            self._file.secure()
            self._unsecured = 0

    def pairs(self, most: int | None = None) -> Iterator[Pair]:
        """Those in the file, or the first ``most``.

        Raises:
            UserError: one was damaged since the file was opened.
        """
        with open_ordinary(self.path) as file:
            file.readline()
            for number, line in enumerate(file, 1):
                if most is not None and number > most:
                    return
                pair = _pair_in(line)
                if pair is None:
                    raise UserError(f"{self.path} was damaged meanwhile (pair {number:,}); run the same command again.")
                yield pair

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()
        if os.fstat(self._lock).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._lock)


MODELS = {
    "teachers": "other teachers", "backward": "another --backward, or without one",
    "reference": "another --reference, or without one",
}  # fmt: skip
"""How the sentence names what is known by its hash, or by every line."""
