"""What ``train --dry-run`` says of a run: sizes, memory, batches and updates."""

from __future__ import annotations

import json
from pathlib import Path

from nmt_async.model.parameters import FlatLayout
from nmt_async.model.translation_model import TranslationModel
from nmt_async.sync.rules import Rule
from nmt_async.text.plan import BatchPlan
from nmt_async.text.prepared import PreparedData
from nmt_async.training.activation_memory import activation_bytes, longest_batches, longest_of
from nmt_async.training.batch_memory import without_auto
from nmt_async.training.expectation import Expectation, expected, expected_lines
from nmt_async.training.initial_model import initial_model
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import (
    arithmetic_of,
    checked_configuration,
    training_plan,
    within_memory,
)
from nmt_async.training.stated_memory import bytes_by_device, vectors_of


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
    arithmetic = arithmetic_of(options)
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
    options = without_auto(options, data, found.append)
    configuration = checked_configuration(options, data)
    with within_memory():
        model = initial_model(options, configuration, data)
        layout = FlatLayout(model)
    plan = training_plan(options, data)
    devices, rule = options.device_list(), options.rule()
    why = f" ({options.devices_reason()})" if options.devices is None else ""
    updates, epoch, pairs = expected(options, plan), len(plan.epoch(1)), len(plan.source_lengths)
    need = vectors_of(options, layout, data.valid is not None)
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
        **need.rows(layout.size, bytes_by_device(need, options, layout)),
        "memory, activations": _activations(options, model, plan, data),
    }
    width = max(map(len, rows))
    table = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join([*found, *table, *expected_lines(options, plan)])
