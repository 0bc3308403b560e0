"""The ways in which machines exchange what they have summed, by the names of ``--between``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """How servers on several machines become one.

    Attributes:
        name: for ``--between``.
        summary: what it does, in a few words for ``--help``.
        waits: whether a machine begins no batch while its contribution is on the way.
        joins: whether a machine contributes what it has as soon as another one is ready.
        late: updates by which a push is older than on one machine.
        local: whether a machine makes updates of its own between two exchanges.
    """

    name: str
    summary: str
    waits: bool
    joins: bool = False
    late: int = 0
    local: bool = False

    def takes(self, mode: str) -> bool:
        """Whether the workers of each machine may be in this mode: in sync they wait for the update that holds their
        pushes, which means nothing where nobody waits for it."""
        return not self.joins or mode != "sync"


SYNC = Way("sync", "one all-reduce for each update, for which everybody waits", waits=True)
"""The sums of all machines are added, and each applies the same update."""

LAGGED = Way(
    "lagged", "the all-reduce of one round is under way while the next accumulates", waits=False, joins=True, late=1
)
"""Lagged all-reduce with gradient accumulation (LAGA, Hakimi et al. 2021): while the sums of a round cross the network,
workers go on with the next one on the parameters they have. A machine contributes what it has when the first of them
has its round together, so that none waits for a slower one; the sum is normalised by all tokens."""

LOCAL = Way(
    "local", "each makes --local-updates of its own, then an outer step of what all have moved", waits=True, local=True
)
"""Local updates with an outer step (DiLoCo; see `nmt_async.sync.between.outer`), for links between sites."""

WAYS = {way.name: way for way in (SYNC, LAGGED, LOCAL)}
