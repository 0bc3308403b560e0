"""What came out of a setting: a small file of numbers, from which reports and verdicts are made.

The run's folder may be gone by then; the result says with which command and where it was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from nmt_async.errors import UserError
from nmt_async.reading import as_dataclass, read_object
from nmt_async.study.setting import Setting
from nmt_async.writing import write_whole

FORMAT = 2
"""The first one called `Result.wall_seconds` the seconds of a processor, which they never were."""


@dataclass(frozen=True)
class Point:
    """One validation. Seconds are the cluster's: virtual ones in a simulated cluster.

    Attributes:
        update, tokens, seconds, epochs: of training, when the version was made; ``tokens`` counts target tokens.
        cross_entropy: per target token of the validation set, nats.
        bleu, chrf: of its translations, None where not translated.
        resampled: the cross-entropy on each of `nmt_async.study.bootstrap.DRAWS` bootstrap draws of the validation
            sentences; draw number r is of the same sentences in every result on the same data. Empty where the run
            has not kept its sentences' losses.
    """

    update: int
    tokens: int
    seconds: float
    epochs: float
    cross_entropy: float
    bleu: float | None = None
    chrf: float | None = None
    resampled: tuple[float, ...] = ()


@dataclass(frozen=True)
class TrainPoint:
    """A stretch of training that ends at an update; fields as in `nmt_async.display.reports.TrainReport`."""

    update: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float
    gradient_norm: float
    effective_batch: float
    staleness_mean: float
    tokens_per_second: float
    waiting: tuple[float, ...]


@dataclass(frozen=True)
class MachinePoint:
    """What one of the machines that share a run did in a stretch of training.

    Attributes:
        seconds: of training at the end of the stretch.
        length: of the stretch, in seconds.
        tokens, pushes: of its that counted; target tokens.
        waiting: the share of their time that its workers waited, None: not known.
        staleness_mean: of its pushes, in updates; None: it had none.
    """

    seconds: float
    length: float
    tokens: int
    pushes: int
    waiting: float | None
    staleness_mean: float | None

    @property
    def tokens_per_second(self) -> float:
        """Target tokens."""
        return self.tokens / self.length if self.length > 0 else 0.0


@dataclass(frozen=True)
class Machine:
    """One of the machines that share a run.

    Attributes:
        name: for people.
        workers: that it has; 0: unknown.
        stretches: of training in which it had a part, oldest first.
    """

    name: str
    workers: int
    stretches: tuple[MachinePoint, ...]

    @property
    def tokens(self) -> int:
        """Target tokens of its pushes that counted."""
        return sum(part.tokens for part in self.stretches)

    @property
    def tokens_per_second(self) -> float:
        """Target tokens, in the time in which it had a part."""
        return self.tokens / max(1e-9, sum(part.length for part in self.stretches))

    @property
    def waiting(self) -> float | None:
        """The share of their time that its workers waited; None: not known."""
        return _mean((part.waiting, part.length) for part in self.stretches)

    @property
    def staleness_mean(self) -> float | None:
        """Of its pushes, in updates; None: it had none."""
        return _mean((part.staleness_mean, part.pushes) for part in self.stretches)


def _mean(weighed: Iterable[tuple[float | None, float]]) -> float | None:
    """Of what is known, by its weight; None if nothing is."""
    known = [(value, weight) for value, weight in weighed if value is not None and weight > 0]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


@dataclass(frozen=True)
class Result:
    """A finished setting.

    Attributes:
        setting: which.
        command: that makes its run.
        folder: where the run was, relative to the study's folder.
        data: fingerprint of the prepared data.
        cluster: ``processes`` or ``simulated``.
        profile: of the simulated cluster, else empty.
        workers: how many, on all machines.
        parameters: of the model.
        environment: torch, machine, processor, version of nmt-async.
        updates, tokens, seconds: at the end; seconds of the cluster's clock.
        wall_seconds: from the start of the run's process to its end, all sittings together; None: not known.
        effective_batch: target tokens in an update, mean of the run.
        tokens_per_second: target tokens by the cluster's clock, mean of the run.
        staleness: pushes by staleness, of the whole run.
        waiting: of each worker, the share of its time that it waited, of the whole run; where real machines share the
            run, of each worker of the machine that wrote this.
        points: validations, oldest first.
        stretches: of training, oldest first.
        diverged: in what way parameters or gradients were not finite any more, empty if they were to the end.
        failed: why else the run could not go on, empty if it reached its end; a study keeps no such result.
        pushed_bytes: that crossed with the pushes that counted; 0: unknown, as of earlier versions.
        machines: that shared the run; empty where it was one machine's alone.
        corpus_pairs, corpus_tokens: sentence pairs and their target tokens, by the name of their corpus; empty where
            the data are not divided into corpora.
    """

    setting: Setting
    command: str
    folder: str
    data: str
    cluster: str
    profile: str
    workers: int
    parameters: int
    environment: Mapping[str, Any]
    updates: int
    tokens: int
    seconds: float
    wall_seconds: float | None
    effective_batch: float
    tokens_per_second: float
    staleness: Mapping[int, int]
    waiting: tuple[float, ...]
    points: tuple[Point, ...]
    stretches: tuple[TrainPoint, ...] = field(default=())
    diverged: str = ""
    failed: str = ""
    pushed_bytes: int = 0
    machines: tuple[Machine, ...] = ()
    corpus_pairs: Mapping[str, int] = field(default_factory=dict)
    corpus_tokens: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes_per_push(self) -> float | None:
        """On average; None: unknown."""
        return self.pushed_bytes / max(1, sum(self.staleness.values())) if self.pushed_bytes else None

    @property
    def waiting_share(self) -> float | None:
        """Mean over all workers of all machines; None: not known."""
        if self.machines:
            return _mean((machine.waiting, max(1, machine.workers)) for machine in self.machines)
        return sum(self.waiting) / len(self.waiting) if self.waiting else None

    @property
    def staleness_mean(self) -> float:
        """Of all pushes, in updates."""
        return sum(age * count for age, count in self.staleness.items()) / max(1, sum(self.staleness.values()))

    @property
    def last(self) -> Point | None:
        """The validation at the end."""
        return self.points[-1] if self.points else None

    def write(self, path: Path) -> None:
        """Writes the file, never seen half written."""
        # The setting stays exact: a study finds its finished settings again by it.
        values = {"format": FORMAT, **_rounded(asdict(self)), "setting": asdict(self.setting)}
        write_whole(path, json.dumps(values, separators=(",", ":")))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The result in ``path``.

        Raises:
            UserError: it is not a result.
        """
        try:
            values = read_object(path)
            written = values.pop("format", None)
            if written not in (1, FORMAT):
                raise ValueError("a format that this version does not know")
            if written == 1 and "processor_seconds" in values:
                values["wall_seconds"] = values.pop("processor_seconds")
            return as_dataclass(cls, values)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{path} cannot be read as the result of a setting ({error}).") from None


def _rounded(value: Any) -> Any:
    """Six digits are more than any figure here is good for; JSON has no tuples."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
