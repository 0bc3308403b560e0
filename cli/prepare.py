"""``nmt-async prepare``: raw parallel text to a folder that ``train`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from nmt_async.progress import progress_for
from nmt_async.text.options import PrepareOptions

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.text.prepared import PreparedData

OPTIONS = PrepareOptions
EXAMPLE = "nmt-async prepare --train-source train.en --train-target train.de --out data"


def run(options: PrepareOptions, common: CommonOptions) -> None:
    """Clean parallel text, learn a vocabulary, and write a folder of tokens for train."""
    from nmt_async.text.preparation import prepare

    data = prepare(options, progress_for(common.quiet))
    if not common.quiet:
        Console().print(_summary(data))


def _summary(data: PreparedData) -> Table:
    """What was read, removed and kept, one column a split."""
    splits = data.manifest["splits"]
    table = Table(box=box.SIMPLE_HEAD, title=str(data.folder), title_justify="left")
    table.add_column("sentence pairs")
    for split in splits:
        table.add_column(split, justify="right")

    def row(label: str, values: list[str]) -> None:
        table.add_row(label, *values)

    row("read", [f"{split['read']:,}" for split in splits.values()])
    for reason, count in splits["train"]["removed"].items():
        if count:
            row(f"- {reason.replace('_', ' ')}", [f"{count:,}"])
    row("kept", [f"{split['kept']:,}" for split in splits.values()])
    for side in ("source", "target"):
        row(f"{side} tokens", [f"{split[side]['tokens']:,}" for split in splits.values()])
        row(f"{side} unknown", [f"{split[side]['unknown'] / split[side]['tokens']:.3%}" for split in splits.values()])
    size = data.manifest["vocabulary"]
    joint = "joint vocabulary" if data.joint else "vocabularies"
    row(joint, [f"{size['source']:,}" if data.joint else f"{size['source']:,} + {size['target']:,}"])
    return table
