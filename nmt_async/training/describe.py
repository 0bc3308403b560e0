"""What a run would do, for ``--dry-run``."""

from __future__ import annotations

import json
from pathlib import Path

from nmt_async.model.build import build_model
from nmt_async.model.flat import FlatLayout
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions
from nmt_async.training.parts import model_configuration, training_plan, within_memory


def describe(options: TrainOptions, data_folder: Path) -> str:
    """What `train` would do: sizes, memory and batches an epoch, in a few lines."""
    data = PreparedData.open(data_folder)
    configuration = model_configuration(options, data)
    with within_memory():
        layout = FlatLayout(build_model(configuration))
    plan = training_plan(options, data)
    devices, rule = options.device_list(), options.rule()
    epoch, pairs = plan.epoch(1), len(plan.source_lengths)
    tokens = int(plan.target_lengths.sum())
    vectors = 2 * len(devices) + 1 + 3 + bool(options.exponential_smoothing) + (data.valid is not None)
    rows = {
        "model": f"{layout.parameters:,} parameters ({json.dumps(configuration.as_mapping())})",
        "training pairs": f"{pairs:,} of {len(data.train):,} (the others are longer than {options.max_length})",
        "target tokens an epoch": f"{tokens:,}",
        "batches an epoch": f"{len(epoch):,} of {tokens / len(epoch):,.0f} target tokens on average",
        "updates an epoch": f"{len(epoch) / rule.pushes:,.0f} of {rule.pushes} pushes each",
        "effective batch": f"{rule.pushes * tokens / len(epoch):,.0f} target tokens",
        "workers": f"{len(devices)} on {', '.join(dict.fromkeys(devices))}, {options.threads()} threads each",
        "shared memory": f"{vectors * 4 * layout.size / 2**20:,.0f} MiB for parameters, gradients and optimizer",
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
