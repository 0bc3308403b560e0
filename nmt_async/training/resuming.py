"""What a run that goes on may change about its workers: their number, as long as an update stays what it was.

A rule knows whether other workers can make the same update: hybrid and asynchronous ones do not depend on how many
deliver pushes; a synchronous one sums W x N of them, and is the same with fewer workers that do more batches each.
"""

from __future__ import annotations

import dataclasses

from nmt_async.errors import UserError
from nmt_async.formatting import about
from nmt_async.sync.rules import Rule, rule_for
from nmt_async.text.plan import BatchPlan
from nmt_async.training.expectation import expected, expected_of
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import arithmetic_of


def rule_of(options: TrainOptions) -> Rule:
    """The rule of options whose counts are settled; their devices need not be here.

    Raises:
        UserError: they are not, as in a configuration that was changed by hand.
    """
    if options.workers is None or options.accumulate is None:
        problem = "its configuration does not say how many workers it had"
    else:
        try:
            return rule_for(options.sync_mode, options.workers, options.accumulate, options.waiting())
        except ValueError as error:
            problem = f"its configuration names no rule ({error})"
    raise UserError(f"--out {options.out}: {problem}; the run cannot be resumed, choose another --out.")


def with_workers(options: TrainOptions, workers: int | None, machines: int | None = None) -> TrainOptions:
    """A run's settled options with so many workers, and the same update where that can be.

    Virtual workers cannot be others: the profile describes them, and a checkpoint holds what they are at.

    Args:
        workers: of this machine; None: as many as before.
        machines: on which the run goes on; None: as many as before. Where the same update cannot be shared out among
            them, it is the nearest.
    """
    workers = options.workers if workers is None or workers < 1 else workers
    machines = machines or options.nodes
    if options.cluster != "processes" or (options.workers == workers and options.nodes == machines):
        return options
    assert workers is not None
    rule = rule_of(options)
    share = 1 if options.way().local else (options.nodes or 1) / (machines or 1)  # local: an update is one machine's
    same = rule.with_workers(workers) if share == 1 else rule.with_pushes(rule.most_pushes * share, workers)
    accumulate = options.accumulate if same is None else same.accumulate
    return dataclasses.replace(options, workers=workers, accumulate=accumulate, nodes=machines)


def check_batches(before: TrainOptions, now: TrainOptions) -> None:
    """Refuses to go on with other batches, where those of the run were fitted to the memory that its arithmetic takes.

    Args:
        before, now: settled options.

    Raises:
        UserError: they would be others.
    """
    if now.batch_memory is None or (fitted := arithmetic_of(before)) == arithmetic_of(now):
        return
    raise UserError(
        f"--out {now.out}: with --batch-memory, batches depend on what workers compute with; give "
        f"--kernels {fitted.kernels} --precision {fitted.precision} to go on with those of that run."
    )


def check_update(before: TrainOptions, now: TrainOptions, plan: BatchPlan) -> None:
    """Refuses to go on with another effective batch.

    Args:
        before: settled options of the sitting before.
        now: of this one.
        plan: of both.

    Raises:
        UserError: it is another.
    """
    if (before.nodes or 1) != (now.nodes or 1):
        before = with_workers(before, now.workers, now.nodes or 1)
    summed, would = rule_of(before).most_pushes, rule_of(now).most_pushes
    if summed == would and rule_of(before).pushes == rule_of(now).pushes:
        return
    tokens = expected(now, plan).push_tokens
    assert now.workers is not None
    same = rule_of(before).with_workers(now.workers)
    keeps = f"--workers {before.workers} (several may share a device) --accumulate {before.accumulate}"
    if same is not None:
        keeps = f"--accumulate {same.accumulate}"
    raise UserError(
        f"--out {now.out}: an update of that run sums {summed:,} pushes, about {about(summed * tokens)} target tokens; "
        f"now it would sum {would:,}, about {about(would * tokens)}, which its learning rate and what its optimizer "
        f"remembers do not fit; give {keeps} to go on with the same update, or another --out to begin anew."
    )


def change_text(before: TrainOptions, now: TrainOptions, plan: BatchPlan) -> str:
    """What the change of workers means, in one sentence; empty if there is none."""
    machines = before.nodes or 1, now.nodes or 1
    if before.workers == now.workers and machines[0] == machines[1]:
        return ""
    if machines[0] != machines[1]:
        return _change_of_machines(before, now, plan)
    was = expected_of(rule_of(before), before.workers or 1, before.local_accumulate, plan)
    will = expected(now, plan)
    batch = f"the effective batch stays about {about(will.effective_batch)} target tokens"
    text = f"going on with {counted_workers(now)} instead of {before.workers}: {batch}"
    if was.staleness == will.staleness:
        return f"{text}."
    return f"{text}, staleness becomes {will.staleness_text()} instead of {was.staleness_text()}."


def _change_of_machines(before: TrainOptions, now: TrainOptions, plan: BatchPlan) -> str:
    workers, machines = before.workers or 1, before.nodes or 1
    sharing = 1 if now.way().local else machines
    was = expected_of(rule_of(before), workers, before.local_accumulate, plan, sharing)
    batches = was.effective_batch, expected(now, plan).effective_batch
    stays = "the effective batch stays" if batches[0] == batches[1] else "the effective batch becomes"
    here = "one machine" if (now.nodes or 1) == 1 else f"{now.nodes} machines"
    return f"going on with {here} instead of {machines}: {stays} about {about(batches[1])} target tokens."


def counted_workers(options: TrainOptions) -> str:
    """``2 workers``."""
    return "1 worker" if options.workers == 1 else f"{options.workers} workers"
