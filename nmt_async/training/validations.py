"""The validations of one run: begun when they are due, heard when they are done, judged, and told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from nmt_async.display.reports import ValidReport
from nmt_async.training.moment import Moment
from nmt_async.training.stopping import Judge
from nmt_async.training.validation import Scores, Validator


class Validations:
    """One at a time.

    Args:
        validator: scores; None where there is no validation set, and then nothing is ever validated.
        judge: ranks what was scored.
        tell: takes each report with its scores.
        keep: takes the step and the parameters (size,) of a validation that is among the best.
    """

    def __init__(
        self,
        validator: Validator | None,
        judge: Judge,
        tell: Callable[[ValidReport, Scores], None],
        keep: Callable[[int, Tensor], None],
    ) -> None:
        self.validator = validator
        self.judge = judge
        self._tell = tell
        self._keep = keep
        self._moments: dict[int, Moment] = {}
        self._begun = 0
        self.judged = 0

    @property
    def possible(self) -> bool:
        """Whether one could begin now."""
        return self.validator is not None and not self.validator.busy

    def at(self, step: int) -> bool:
        """Whether the version of ``step`` is being scored."""
        return self.validator is not None and self.validator.step == step

    def begin(self, moment: Moment, parameters: Tensor) -> None:
        """Begins to score ``parameters`` (size,), the version of ``moment``.

        Raises:
            OSError: the validator could not be started.
        """
        assert self.validator is not None
        self._moments[moment.updates] = moment
        self._begun = moment.updates
        self.validator.begin(moment.updates, parameters)

    def has_begun(self, step: int) -> bool:
        """Whether the latest to begin was that of ``step``."""
        return self._begun == step

    def hear(self, timeout: float = 0.0) -> None:
        """Takes what has been scored, if it has within ``timeout`` seconds."""
        if self.validator is None or self.validator.step is None:
            return
        step = self.validator.step
        finished = self.validator.result(timeout)
        if not self.validator.busy:
            self.judged = step
        if finished is not None:
            self._judge(*finished)

    def hear_all(self, gives_up: Callable[[], bool]) -> None:
        """Waits for what is being scored, until ``gives_up``."""
        while self.validator is not None and self.validator.busy and not gives_up():
            self.hear(timeout=0.5)

    def _judge(self, step: int, scores: Scores) -> None:
        assert self.validator is not None
        moment, judge = self._moments.pop(step), self.judge
        named = {"cross-entropy": scores.cross_entropy, "bleu": scores.bleu, "chrf": scores.chrf}
        value = named[judge.metric]
        keep = judge.judge(step, math.nan if value is None else value)
        report = ValidReport(
            moment.seconds, moment.epoch, step, moment.source_tokens, moment.tokens, scores.cross_entropy,
            scores.bleu, scores.chrf, judge.metric, judge.stalled, judge.best, scores.seconds,
        )  # fmt: skip
        self._tell(report, scores)
        if keep:
            self._keep(step, self.validator.frozen)

    def state(self) -> dict[str, Any]:
        """What a checkpoint stores."""
        return {"judge": self.judge.state(), "judged": self.judged}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up where `state` was taken; what was being scored then has not begun."""
        self.judge.restore(state["judge"])
        self._begun = self.judged = int(state["judged"])

    def close(self) -> None:
        """Nothing more will be scored."""
        if self.validator is not None:
            self.validator.close()
