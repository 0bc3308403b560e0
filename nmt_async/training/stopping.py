"""Which validation is the best so far, and when validation says that training should end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Judge:
    """Ranks validations by one metric.

    Attributes:
        metric: its name; cross-entropy is better when lower, the others when higher.
        patience: validations in a row without a better one after which training ends; 0: never.
        keep: how many of the best steps are remembered.
        ranking: (value, step) of the best, best first.
        stalled: validations in a row without a better one.
    """

    metric: str
    patience: int
    keep: int = 1
    ranking: list[tuple[float, int]] = field(default_factory=list)
    stalled: int = 0

    def judge(self, step: int, value: float) -> bool:
        """Takes the validation of ``step`` into account; True if it is among the best to keep.

        A ``value`` that is not finite is worse than all and is not remembered.
        """
        better = math.isfinite(value) and (not self.ranking or self._order(value) < self._order(self.best))
        self.stalled = 0 if better else self.stalled + 1
        if not math.isfinite(value):
            return False
        self.ranking = sorted([*self.ranking, (value, step)], key=lambda entry: (self._order(entry[0]), entry[1]))
        self.ranking = self.ranking[: max(self.keep, 1)]
        return step in self.best_steps

    def _order(self, value: float) -> float:
        return value if self.metric == "cross-entropy" else -value

    @property
    def best(self) -> float:
        """The best value so far, not a number if there is none."""
        return self.ranking[0][0] if self.ranking else math.nan

    @property
    def best_steps(self) -> list[int]:
        """The steps to keep, best first."""
        return [step for _, step in self.ranking[: self.keep]]

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return bool(self.patience) and self.stalled >= self.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {"ranking": self.ranking, "stalled": self.stalled}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is no state.
        """
        self.ranking = [(float(value), int(step)) for value, step in state["ranking"]]
        self.stalled = int(state["stalled"])
