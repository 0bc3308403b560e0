"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fine", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One line of what ``doctor`` says.

    Attributes:
        check: what was looked at.
        verdict: ``fine``; ``note``: worth knowing, but a run would come through; ``wrong``: it would not.
        found: what was found.
        advice: what to change; empty if nothing.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def mebibytes(amount: float) -> str:
    """Bytes for people: ``412 MiB``, ``5.3 GiB``."""
    if amount >= 10 * 2**30:
        return f"{amount / 2**30:,.0f} GiB"
    if amount >= 2**30:
        return f"{amount / 2**30:.1f} GiB"
    return f"{amount / 2**20:,.0f} MiB" if amount >= 10 * 2**20 else f"{amount / 2**20:.1f} MiB"
