"""A file of translations that grows line by line, so that an interrupted command goes on behind the last one.

    {"format": 1, "made-with": {"teachers": ["5f3c…"], "beam-size": 4, …}}
    {"source": "A dog runs.", "target": "Ein Hund läuft.", "forward": 0.21, "backward": null}

The second kind of line stands there once for each line of the text, in its order.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nmt_async.errors import UserError
from nmt_async.reading import json_object, open_ordinary
from nmt_async.score.filtering import dual_score
from nmt_async.writing import AppendedFile

FORMAT = 1


@dataclass(frozen=True)
class Pair:
    """A line and what a teacher made of it.

    Attributes:
        forward: the teacher's cross-entropy per subword, end mark counted, in nats.
        backward: that of a model from target to source, of the line; None where there is no such model.
    """

    source: str
    target: str
    forward: float
    backward: float | None = None

    @property
    def score(self) -> float:
        """From 0 to 1: the dual score, or without a backward model the geometric mean of the subwords' probabilities.
        0 where a side has no words."""
        if not self.source.strip() or not self.target.strip():
            return 0.0
        if self.backward is None:
            return math.exp(-self.forward)
        return dual_score(self.forward, self.backward)


class TranslationsFile:
    """The file at ``path``; what a crash left of its last line is cut off.

    Args:
        path: made if absent.
        made_with: by the name of the option, what the translations depend on.

    Attributes:
        count: pairs that were there when it was opened.

    Raises:
        UserError: it was made with something else, is none, or another process writes it.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, made_with: Mapping[str, Any]) -> None:
        self.path = path
        self._file = AppendedFile(path)
        self._lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another process writes {path}; wait for its end, or name another --text.") from None
            self.count = self._taken_up(dict(made_with))
        except BaseException:
            self.close()
            raise

    def _taken_up(self, made_with: dict[str, Any]) -> int:
        """Cuts off half a line, and compares the first one; the number of the others."""
        whole = lines = 0
        with open_ordinary(self.path) as file:
            first = file.readline()
            file.seek(0)
            for line in file:
                if line.endswith(b"\n"):
                    whole, lines = whole + len(line), lines + 1
        if os.fstat(self._lock).st_size > whole:
            os.ftruncate(self._lock, whole)
        if not lines:
            self._file.append(json.dumps({"format": FORMAT, "made-with": made_with}, ensure_ascii=False) + "\n")
            self._file.flush()
            return 0
        self._check(first, made_with)
        return lines - 1

    def _check(self, first: bytes, made_with: dict[str, Any]) -> None:
        otherwise = "name another --text, or remove it"
        try:
            header = json_object(first.decode())
            there = header["made-with"]
            if header["format"] != FORMAT or not isinstance(there, dict):
                raise ValueError
        except (ValueError, KeyError):
            raise UserError(f"{self.path} is no file of translations; {otherwise}.") from None
        # As the file has them: what JSON makes of a tuple is a list.
        for name, wanted in json_object(json.dumps(made_with)).items():
            if there.get(name) != wanted:
                what = MODELS.get(name) or f"--{name} {there.get(name)}, not {wanted}"
                raise UserError(f"{self.path} was made with {what}; {otherwise}.")

    def append(self, pair: Pair) -> None:
        """Writes it at once."""
        self._file.append(json.dumps(asdict(pair), ensure_ascii=False) + "\n")
        self._file.flush()

    def pairs(self, most: int | None = None) -> Iterator[Pair]:
        """Those in the file, or the first ``most``.

        Raises:
            UserError: a line is damaged.
        """
        with open_ordinary(self.path) as file:
            file.readline()
            for number, line in enumerate(file, 1):
                if most is not None and number > most:
                    return
                yield self._pair(number, line)

    def _pair(self, number: int, line: bytes) -> Pair:
        try:
            values = json_object(line.decode())
            pair = Pair(**values)
            if not isinstance(pair.source, str) or not isinstance(pair.target, str) or not 0 <= pair.score <= 1:
                raise ValueError
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"{self.path} is damaged (pair {number:,}); remove it, and translate anew.") from None
        return pair

    def close(self) -> None:
        """Nothing more will come."""
        self._file.close()
        os.close(self._lock)


MODELS = {
    "teachers": "other teachers", "backward": "another --backward, or without one",
    "reference": "another --reference, or without one",
}  # fmt: skip
"""How the sentence names what is known by its hash or its path."""
