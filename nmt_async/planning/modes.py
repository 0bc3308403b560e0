"""The grammar of ways of updating and of numbers of workers, as people type them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmt_async.cluster.profile import MOST_WORKERS
from nmt_async.errors import UserError, shown
from nmt_async.sync.rules import MODES, Adaptive, Asynchronous, Rule, Waiting, rule_for

_NUMBER = "[1-9][0-9]{0,5}"
_NAME = "|".join((*MODES, "local"))
_MODE = re.compile(
    rf"(?P<name>{_NAME})(:(?P<count>{_NUMBER}))?(?P<beside>(\+[a-z]+(:[0-9]{{1,6}})?)*)(@(?P<rate>[0-9.eE+-]+))?"
)
LOCAL = "local-accumulate"
BESIDE = {
    "oldest": "oldest-push",
    "staleness": "max-staleness",
    "fastest": "fastest",
    "first": "accumulate-first",
    "local": LOCAL,
}
"""Of what may stand behind a mode with a number, the option of ``train``."""
WORDS: dict[str, tuple[str, Any]] = {"restart": ("older-pushes", "restart"), "balance": ("balance", True)}
"""Of what may stand behind it without one, the option and its value."""
BEHIND = tuple(f"+{word}:K" for word in BESIDE) + tuple(f"+{word}" for word in WORDS)


@dataclass(frozen=True)
class Mode:
    """A way of updating for any number of workers.

    Attributes:
        name: as `mode_options` takes it; W for a number is the number of workers.
    """

    name: str

    def rule(self, workers: int) -> Rule:
        """When its pushes become an update.

        Raises:
            UserError: what stands beside the mode does not fit it.
        """
        options = self._options(workers)
        if "fastest" in options:  # a number of workers that has fewer waits for all of them
            options["fastest"] = min(options["fastest"], workers * options.get("accumulate", 1))
        try:
            return rule_for(options["sync-mode"], workers, options.get("accumulate"), Waiting.said_by(options))
        except ValueError as error:
            raise UserError(f"--modes: {shown(self.name)}: {error}.") from None

    def parts(self, workers: int) -> int:
        """Batches that a worker sums before its push."""
        return int(self._options(workers).get(LOCAL, 1))

    def _options(self, workers: int) -> dict[str, Any]:
        return mode_options(re.sub(r":W(?![^+])", f":{workers}", self.name))


def mode_name(options: Mapping[str, Any]) -> str:
    """The short name of the way of updating in ``options`` of ``train``."""
    mode = str(options.get("sync-mode", "hybrid"))
    accumulate, local = options.get("accumulate"), int(options.get("local-accumulate") or 1)
    waiting = Waiting.said_by(options)
    if mode == Asynchronous.mode and not waiting.given():
        return mode if local == 1 else f"local:{local}"
    workers = options.get("workers")
    named = rule_for(mode, workers or 1, accumulate, waiting).name if workers or accumulate or waiting.given() else mode
    return named if local == 1 else f"{named}+local:{local}"


def mode_options(text: str) -> dict[str, Any]:
    """The options of ``train`` that a mode's short name stands for.

    ``sync`` and ``sync:N`` (N batches of each worker), ``async``, ``hybrid:N`` (N pushes from anyone) and ``local:N``
    (asynchronous pushes that each sum N batches in the worker); ``+local:N`` behind others has the workers sum, too.
    ``adaptive:N`` waits for more pushes as the loss falls. ``+oldest:K``, ``+restart``, ``+staleness:K``,
    ``+fastest:M``, ``+balance`` and ``+first:K`` say which pushes count and who waits (``--oldest-push``,
    ``--older-pushes restart``, ``--max-staleness``, ``--fastest``, ``--balance``, ``--accumulate-first``), and
    ``@RATE`` gives a learning rate.

    Raises:
        UserError: it is none of these.
    """
    match = _MODE.fullmatch(text.strip())
    if (
        match is None
        or (match["name"] == Asynchronous.mode and match["count"])
        or (beside := _beside(match["beside"])) is None
        or (LOCAL in beside and (match["name"] == "local" or (match["name"] == "async" and len(beside) == 1)))
    ):
        raise UserError(
            f"--modes: {shown(text)} is not a mode; give sync, sync:N, async, hybrid:N, adaptive:N or local:N, behind "
            f"it any of {', '.join(BEHIND)}, and @RATE for a learning rate of its own."
        )
    count = int(match["count"]) if match["count"] else None
    if match["name"] == "local":
        if count is None:
            raise UserError(f"--modes: {shown(text)} does not say how many batches a worker sums; give local:N.")
        options: dict[str, Any] = {"sync-mode": Asynchronous.mode, "local-accumulate": count}
    else:
        options = {"sync-mode": match["name"]}
        if count is not None:
            options["accumulate"] = count
    options |= beside
    if match["rate"]:
        try:
            options["learn-rate"] = float(match["rate"])
        except ValueError:
            options["learn-rate"] = math.nan
        if not 0 < options["learn-rate"] < math.inf:
            raise UserError(
                f"--modes: {shown(text)}: {shown(match['rate'])} is not a learning rate; give a number such as 0.0003."
            )
    return options


def _beside(text: str) -> dict[str, Any] | None:
    """The options that stand behind a mode, such as ``+oldest:2+restart``; None if something else does."""
    options: dict[str, Any] = {}
    for part in text.split("+")[1:]:
        word, _, number = part.partition(":")
        if part in WORDS:
            key, value = WORDS[part]
        elif word in BESIDE and number and (int(number) or word != "local"):
            key, value = BESIDE[word], int(number)
        else:
            return None
        if key in options:
            return None
        options[key] = value
    return options


def modes_named(text: str) -> tuple[Mode, ...]:
    """The modes in ``text``, with commas between them.

    Raises:
        UserError: one of them is no mode, or has a learning rate, which changes no time; or there is none.
    """
    modes = tuple(Mode(name.strip()) for name in text.split(",") if name.strip())
    for mode in modes:
        if "@" in mode.name:
            raise UserError(
                f"--modes: {shown(mode.name)}: a learning rate does not change the time; leave out the @ and the rate."
            )
        if mode.name.startswith(Adaptive.mode):
            raise UserError(
                f"--modes: {shown(mode.name)}: how many pushes an update sums depends on the loss, which a simulation "
                f"of time does not know; train with --cluster simulated to see it."
            )
        mode.rule(2)
    if not modes:
        raise UserError("--modes names no mode; give some, as in sync,async,hybrid:4,hybrid:W.")
    return tuple(dict.fromkeys(modes))


def workers_named(text: str) -> tuple[int, ...]:
    """Numbers of workers, as `counts_named` reads them."""
    return counts_named(text, "--workers", "workers")


def counts_named(text: str, flag: str, of: str) -> tuple[int, ...]:
    """Numbers, ascending: ``1,2,3`` or ``1..64``, which doubles from 1 on and ends with 64.

    Args:
        flag: of the option.
        of: what is counted, for people.

    Raises:
        UserError: it is neither.
    """
    counts: set[int] = set()
    for item in filter(None, (item.strip() for item in text.split(","))):
        match = re.fullmatch(r"([0-9]{1,7})(?:\.\.([0-9]{1,7}))?", item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= low <= high <= MOST_WORKERS:
            raise UserError(
                f"{flag}: {shown(item)} is neither a number of {of} nor a range; give 1,2,8 or 1..64 (1, 2, 4 … 64)."
            )
        while low < high:
            counts.add(low)
            low *= 2
        counts.add(high)
    if not counts:
        raise UserError(f"{flag} names no number; give some, as in 1,2,4 or 1..64.")
    return tuple(sorted(counts))
