"""The grammar of what is planned: modes and numbers of workers, as people type them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import UserError
from nmt_async.study.setting import mode_options
from nmt_async.sync.rules import Rule, rule_for

MOST_WORKERS = 1_000_000


@dataclass(frozen=True)
class Mode:
    """A way of updating for any number of workers.

    Attributes:
        name: ``sync``, ``sync:N``, ``async``, ``hybrid:N`` or ``local:N``; W for N is the number of workers.
    """

    name: str

    def rule(self, workers: int) -> Rule:
        """When its pushes become an update."""
        options = self._options(workers)
        default = workers if options["sync-mode"] == "hybrid" else 1
        return rule_for(options["sync-mode"], workers, options.get("accumulate", default))

    def parts(self, workers: int) -> int:
        """Batches that a worker sums before its push."""
        return int(self._options(workers).get("local-accumulate", 1))

    def _options(self, workers: int) -> dict[str, Any]:
        return mode_options(re.sub(r":W$", f":{workers}", self.name))


def modes_named(text: str) -> tuple[Mode, ...]:
    """The modes in ``text``, with commas between them.

    Raises:
        UserError: one of them is no mode, or has a learning rate, which changes no time; or there is none.
    """
    modes = tuple(Mode(name.strip()) for name in text.split(",") if name.strip())
    for mode in modes:
        if "@" in mode.name:
            raise UserError(f"--modes: {mode.name!r}: a learning rate changes no time; leave out what follows the @.")
        mode.rule(2)
    if not modes:
        raise UserError("--modes names no mode; give some, as in sync,async,hybrid:4,hybrid:W.")
    return tuple(dict.fromkeys(modes))


def workers_named(text: str) -> tuple[int, ...]:
    """Numbers of workers, ascending: ``1,2,3`` or ``1..64``, which doubles from 1 on and ends with 64.

    Raises:
        UserError: it is neither.
    """
    counts: set[int] = set()
    for item in filter(None, (item.strip() for item in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,7})(?:\.\.([0-9]{1,7}))?", item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= MOST_WORKERS:
            raise UserError(
                f"--workers: {item!r} is neither a number of workers nor a range; give 1,2,8 or 1..64 (1, 2, 4 … 64)."
            )
        while low < high:
            counts.add(low)
            low *= 2
        counts.add(high)
    if not counts:
        raise UserError("--workers names no number; give some, as in 1,2,4 or 1..64.")
    return tuple(sorted(counts))
