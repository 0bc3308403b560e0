"""``nmt-async prepare``: raw parallel text to a folder that ``train`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nmt_async.progress import progress_for
from nmt_async.text.options import PrepareOptions

from .declare import CommonOptions

if TYPE_CHECKING:
    from nmt_async.text.corpora import PreparedCorpora
    from nmt_async.text.prepared import PreparedData

OPTIONS = PrepareOptions
EXAMPLE = "nmt-async prepare --train-source train.en --train-target train.de --out data"


def run(options: PrepareOptions, common: CommonOptions) -> None:
    """Clean parallel text, learn a vocabulary, and write a folder of tokens for train."""
    from nmt_async.text.preparation import prepare

    data = prepare(options, progress_for(common.quiet))
    if not common.quiet:
        Console().print(_summary(data))
        if data.corpora is not None:
            Console().print(_corpora(data.corpora))


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


def _corpora(corpora: PreparedCorpora) -> Table:
    """What each corpus has, a line each."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("corpus")
    for name in ("pairs", "source tokens", "target tokens", "validation pairs"):
        table.add_column(name, justify="right")
    for name in ("tag", "weight"):
        table.add_column(name)
    by_size = "" if corpora.temperature is None else f"by size, temperature {corpora.temperature:g}"
    for each in corpora.corpora:
        counts = (each.pairs, each.source_tokens, each.target_tokens, each.valid_pairs)
        weight = by_size if each.weight is None else f"{each.weight:g}"
        table.add_row(escape(each.name), *(f"{count:,}" for count in counts), escape(each.tag), weight)
    return table
