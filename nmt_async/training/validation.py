"""The validations of one run: by whom the parameters are scored, when, and which are the best.

A frozen copy is scored, in a process of its own so that no worker waits, or at once where workers are simulated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from torch import Tensor

from nmt_async.display.reports import ValidReport
from nmt_async.model.build import build_unfilled
from nmt_async.model.parameters import FlatLayout
from nmt_async.process.child import Child
from nmt_async.process.shared_memory import SharedVectors
from nmt_async.process.watchdog import LONGEST_STEP, Watchdog, Watched
from nmt_async.text.prepared import PreparedData
from nmt_async.training.metrics import Moment
from nmt_async.training.validation_scores import Scores, ValidationSettings, score


@dataclass(frozen=True)
class Unscored:
    """Validation failed with an exception."""

    error: str


def run_validator(settings: ValidationSettings, frozen: SharedVectors, pipe: Connection) -> None:
    """The body of the validation process: scores what stands in ``frozen`` whenever it is told to."""
    try:
        data = PreparedData.open(settings.data)
        model = build_unfilled(settings.configuration)
        layout, vector = FlatLayout(model), frozen.tensor[0]
        layout.bind(model, vector)
        while pipe.recv():
            settings.quantise(vector, layout)
            pipe.send(score(model, data, settings, pipe.send))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        pipe.send(Unscored(f"{type(error).__name__}: {error}".splitlines()[0]))


class Validator(Protocol):
    """Scores one version after another, one at a time."""

    @property
    def step(self) -> int | None:
        """Whose scores are still to come."""

    @property
    def busy(self) -> bool:
        """Whether a version is being scored."""

    @property
    def frozen(self) -> Tensor:
        """The parameters (size,) scored last; quantised, where the run's model is."""

    def begin(self, step: int, parameters: Tensor) -> None:
        """Begins to score ``parameters`` (size,), which are copied, as those of ``step``."""

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:
        """The step and scores of a finished validation, None if there is none within ``timeout`` seconds."""

    def close(self) -> None:
        """Nothing more will be scored."""


class InlineValidator:
    """Scores in this process, at once."""

    def __init__(self, settings: ValidationSettings, size: int) -> None:
        self.settings = settings
        self.frozen = torch.zeros(size)
        self.step: int | None = None
        self._scores: Scores | None = None
        self._data = PreparedData.open(settings.data)
        self._model = build_unfilled(settings.configuration)
        self._layout = FlatLayout(self._model)
        self._layout.bind(self._model, self.frozen)

    @property
    def busy(self) -> bool:
        """Whether scores wait to be taken."""
        return self.step is not None

    def begin(self, step: int, parameters: Tensor) -> None:
        """Scores ``parameters`` (size,)."""
        self.frozen.copy_(parameters)
        self.settings.quantise(self.frozen, self._layout)
        self._scores = score(self._model, self._data, self.settings)
        self.step = step

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:  # noqa: ARG002
        """The step and scores of a validation not yet taken."""
        if self.step is None or self._scores is None:
            return None
        step, self.step = self.step, None
        return step, self._scores

    def close(self) -> None:
        """Nothing to end."""


class ProcessValidator:
    """Scores in a process of its own, which is under the law of silence that workers are under.

    Args:
        size: of the parameter vector.
        warn: takes a sentence about a validation that failed, or of which nothing is heard; training goes on.
        log: takes the stacks of one of which nothing is heard.
        timeout: seconds of silence after which a validation is given up; 0: never. See `Silence`.
    """

    def __init__(
        self,
        settings: ValidationSettings,
        size: int,
        warn: Callable[[str], None],
        log: Callable[[str], None],
        timeout: float,
    ) -> None:
        self.settings = settings
        self.warn = warn
        self.watchdog = Watchdog(timeout, warn, log)
        self._shared = SharedVectors(1, size)
        self.frozen = self._shared.tensor[0]
        self.step: int | None = None
        self._scorer: Watched | None = None

    @property
    def busy(self) -> bool:
        """Whether a version is being scored."""
        return self.step is not None

    def begin(self, step: int, parameters: Tensor) -> None:
        """Begins to score ``parameters`` (size,), which are copied, as those of ``step``.

        Raises:
            OSError: its process could not be started.
        """
        assert not self.busy
        self.frozen.copy_(parameters)
        scorer = self._scorer
        if scorer is None or scorer.process.exitcode is not None:
            scorer = self._start()
        try:
            scorer.process.pipe.send(True)
        except OSError:  # it was killed this very moment
            scorer = self._start()
            scorer.process.pipe.send(True)
        self.watchdog.heard(scorer)
        self.step = step

    def _start(self) -> Watched:
        self._end()
        child = Child("validation", run_validator, (self.settings, self._shared), threads=1)
        self._scorer = Watched(child)
        return self._scorer

    def result(self, timeout: float = 0.0) -> tuple[int, Scores] | None:
        """The step and scores of a finished validation, None if there is none within ``timeout`` seconds."""
        step, scorer = self.step, self._scorer
        if step is None or scorer is None:
            return None
        limit = time.monotonic() + timeout
        while True:
            if self.watchdog.look([scorer], {0: f"at the validation of update {step:,}"}):
                break
            if not scorer.process.pipe.poll(min(max(0.0, limit - time.monotonic()), LONGEST_STEP / 2)):
                if time.monotonic() >= limit:
                    return None
                continue
            try:
                answer = scorer.process.pipe.recv()
            except (EOFError, OSError):
                scorer.error = "its process was killed; out of memory?"
                break
            self.watchdog.heard(scorer)
            if isinstance(answer, Scores):
                self.step = None
                return step, answer
            if isinstance(answer, Unscored):
                scorer.error = answer.error
                break
            scorer.starting = False
            self.watchdog.silence.computed(answer.seconds)
        self._end()  # the next validation gets a process of its own
        self.warn(f"the validation of update {step} failed ({scorer.error}); training goes on.")
        return None

    def close(self) -> None:
        """Ends the process and gives the memory back."""
        self._end()
        self._shared.close()

    def _end(self) -> None:
        if self._scorer is not None:
            self._scorer.process.end()
            self.watchdog.ended(self._scorer)
            self._scorer.process.close()
            self._scorer = None
        self.step = None


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
        self.validator.begin(moment.updates, parameters)
        self._moments[moment.updates] = moment
        self._begun = moment.updates

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
            scores.corpus_cross_entropy(),
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
