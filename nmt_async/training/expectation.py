"""What to expect of a run's updates, known before it starts: effective batch, staleness, and amounts in other units.

A pure function of the rule, the workers and the lengths in the batch plan; the figures that a run then measures are
``effective_batch`` and ``staleness_mean`` in its ``metrics.jsonl``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nmt_async.formatting import about
from nmt_async.quantity import Quantity
from nmt_async.sync.rules import Rule

TRANSLATED = ("updates", "tokens", "epochs")
"""Units that go by at a constant ratio; how many hours an update takes is not known before."""


@dataclass(frozen=True)
class Expectation:
    """Means over an epoch.

    Attributes:
        pushes: summed into one update.
        push_batches: batches that a worker sums before each push.
        push_tokens: target tokens in a push.
        epoch_tokens: target tokens in an epoch.
        staleness: of a push, in updates.
    """

    pushes: int
    push_batches: int
    push_tokens: float
    epoch_tokens: int
    staleness: float

    @property
    def effective_batch(self) -> float:
        """Target tokens in one update."""
        return self.pushes * self.push_tokens

    def amount(self, quantity: Quantity, unit: str) -> float:
        """``quantity`` in another unit, both of `TRANSLATED`."""
        tokens = {"updates": self.effective_batch, "tokens": 1.0, "epochs": float(self.epoch_tokens)}
        return quantity.amount * tokens[quantity.unit] / tokens[unit]

    def update_text(self) -> str:
        """What one update is, in one sentence."""
        summed = f" (sums of {self.push_batches} batches)" if self.push_batches > 1 else ""
        push = f"about {about(self.push_tokens)} target tokens{summed}"
        if self.pushes == 1:
            text = f"each push of {push} is an update"
        else:
            text = (
                f"an update sums {self.pushes:,} pushes of {push}: effective batch about {about(self.effective_batch)}"
            )
        return f"{text}; staleness {f'about {about(self.staleness)}' if self.staleness else 'none'}."

    def amounts_text(self, amounts: dict[str, Quantity | None]) -> str:
        """The amounts, by the option that gives each, in the other units; empty if none can be translated."""
        parts = []
        for flag, quantity in amounts.items():
            if quantity is None or not quantity.amount or quantity.unit not in TRANSLATED:
                continue
            others = [counted(self.amount(quantity, unit), unit) for unit in TRANSLATED if unit != quantity.unit]
            parts.append(f"{flag} {str(quantity).removesuffix('u')} is about {' or '.join(others)}")
        return f"{'; '.join(parts)}." if parts else ""


def expectation(rule: Rule, workers: int, epoch_tokens: int, epoch_pushes: int, push_batches: int = 1) -> Expectation:
    """What to expect of ``workers`` that are never idle unless the rule lets them wait.

    Args:
        rule: when pushes become an update.
        epoch_tokens: target tokens in an epoch.
        epoch_pushes: pushes that the epoch makes.
        push_batches: batches that a worker sums before each push.
    """
    mean = epoch_tokens / epoch_pushes
    return Expectation(rule.pushes, push_batches, mean, epoch_tokens, rule.staleness(workers))


def counted(amount: float, unit: str) -> str:
    """``75 updates``, ``1 epoch``, ``3,000,000 target tokens``."""
    text = about(max(amount, 1.0) if unit == "updates" else amount)
    noun = {"updates": "update", "tokens": "target token", "epochs": "epoch"}[unit]
    return f"{text} {noun if text == '1' else noun + 's'}"
