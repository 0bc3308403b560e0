"""What to expect of a run, known before it starts: what an update is, how much memory it takes, and ``--dry-run``.

Pure functions of the rule, the workers and the lengths in the batch plan; the figures that a run then measures are
``effective_batch`` and ``staleness_mean`` in its ``metrics.jsonl``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from nmt_async.formatting import about
from nmt_async.model.kernels import Arithmetic, kernels_for
from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.quantity import Quantity
from nmt_async.sync.between.ways import SYNC, Way
from nmt_async.sync.compression.message import slot_bytes
from nmt_async.sync.compression.settings import WHOLE, PushSettings
from nmt_async.sync.corrections.settings import NONE, CorrectionSettings
from nmt_async.sync.optimizers.flat import OptimizerMemory, memory_of
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.rules import Rule
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.activation_memory import activation_bytes, longest_batches, longest_of
from nmt_async.training.initial_model import initial_model
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import (
    buffers_needed,
    check_precision,
    hidden_matrices,
    model_configuration,
    training_plan,
    within_memory,
)
from nmt_async.training.worker_count import with_measured_workers

TRANSLATED = ("updates", "tokens", "epochs")
"""Units that go by at a constant ratio; how many hours an update takes is not known before."""


@dataclass(frozen=True)
class Expectation:
    """Means over an epoch.

    Attributes:
        pushes: summed into one update, at first.
        push_batches: batches that a worker sums before each push.
        push_tokens: target tokens in a push.
        epoch_tokens: target tokens in an epoch.
        staleness: of a push, in updates.
        at_most: ``staleness`` is the most to expect.
        most_pushes: summed into one update, in the end; 0: as at first.
        or_more: updates that wait for old pushes sum what comes meanwhile, too.
        machines: each of which sums so many pushes.
        fewer: a machine may sum fewer, since it contributes what it has when another one is ready.
        own_updates: that each machine makes between two exchanges of the same parameters; 0: none of its own.
        fragments: of the parameters, that are exchanged one after another.
    """

    pushes: int
    push_batches: int
    push_tokens: float
    epoch_tokens: int
    staleness: float
    at_most: bool = False
    most_pushes: int = 0
    or_more: bool = False
    machines: int = 1
    fewer: bool = False
    own_updates: int = 0
    fragments: int = 1

    @property
    def grows(self) -> bool:
        """Whether updates sum more and more pushes."""
        return self.most_pushes > self.pushes

    @property
    def effective_batch(self) -> float:
        """Target tokens in one update, at first; where machines make updates of their own, in one of these."""
        return (1 if self.own_updates else self.machines) * self.pushes * self.push_tokens

    @property
    def largest_batch(self) -> float:
        """Target tokens in one update, in the end."""
        return (1 if self.own_updates else self.machines) * max(self.pushes, self.most_pushes) * self.push_tokens

    def amount(self, quantity: Quantity, unit: str) -> float:
        """``quantity`` in another unit, both of `TRANSLATED`."""
        update = self.machines * self.pushes * self.push_tokens  # machines make those of their own at the same time
        tokens = {"updates": update, "tokens": 1.0, "epochs": float(self.epoch_tokens)}
        return quantity.amount * tokens[quantity.unit] / tokens[unit]

    def update_text(self) -> str:
        """What one update is, in one sentence."""
        summed = f" (sums of {self.push_batches} batches)" if self.push_batches > 1 else ""
        push = f"about {about(self.push_tokens)} target tokens{summed}"
        if self.own_updates:
            text = (
                f"each of {self.machines} machines makes {self.own_updates:,} updates of its own of {self.pushes:,} "
                f"push{'es' * (self.pushes > 1)} of {push}, then all become one by an outer step{self._parts_text()}"
            )
        elif self.machines > 1:
            text = self._shared_text(push)
        elif self.grows:
            text = (
                f"an update sums {self.pushes:,} to {self.most_pushes:,} pushes of {push}, more as the loss falls: "
                f"effective batch about {about(self.effective_batch)} to {about(self.largest_batch)}"
            )
        elif self.or_more:
            pushes = f"{self.pushes:,} push{'' if self.pushes == 1 else 'es'}"
            text = (
                f"an update sums {pushes} of {push}, and more where it waits for old ones: effective batch about "
                f"{about(self.effective_batch)} or more"
            )
        elif self.pushes == 1:
            text = f"each push of {push} is an update"
        else:
            text = (
                f"an update sums {self.pushes:,} pushes of {push}: effective batch about {about(self.effective_batch)}"
            )
        return f"{text}; staleness {self.staleness_text()}."

    def _parts_text(self) -> str:
        each = self.own_updates // self.fragments
        every = "each update" if each == 1 else f"every {each:,} updates"
        return "" if self.fragments == 1 else f", one of {self.fragments} parts of the parameters after {every}"

    def _shared_text(self, push: str) -> str:
        pushes = f"{self.pushes:,} push{'es' * (max(self.pushes, self.most_pushes) > 1)}"
        if self.grows:
            pushes = f"{self.pushes:,} to {self.most_pushes:,} pushes"
        batch = about(self.effective_batch)
        if self.grows:
            batch = f"{batch} to {about(self.largest_batch)}"
        bound = f"{' or fewer' * self.fewer}{' or more' * self.or_more}"
        machines = f"each of {self.machines} machines"
        return f"an update sums {pushes}{bound} of {push} from {machines}: effective batch about {batch}"

    def staleness_text(self) -> str:
        """``none``, ``about 0.75`` or ``at most about 0.75``."""
        if not self.staleness:
            return "none"
        return f"{'at most ' if self.at_most else ''}about {about(self.staleness)}"

    def amounts_text(self, amounts: dict[str, Quantity | None]) -> str:
        """The amounts, by the option that gives each, in the other units; empty if none can be translated."""
        units = [unit for unit in TRANSLATED if unit != "updates" or not self.grows]
        parts = []
        for flag, quantity in amounts.items():
            if quantity is None or not quantity.amount or quantity.unit not in units:
                continue
            others = [counted(self.amount(quantity, unit), unit) for unit in units if unit != quantity.unit]
            parts.append(f"{flag} {str(quantity).removesuffix('u')} is about {' or '.join(others)}")
        return f"{'; '.join(parts)}." if parts else ""


def expectation(
    rule: Rule, workers: int, epoch_tokens: int, epoch_pushes: int, push_batches: int = 1, machines: int = 1,
    way: Way = SYNC,
) -> Expectation:  # fmt: skip
    """What to expect of ``workers`` that are never idle unless the rule lets them wait.

    Args:
        rule: when pushes become an update.
        epoch_tokens: target tokens in an epoch.
        epoch_pushes: pushes that the epoch makes.
        push_batches: batches that a worker sums before each push.
        machines: that train together, each with so many workers.
        way: how they exchange.
    """
    mean = epoch_tokens / epoch_pushes
    staleness, most = rule.staleness(workers), rule.most_pushes
    late = way.late if machines > 1 else 0
    return Expectation(
        rule.pushes, push_batches, mean, epoch_tokens, staleness + late, rule.keeps_young or late > 0, most,
        rule.sums_more, machines, machines > 1 and way.joins,
    )  # fmt: skip


def counted(amount: float, unit: str) -> str:
    """``75 updates``, ``1 epoch``, ``3,000,000 target tokens``."""
    text = about(max(amount, 1.0) if unit == "updates" else amount)
    noun = {"updates": "update", "tokens": "target token", "epochs": "epoch"}[unit]
    return f"{text} {noun if text == '1' else noun + 's'}"


def expected(options: TrainOptions, plan: BatchPlan) -> Expectation:
    """What to expect of the updates of a run."""
    workers, machines = len(options.device_list()), options.nodes or 1
    found = expected_of(options.rule(), workers, options.local_accumulate, plan, machines, options.way())
    outer = options.outer()
    if outer is None or machines == 1:
        return found
    return replace(found, own_updates=outer.updates, fragments=outer.fragments)


def expected_of(
    rule: Rule, workers: int, push_batches: int, plan: BatchPlan, machines: int = 1, way: Way = SYNC
) -> Expectation:
    """What to expect of updates by a rule, from so many workers of each machine."""
    tokens, pushes = plan.epoch_tokens, len(plan.epoch(1))
    return expectation(rule, workers, tokens, pushes, push_batches, machines, way)


def expected_lines(options: TrainOptions, plan: BatchPlan) -> list[str]:
    """The same in words, and what the schedule's amounts are in other units."""
    updates = expected(options, plan)
    amounts: dict[str, Quantity | None] = {"--lr-warmup": options.lr_warmup}
    if options.lr_decay in ("linear", "cosine"):
        amounts["--lr-decay-end"] = options.lr_decay_end
    if options.lr_decay == "inv-sqrt":
        amounts["--lr-decay-start"] = options.lr_decay_start
    lines = [
        updates.update_text(),
        step_text(options, updates.staleness),
        updates.amounts_text(amounts | {"--stop-after": options.stop_after}),
    ]
    return [line for line in lines if line]


def step_text(options: TrainOptions, staleness: float) -> str:
    """What makes a step of an update's gradient, and which parameters the gradient is of.

    Args:
        staleness: of a push, as it is to be expected on average.
    """
    ahead = options.corrections().updates_ahead(staleness)
    computed = f"; workers compute on parameters predicted {ahead:g} update{'s' * (ahead != 1)} ahead"
    if (quantization := options.quantization()) is not None:
        computed = f"{computed}, quantised" if ahead else "; workers compute on quantised parameters"
        computed += f" ({quantization})"
    return f"optimizer {options.settings().name}{computed if ahead or quantization else ''}."


VECTOR_BYTES = 4
"""Of one element: parameters, moments and residuals are float32."""


@dataclass(frozen=True)
class Vectors:
    """How many vectors there are at most, by what they hold.

    Attributes:
        buffers: versions of the parameters that workers read.
        slots: gradients on their way to the server, one a worker.
        validation: the copy that is validated.
        sum: what is accumulated.
        held: gradients that arrived before those of earlier batches, in sync.
        moments: what the optimizer remembers.
        working: what it needs to make an update.
        average: the moving average of the parameters.
        corrections: what is remembered because gradients are stale.
        gradients: in each process that computes them: torch's own, their sum where a push sums several batches, and
            the parameters where it changes those on which it computes, with a local optimizer a batch's gradient and
            what the optimizer remembers.
        shared: whether ``buffers``, ``slots``, ``validation`` and ``residuals`` are memory that several processes
            share.
        slot: how large a slot is, and a push that is held; 1: as large as a vector.
        residuals: what pushes left behind, two a worker where they do.
        remembered: what ``moments`` are, in words.
        exchanged: what is on its way to other machines, and what an outer step remembers.
    """

    buffers: int
    slots: int
    validation: int
    sum: int
    held: int
    moments: float
    working: float
    average: int
    corrections: int
    gradients: float
    shared: bool
    remembered: str
    slot: float = 1.0
    residuals: int = 0
    exchanged: int = 0

    @property
    def _common(self) -> float:
        """What processes share, if there are several."""
        return self.buffers + self.slots * self.slot + self.validation + self.residuals

    @property
    def between_processes(self) -> float:
        """In the shared part."""
        return self._common if self.shared else 0.0

    @property
    def _state(self) -> float:
        """Besides the parameters."""
        return self.sum + self.held * self.slot + self.moments + self.average + self.corrections

    @property
    def server(self) -> float:
        """Of the process that makes the updates alone."""
        return self._state + self.working + self.exchanged + (0.0 if self.shared else self._common)

    @property
    def checkpoint(self) -> float:
        """More, from the first checkpoint on: copies of the state, and of the parameters that translate.

        Of a worker's two residuals the one that counts, and in one process that of the push under way, too.
        """
        residuals = self.residuals // 2 if self.shared else self.residuals
        slots = 0.0 if self.shared else self.slots * self.slot
        return 2 + self._state + slots + residuals

    @property
    def device(self) -> float:
        """Of what processes share and of the server, what lies where the server computes: all but the validated copy,
        which is the CPU's."""
        return self.between_processes + self.server - (self.validation if self.shared else 0)

    def rows(self, size: int, device: str = "cpu") -> dict[str, str]:
        """What ``--dry-run`` says of it, for vectors of ``size``.

        Args:
            device: where the server computes.
        """
        mebibytes = VECTOR_BYTES * size / 2**20
        buffers, slots = _counted(self.buffers, "parameter buffer"), _counted(self.slots, "gradient slot")
        validation = "the copy under validation" if self.validation else ""
        own = [
            "the sum of pushes",
            self.remembered,
            "room to make an update" if self.working else "",
            "the moving average" if self.average else "",
            "what corrects stale gradients" if self.corrections else "",
            "what is exchanged with other machines" if self.exchanged else "",
            f"up to {_counted(self.held, 'push', 'pushes')} before their turn" if self.held else "",
        ]
        residuals = f"{self.residuals:,} residuals" if self.residuals else ""
        common = [f"{buffers} and {slots}", residuals, validation]
        rows = {}
        if self.shared:
            there = "" if device == "cpu" else f" on {device}"
            between = self.between_processes
            if there and self.validation:  # it is scored on the CPU
                common, between = common[:-1], between - self.validation
                rows["memory, CPU"] = f"{mebibytes * self.validation:,.0f} MiB: {validation}"
            rows["memory, shared"] = f"{mebibytes * between:,.0f} MiB{there}: {_listed(common)}"
            rows["memory, server"] = f"{mebibytes * self.server:,.0f} MiB{there}: {_listed(own)}"
            where = "each worker"
        else:
            rows["memory"] = f"{mebibytes * self.server:,.0f} MiB in one process: {_listed([*common, *own])}"
            where = "it"
        rows["memory, besides"] = (
            f"{mebibytes * self.gradients:,.0f} MiB in {where} for gradients under way; "
            f"{mebibytes * self.checkpoint:,.0f} MiB from the first checkpoint on"
        )
        return rows


def optimizer_memory(options: TrainOptions, layout: FlatLayout) -> OptimizerMemory:
    """What the optimizer of a run will need."""
    nothing = torch.empty(layout.size, device="meta")
    return memory_of(nothing, options.settings(), hidden_matrices(layout))


def vectors(
    rule: Rule,
    workers: int,
    optimizer: OptimizerMemory,
    *,
    average: bool,
    validation: bool,
    simulated: bool,
    push_batches: int = 1,
    push: PushSettings = WHOLE,
    corrections: CorrectionSettings = NONE,
) -> Vectors:
    """Those of a run with ``workers``.

    Args:
        rule: when pushes become an update.
        optimizer: what it needs.
        average: whether there is a moving average.
        validation: whether there is a validation set.
        simulated: one process computes for all workers.
        push_batches: batches that a worker sums before each push.
        push: how a push is made of a gradient.
        corrections: of stale gradients.
    """
    return Vectors(
        buffers=buffers_needed(corrections, workers, simulated),
        slots=workers,
        validation=int(validation),
        sum=1,
        held=rule.held(workers),
        moments=optimizer.remembered,
        working=optimizer.working,
        average=int(average),
        gradients=1 + (push_batches > 1) + push.own_copy + _of_local(push.local_optimizer),
        corrections=corrections.vectors(workers, rule.pushes, rule.staleness(workers)),
        shared=not simulated,
        remembered=optimizer.words,
        slot=slot_bytes(push) / VECTOR_BYTES,
        residuals=2 * workers if push.compressed else 0,
    )


def _of_local(optimizer: OptimizerSettings | None) -> float:
    """Vectors of a worker's own optimizer, with that of the gradient by which it steps."""
    if optimizer is None:
        return 0.0
    need = memory_of(torch.empty(1, device="meta"), optimizer)
    return 1.0 + need.remembered + need.working


def _counted(count: int, noun: str, nouns: str = "") -> str:
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _listed(parts: list[str]) -> str:
    return ", ".join(part for part in parts if part)


def _in_the_end(updates: Expectation, epoch: int) -> dict[str, str]:
    """Rows of ``--dry-run`` where updates sum more and more of the ``epoch``'s pushes."""
    most = f"{epoch / updates.most_pushes:,.0f} an epoch, of {updates.most_pushes} pushes each"
    return {"updates in the end": f"{most}: {updates.largest_batch:,.0f} target tokens"}


def _corpora(plan: BatchPlan, data: PreparedData) -> dict[str, str]:
    """The row of ``--dry-run`` that says what an epoch takes of each corpus, where corpora are mixed by weights."""
    if plan.mixture is None or data.corpora is None:
        return {}
    parts = zip(data.corpora.names, plan.mixture.quotas, plan.mixture.sizes, strict=True)
    return {"pairs an epoch": ", ".join(f"{name} {float(quota):,.1f} of {size:,}" for name, quota, size in parts)}


def _pushes(rule: Rule, machines: int) -> str:
    return f"{rule.pushes} pushes each" + (f" from each of {machines} machines" if machines > 1 else "")


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _activations(options: TrainOptions, model: TranslationModel, plan: BatchPlan, data: PreparedData) -> str:
    """What the largest batch of an epoch takes in a worker."""
    device = torch.device(options.device_list()[0])
    arithmetic = Arithmetic(kernels_for(device, options.computed_with()), options.precision)
    sizes = longest_of(longest_batches(plan.epoch(1), data.train), data.train)
    need, (rows, (source, target)) = max(
        (activation_bytes(model.train(), arithmetic, rows, lengths), (rows, lengths)) for rows, lengths in sizes
    )
    each = "it" if options.cluster == "simulated" else "each worker"
    return f"about {need / 2**20:,.0f} MiB in {each} for {rows:,} pairs of up to {source} and {target} subwords"


def describe(options: TrainOptions, data_folder: Path) -> str:
    """What `train` would do: sizes, memory and batches an epoch, in a few lines."""
    data = PreparedData.open(data_folder)
    found: list[str] = []
    options = with_measured_workers(options, data, found.append)
    configuration = model_configuration(options, data)
    check_precision(options, configuration)
    with within_memory():
        model = initial_model(options, configuration, data)
        layout = FlatLayout(model)
    plan = training_plan(options, data)
    devices, rule = options.device_list(), options.rule()
    why = f" ({options.devices_reason()})" if options.devices is None else ""
    updates, epoch, pairs = expected(options, plan), len(plan.epoch(1)), len(plan.source_lengths)
    optimizer = optimizer_memory(options, layout)
    need = vectors(
        rule, len(devices), optimizer, average=bool(options.exponential_smoothing),
        validation=data.valid is not None, simulated=options.cluster == "simulated",
        push_batches=options.local_accumulate, corrections=options.corrections(),
        push=options.push_settings(),
    )  # fmt: skip
    if options.machines > 1:
        outer = options.outer()
        need = replace(need, exchanged=1 if outer is None else 2 + (outer.momentum > 0))
    rows = {
        "model": f"{layout.parameters:,} parameters ({json.dumps(configuration.as_mapping())})",
        "training pairs": f"{pairs:,} of {len(data.train):,} (the others are longer than {options.max_length})",
        **_corpora(plan, data),
        "target tokens an epoch": f"{updates.epoch_tokens:,}",
        "batches an epoch": f"{epoch:,} of {updates.push_tokens:,.0f} target tokens on average",
        "updates an epoch": f"{epoch / rule.pushes / options.machines:,.0f} of {_pushes(rule, options.machines)}",
        "effective batch": f"{updates.effective_batch:,.0f} target tokens",
        **(_in_the_end(updates, epoch) if updates.grows else {}),
        "workers": f"{len(devices)} on {', '.join(dict.fromkeys(devices))}{why}, {_threads(options.threads())} each",
        **need.rows(layout.size, devices[0]),
        "memory, activations": _activations(options, model, plan, data),
    }
    width = max(map(len, rows))
    table = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join([*found, *table, *expected_lines(options, plan)])
