"""A setting: one training run of a study, and the short names of ways of updating that people type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nmt_async.errors import UserError

_MODE = re.compile(r"(?P<name>sync|async|hybrid|local)(:(?P<count>[1-9][0-9]{0,5}))?(@(?P<rate>[0-9.eE+-]+))?")


@dataclass(frozen=True)
class Setting:
    """One training run.

    Attributes:
        condition: what it shares with the runs of other seeds, as people read it: ``hybrid:4``, ``async@0.0005``.
        seed: of the run.
        options: of ``train``, by their keys in a configuration file, where they are not the defaults; without seed
            and folder.
    """

    condition: str
    seed: int
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Of its folder and files: ``hybrid-4.seed1``."""
        return f"{re.sub(r'[^A-Za-z0-9.@+]+', '-', self.condition).strip('-')}.seed{self.seed}"

    @property
    def mode(self) -> str:
        """How it updates, without anything else: ``sync``, ``hybrid:4``, ``local:4``."""
        return mode_name(self.options)


def mode_name(options: Mapping[str, Any]) -> str:
    """The short name of the way of updating in ``options`` of ``train``."""
    mode = str(options.get("sync-mode", "hybrid"))
    accumulate, local = options.get("accumulate"), int(options.get("local-accumulate") or 1)
    if mode == "async":
        return "async" if local == 1 else f"local:{local}"
    named = mode if mode == "sync" and accumulate in (None, 1) else f"{mode}:{accumulate or options.get('workers', 1)}"
    return named if local == 1 else f"{named}+local:{local}"


def mode_options(text: str) -> dict[str, Any]:
    """The options of ``train`` that a mode's short name stands for.

    ``sync`` and ``sync:N`` (N batches of each worker), ``async``, ``hybrid:N`` (N pushes from anyone) and ``local:N``
    (asynchronous pushes that each sum N batches in the worker); ``@RATE`` behind it gives it a learning rate.

    Raises:
        UserError: it is none of these.
    """
    match = _MODE.fullmatch(text.strip())
    if match is None or (match["name"] == "async" and match["count"]):
        raise UserError(
            f"--modes: {text!r} is not a mode; give sync, sync:N, async, hybrid:N or local:N, with @RATE behind it for "
            f"a learning rate of its own."
        )
    count = int(match["count"]) if match["count"] else None
    if match["name"] == "local":
        if count is None:
            raise UserError(f"--modes: {text!r} does not say how many batches a worker sums; give local:N.")
        options: dict[str, Any] = {"sync-mode": "async", "local-accumulate": count}
    else:
        options = {"sync-mode": match["name"]}
        if count is not None:
            options["accumulate"] = count
    if match["rate"]:
        try:
            options["learn-rate"] = float(match["rate"])
        except ValueError:
            options["learn-rate"] = math.nan
        if not 0 < options["learn-rate"] < math.inf:
            raise UserError(
                f"--modes: {text!r}: {match['rate']!r} is not a learning rate; give a number such as 0.0003."
            )
    return options
