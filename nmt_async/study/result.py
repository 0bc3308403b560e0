"""What came out of a setting: a small file of numbers, from which reports and verdicts are made.

The run's folder may be gone by then; the result says with which command and where it was made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from nmt_async.errors import UserError
from nmt_async.options import value_type
from nmt_async.study.setting import Setting
from nmt_async.writing import write_whole

FORMAT = 1


@dataclass(frozen=True)
class Point:
    """One validation. Seconds are the cluster's: virtual ones in a simulated cluster.

    Attributes:
        update, tokens, seconds, epochs: of training, when the version was made; ``tokens`` counts target tokens.
        cross_entropy: per target token of the validation set, nats.
        bleu, chrf: of its translations, None where not translated.
        resampled: the cross-entropy on each of `nmt_async.study.resampling.DRAWS` bootstrap draws of the validation
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
class Stretch:
    """A stretch of training that ends at an update; fields as in `nmt_async.report.records.TrainReport`."""

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
class Result:
    """A finished setting.

    Attributes:
        setting: which.
        command: that makes its run.
        folder: where the run was, relative to the study's folder.
        data: fingerprint of the prepared data.
        cluster: ``processes`` or ``simulated``.
        profile: of the simulated cluster, else empty.
        workers: how many.
        parameters: of the model.
        environment: torch, machine, processor, version of nmt-async.
        updates, tokens, seconds: at the end; seconds of the cluster's clock.
        processor_seconds: that the run took of this machine (wall clock of its process), all sittings.
        effective_batch: target tokens in an update, mean of the run.
        tokens_per_second: target tokens by the cluster's clock, mean of the run.
        staleness: pushes by staleness, of the whole run.
        waiting: of each worker, the share of its time that it waited, of the whole run.
        points: validations, oldest first.
        stretches: of training, oldest first.
        diverged: why the run could not go on, empty if it reached its end.
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
    processor_seconds: float
    effective_batch: float
    tokens_per_second: float
    staleness: Mapping[int, int]
    waiting: tuple[float, ...]
    points: tuple[Point, ...]
    stretches: tuple[Stretch, ...] = field(default=())
    diverged: str = ""

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
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("a format that this version does not know")
            return _made(cls, values)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as the result of a setting ({error}).") from None


T = TypeVar("T")


def _made(kind: type[T], values: Any) -> T:
    """A dataclass from what JSON made of it; a TypeError or ValueError if it was made of something else."""
    if not isinstance(values, dict):
        raise TypeError(f"{kind.__name__} is not a mapping")
    hints = get_type_hints(kind)
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise TypeError(f"{unknown[0]!r} is not known")
    return kind(**{name: _typed(hints[name], value, name) for name, value in values.items()})


def _typed(hint: Any, value: Any, name: str) -> Any:
    kind, optional = value_type(hint)
    if value is None and optional:
        return None
    if isinstance(kind, type) and is_dataclass(kind):
        return _made(kind, value)
    origin = get_origin(kind) or kind
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(get_args(kind)[0], item, name) for item in value)
    if origin is Mapping and isinstance(value, dict):
        key, item = get_args(kind)
        return {key(each): value[each] if item is Any else _typed(item, value[each], name) for each in value}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str) and type(value) is kind:
        return value
    raise TypeError(f"{name} cannot be {str(value)[:40]!r}")


def _rounded(value: Any) -> Any:
    """Six digits are more than any figure here is good for; JSON has no tuples."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
