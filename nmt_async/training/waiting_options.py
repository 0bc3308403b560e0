"""The options of ``train`` that say who waits and which pushes count, beside the mode and N."""

from __future__ import annotations

from dataclasses import dataclass, fields

from nmt_async.options import GIVEN, NOT_GIVEN, option
from nmt_async.sync.rules import Waiting

GROUP = "Who waits"
LEAST = {"oldest_push": 0, "max_staleness": 0, "fastest": 1, "accumulate_first": 1}
"""The least that options may be which are numbers."""
OLDER = ("recompute", "restart")


@dataclass(frozen=True)
class WaitingOptions:
    """Who waits, and which pushes count."""

    oldest_push: int | None = option(
        None,
        "How many updates old a push may be; an older one is refused and its batch computed again. 0: Rennala SGD; in "
        "async it is Ringmaster ASGD (default: pushes of any age count).",
        group=GROUP,
        only_with={"sync_mode": ("hybrid", "async", "adaptive"), "max_staleness": NOT_GIVEN},
        metavar="K",
    )
    older_pushes: str = option(
        "recompute",
        "What a worker does whose push will be too old. recompute: it goes on, is refused, and the batch is computed "
        "again; restart: it stops at once and begins another batch.",
        group=GROUP,
        choices=OLDER,
        only_with=({"oldest_push": GIVEN}, {"fastest": GIVEN}),
    )
    max_staleness: int | None = option(
        None,
        "No push that enters an update is more than so many updates old, and none is refused: updates and workers wait "
        "for the slow ones (SSP). 0: a barrier.",
        group=GROUP,
        only_with={"sync_mode": ("hybrid", "async")},
        metavar="K",
    )

    fastest: int | None = option(
        None,
        "An update waits for the first M pushes of the round only, so that the others are backup workers; late pushes "
        "are refused, and their batches computed again (default: all).",
        group=GROUP,
        only_with={"sync_mode": "sync"},
        metavar="M",
    )
    balance: bool = option(
        False,
        "A worker takes the next batch of the round as soon as it is free, so that fast workers compute more; the "
        "update stays the same. Give a larger --accumulate and smaller batches with it.",
        group=GROUP,
        flags=("--balance",),
        only_with={"sync_mode": "sync"},
    )

    accumulate_first: int | None = option(
        None,
        "How many pushes an update waits for at first; their number grows to --accumulate as the loss falls (AdaSync; "
        "with --oldest-push and --older-pushes restart as in ABS) (default: 1).",
        group=GROUP,
        only_with={"sync_mode": "adaptive"},
        metavar="K",
    )

    def waiting(self) -> Waiting:
        """The same for `nmt_async.sync.rule_for`."""
        return Waiting(**{field.name: getattr(self, field.name) for field in fields(Waiting)})
