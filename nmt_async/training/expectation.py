"""What to expect of the updates of a run, known before it starts.

Pure functions of the rule, the workers and the lengths in the batch plan; the figures that a run then measures are
``effective_batch`` and ``staleness_mean`` in its ``metrics.jsonl``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nmt_async.formatting import about
from nmt_async.quantity import Quantity
from nmt_async.sync.between.ways import SYNC, Way
from nmt_async.sync.rules import Rule
from nmt_async.text.plan import BatchPlan
from nmt_async.training.options import TrainOptions

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
