"""What a run would do, for ``--dry-run``."""

from __future__ import annotations

import json
from pathlib import Path

from nmt_async.model.parameters import FlatLayout
from nmt_async.text.prepared import PreparedData
from nmt_async.training.initial import initial_model
from nmt_async.training.memory import vectors
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import expected, expected_lines, model_configuration, training_plan, within_memory


def describe(options: TrainOptions, data_folder: Path) -> str:
    """What `train` would do: sizes, memory and batches an epoch, in a few lines."""
    data = PreparedData.open(data_folder)
    configuration = model_configuration(options, data)
    with within_memory():
        layout = FlatLayout(initial_model(options, configuration, data))
    plan = training_plan(options, data)
    devices, rule = options.device_list(), options.rule()
    updates, epoch, pairs = expected(options, plan), len(plan.epoch(1)), len(plan.source_lengths)
    need = vectors(
        rule, len(devices), average=bool(options.exponential_smoothing), validation=data.valid is not None,
        simulated=options.cluster == "simulated", push_batches=options.local_accumulate,
    )  # fmt: skip
    rows = {
        "model": f"{layout.parameters:,} parameters ({json.dumps(configuration.as_mapping())})",
        "training pairs": f"{pairs:,} of {len(data.train):,} (the others are longer than {options.max_length})",
        "target tokens an epoch": f"{updates.epoch_tokens:,}",
        "batches an epoch": f"{epoch:,} of {updates.push_tokens:,.0f} target tokens on average",
        "updates an epoch": f"{epoch / rule.pushes:,.0f} of {rule.pushes} pushes each",
        "effective batch": f"{updates.effective_batch:,.0f} target tokens",
        "workers": f"{len(devices)} on {', '.join(dict.fromkeys(devices))}, {options.threads()} threads each",
        **({"devices": found} if (found := options.devices_found()) else {}),
        **need.rows(layout.size),
    }
    width = max(map(len, rows))
    table = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    return "\n".join([*table, *expected_lines(options, plan)])
