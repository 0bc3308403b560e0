"""What a run reports: its title, one record for each stretch of training and one for each validation.

A run that machines share also reports, at its start, which machines these are. The same record becomes an object in
``metrics.jsonl``, a line of ``train.log`` in Marian's form, and what the console shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from nmt_async.formatting import short_count
from nmt_async.quantity import Quantity
from nmt_async.reading import as_dataclass


@dataclass(frozen=True)
class MachinesReport:
    """The machines that share a run from an update on.

    Attributes:
        update: after which they went on.
        here: the rank of the one that writes this.
        names: of all, for people, by rank.
        workers: that each of them has.
    """

    update: int
    here: int
    names: list[str]
    workers: list[int]

    def as_mapping(self) -> dict[str, Any]:
        """The object for ``metrics.jsonl``."""
        return {"kind": "machines", **asdict(self)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The report of which `as_mapping` made ``values``; raises as `TrainReport.from_mapping` does."""
        report = as_dataclass(cls, values, others=True)
        if len(report.names) != len(report.workers) or not 0 <= report.here < len(report.names):
            raise ValueError("it does not name each machine")
        if not all(0 < workers < MOST_STALE for workers in report.workers) or report.update < 0:
            raise ValueError("no machine has so many workers")
        return report

    def name(self, rank: int) -> str:
        """Of a machine; by its rank where this does not know it."""
        return self.names[rank] if rank < len(self.names) else f"machine {rank}"


@dataclass(frozen=True)
class RunTitle:
    """What a run is, known when it begins.

    Attributes:
        name: of its folder.
        mode: of updates, as ``--sync-mode`` names it.
        pushes: summed into one update, of all workers together; at first, where their number grows.
        devices: one for each worker.
        preset: of the model, with its name where it is no Transformer.
        parameters: how many the model has; None: unknown.
        stop_after: the set end, None if there is none.
        seconds: of training in earlier sittings of the run.
        devices_reason: why these devices, where nobody named them.
        most_pushes: summed into one update in the end, where their number grows.
        machines: that share the run; None: it is of one machine alone.
    """

    name: str
    mode: str
    pushes: int
    devices: tuple[str, ...]
    preset: str
    parameters: int | None = None
    stop_after: Quantity | None = None
    seconds: float = 0.0
    devices_reason: str = ""
    most_pushes: int = 0
    machines: MachinesReport | None = None

    def rule(self) -> str:
        """How gradients become updates: ``hybrid, 2 pushes an update``; of several machines: ``2 pushes a machine``."""
        if self.machines is not None and len(self.machines.names) > 1:
            most = f" to {self.most_pushes:,}" if self.most_pushes > self.pushes else ""
            count = f"{self.pushes:,}{most} push{'' if self.pushes == 1 and not most else 'es'}"
            return f"{self.mode}, {count} a machine"
        if self.most_pushes > self.pushes:
            return f"{self.mode}, {self.pushes:,} to {self.most_pushes:,} pushes an update"
        return f"{self.mode}, {'each push' if self.pushes == 1 else f'{self.pushes:,} pushes'} an update"

    def workers(self) -> str:
        """Who computes: ``2 workers on cpu (no GPU found)``."""
        count = len(self.devices)
        if self.machines is not None and len(self.machines.names) > 1:
            machines, count = self.machines, len(self.machines.names)
            workers = f"{sum(machines.workers)} workers"
            if machines.here:
                return f"{machines.names[machines.here]} of {count} with {workers}"
            return f"{workers} on {count} machines"
        why = f" ({self.devices_reason})" if self.devices_reason else ""
        return f"{count} worker{'' if count == 1 else 's'} on {', '.join(dict.fromkeys(self.devices))}{why}"

    def end(self) -> str:
        """The set end as one types it, ``20k`` or ``1Gt``; empty if there is none."""
        return "" if self.stop_after is None else str(self.stop_after).removesuffix("u")

    def model(self) -> str:
        """What is trained: ``small, 7.4 M parameters``."""
        return self.preset if self.parameters is None else f"{self.preset}, {short_count(self.parameters)} parameters"


def worker_places(devices: list[str], cluster: str, profile: str | None) -> tuple[str, ...]:
    """Where each worker is, as people read it: its device, or the simulated cluster with its profile."""
    if cluster != "simulated":
        return tuple(devices)
    return (f"a simulated cluster ({profile or 'paper'})",) * len(devices)


@dataclass(frozen=True)
class TrainReport:
    """A stretch of training that ends at an update.

    Attributes:
        time: seconds of training so far.
        epoch: epochs begun, from 1.
        epochs: epochs gone by, as a fraction.
        update: updates so far.
        sentences: sentence pairs of this epoch so far.
        source_tokens, target_tokens: so far, in all epochs.
        source_tokens_per_second, target_tokens_per_second: in this stretch.
        seconds: length of this stretch.
        stretch_tokens: target tokens in it.
        latest_tokens: target tokens in its last update.
        loss: training loss per target token in it, nats, with label smoothing.
        learning_rate: of its last update.
        gradient_norm: mean of its updates, before clipping.
        effective_batch: mean target tokens in an update.
        staleness_mean, staleness_max, staleness: of its pushes, in updates; the histogram counts pushes.
        waiting_share: of each worker's time, the share it waited for a task.
        set_aside: batches set aside so far.
        refused_stale, refused_not_finite: pushes of this stretch that did not count, since they were too old or not
            finite.
        stall_seconds, stall_longest: of this stretch, the seconds in which no push was taken in because the server was
            beginning a checkpoint or a validation, or writing figures: in all, and at a time.
        update_seconds: that the server needed for an update, which takes in no push meanwhile; mean of this stretch.
        reading_seconds: in which workers read the sentences of their batches, of all workers together, in this stretch.
        pushed_bytes: that crossed from workers to the server with the pushes of this stretch that counted; 0: unknown.
        machine_tokens, machine_pushes: of each machine that shares the run, by rank, the target tokens and pushes of
            this stretch that counted; empty where the run is of one machine alone, as are the two below.
        machine_waiting: of the time of its workers, the share that they waited; None: nothing was heard of it.
        machine_staleness: mean of its pushes, in updates; None: it had none.
        corpus_pairs, corpus_tokens: sentence pairs and their target tokens so far, in all epochs, by the name of their
            corpus; empty where the data are not divided into corpora.
    """

    time: float
    epoch: int
    epochs: float
    update: int
    sentences: int
    source_tokens: int
    target_tokens: int
    source_tokens_per_second: float
    target_tokens_per_second: float
    seconds: float
    stretch_tokens: int
    latest_tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    effective_batch: float
    staleness_mean: float
    staleness_max: int
    staleness: dict[int, int]
    waiting_share: list[float]
    set_aside: int
    refused_stale: int = 0
    refused_not_finite: int = 0
    stall_seconds: float = 0.0
    stall_longest: float = 0.0
    update_seconds: float = 0.0
    reading_seconds: float = 0.0
    pushed_bytes: int = 0
    machine_tokens: list[int] = field(default_factory=list)
    machine_pushes: list[int] = field(default_factory=list)
    machine_waiting: list[float | None] = field(default_factory=list)
    machine_staleness: list[float | None] = field(default_factory=list)
    corpus_pairs: dict[str, int] = field(default_factory=dict)
    corpus_tokens: dict[str, int] = field(default_factory=dict)

    def as_mapping(self) -> dict[str, Any]:
        """The object for ``metrics.jsonl``; a run of one machine, or of one corpus, has nothing of several in it."""
        values = asdict(self)
        if not self.machine_tokens:
            values = {name: value for name, value in values.items() if name not in OF_MACHINES}
        if not self.corpus_pairs:
            values = {name: value for name, value in values.items() if name not in OF_CORPORA}
        return {"kind": "train", **_rounded(values)}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The report of which `as_mapping` made ``values``.

        Raises:
            TypeError: a key is missing, or its value of another type.
            ValueError: a value that cannot be.
        """
        report = as_dataclass(cls, _named(cls, values), others=True)
        if not all(0 <= age <= MOST_STALE and count >= 0 for age, count in report.staleness.items()):
            raise ValueError("no push is so stale")
        if not all(abs(share) < MOST_SHARE for share in report.waiting_share):
            raise ValueError("no worker waits so long")
        if len({len(getattr(report, name)) for name in OF_MACHINES}) > 1:
            raise ValueError("it does not tell the same of each machine")
        if min([*report.machine_tokens, *report.machine_pushes], default=0) < 0:
            raise ValueError("no machine can do less than nothing")
        if report.corpus_pairs.keys() != report.corpus_tokens.keys():
            raise ValueError("it does not tell the same of each corpus")
        if min([*report.corpus_pairs.values(), *report.corpus_tokens.values()], default=0) < 0:
            raise ValueError("no corpus can give less than nothing")
        waits = (share for share in report.machine_waiting if share is not None)
        ages = (age for age in report.machine_staleness if age is not None)
        if not all(abs(share) < MOST_SHARE for share in waits) or not all(0 <= age <= MOST_STALE for age in ages):
            raise ValueError("no machine waits so long, and no push is so stale")
        return report

    def corpus_share(self, name: str) -> float:
        """Which share of the sentence pairs so far is that corpus's."""
        return self.corpus_pairs[name] / max(1, sum(self.corpus_pairs.values()))

    def machine_share(self, rank: int) -> float:
        """Which share of the stretch's target tokens is that machine's."""
        return self.machine_tokens[rank] / max(1, sum(self.machine_tokens))

    def machine_rate(self, rank: int) -> float:
        """Target tokens a second of that machine."""
        return self.machine_tokens[rank] / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class ValidReport:
    """Scores of one version of the parameters on the validation set.

    Attributes:
        time: seconds of training so far, when the version was made.
        epoch, update, source_tokens, target_tokens: of that version.
        cross_entropy: per target token, nats, without label smoothing.
        bleu, chrf: of its translations; None if they were not made.
        metric: the name of what decides.
        stalled: validations in a row that were no better than the best; 0: this is the best.
        best: the best value so far.
        seconds: that the validation took.
        corpus_cross_entropy: of each corpus that has validation pairs, by its name; empty where the data are not
            divided into corpora.
    """

    time: float
    epoch: int
    update: int
    source_tokens: int
    target_tokens: int
    cross_entropy: float
    bleu: float | None
    chrf: float | None
    metric: str
    stalled: int
    best: float
    seconds: float
    corpus_cross_entropy: dict[str, float] = field(default_factory=dict)

    @property
    def perplexity(self) -> float:
        """Of a target token."""
        return math.exp(min(self.cross_entropy, 700.0))

    def scores(self) -> dict[str, float]:
        """The scores there are, by their names in options and logs."""
        named = {"cross-entropy": self.cross_entropy, "perplexity": self.perplexity}
        named |= {name: value for name, value in (("bleu", self.bleu), ("chrf", self.chrf)) if value is not None}
        return named

    def as_mapping(self) -> dict[str, Any]:
        """The object for ``metrics.jsonl``; where there are no corpora, it has nothing of them."""
        values = {"kind": "valid", **_rounded(asdict(self)), "perplexity": round(self.perplexity, 4)}
        return values if self.corpus_cross_entropy else {k: v for k, v in values.items() if k != OF_VALID_CORPORA}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The report of which `as_mapping` made ``values``; raises as `TrainReport.from_mapping` does."""
        named = _named(cls, values)
        if isinstance(entropies := named.get(OF_VALID_CORPORA), dict):
            named[OF_VALID_CORPORA] = {name: math.nan if x is None else x for name, x in entropies.items()}
        return as_dataclass(cls, named, others=True)


OF_MACHINES = ("machine_tokens", "machine_pushes", "machine_waiting", "machine_staleness")
"""Figures of each machine that shares a run."""
OF_CORPORA = ("corpus_pairs", "corpus_tokens")
"""Figures of each corpus."""
OF_VALID_CORPORA = "corpus_cross_entropy"
MAY_DIVERGE = ("loss", "gradient_norm", "cross_entropy", "best")
"""Figures that are not finite in a run that diverges."""
MOST_SHARE = 1000.0
"""Of a worker's time; clocks may disagree, but not so far."""
MOST_STALE = 1_000_000
"""Updates: staleness grows with the workers, and there are never so many."""


def _named(report: type[TrainReport] | type[ValidReport], values: Mapping[str, Any]) -> dict[str, Any]:
    """The report's values; JSON has a null where a number was not finite."""
    named = dict(values)
    for each in fields(report):
        value = named.get(each.name, 0)
        if each.name in MAY_DIVERGE and value is None:
            named[each.name] = math.nan
        elif each.name not in MAY_DIVERGE and isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{each.name} is {value}")
    return named


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _round(value) for name, value in values.items()}


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, list):
        return [_round(item) for item in value]
    if isinstance(value, dict):
        return _rounded(value)
    return value
