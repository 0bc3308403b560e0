"""The training display as Rich draws it: a pure function of what is known and of the room there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from nmt_async.display.reports import ValidReport
from nmt_async.display.state import DisplayState
from nmt_async.formatting import NONE, clock, short_count

QUIET, TRACK = "bright_black", "grey30"
UPDATES, STALENESS, WAITING, LOSS, GOOD, BAD = "cyan", "magenta", "yellow", "green", "bold green", "bold yellow"
LEAST_WIDTH, WIDEST = 40, 120
WIDE = 74
"""Columns from which names are written out."""

MOST = {"bars": 6, "machines": 8, "validations": 8, "messages": 6}
"""Rows that a part has use for, however tall the terminal is."""


def render(state: DisplayState) -> RenderableType:
    """The screen of ``state``; it takes the width and height it is given, 40 columns at least."""
    return Screen(state)


class Screen:
    """Draws a state into the room that Rich offers."""

    def __init__(self, state: DisplayState) -> None:
        self.state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(max(options.max_width, LEAST_WIDTH), WIDEST)
        height = options.height or console.height
        rows = screen_rows(self.state, width, height - 1)
        for row in rows[: max(height - 1, 1)]:
            row.no_wrap, row.overflow = True, "crop"
            yield row


def screen_rows(state: DisplayState, width: int, height: int) -> list[Text]:
    """The rows of the screen, ``width`` columns or fewer each; about ``height`` rows where that can be."""
    head = [*_title(state, width), _progress(state, width), Text(), *_figures(state, width)]
    workers = len(state.report.waiting_share if state.report else state.title.devices if state.title else ())
    ages = max(state.report.staleness, default=0) + 1 if state.report else 1
    messages = _messages(state, width)
    sharing = len(state.report.machine_tokens) if state.report else 0
    wanted = [
        min(max(ages, workers), MOST["bars"]),
        min(len(state.validations), MOST["validations"]),
        min(len(messages), MOST["messages"]),
    ]
    titles = 2 + 2 * (sharing > 1) + 2 * bool(wanted[1]) + bool(wanted[2])
    spare = height - len(head) - titles
    machines = 0
    if sharing > 1:  # they have their rows before others have a second one
        machines = share_out(spare, [min(sharing, MOST["machines"]), *(min(1, rows) for rows in wanted)])[0]
    bars, validations, said = share_out(spare - machines, wanted)
    rows = [*head, Text(), *_bars(state, width, bars)]
    if machines:
        rows += [Text(), *_machines(state, width, machines)]
    if validations:
        rows += [Text(), *_validations(state.validations, validations, width)]
    if said:
        rows += [Text(), *messages[-said:]]
    return rows


def _spread(left: Text, right: Text, width: int) -> Text:
    """One at each edge; the left one is cut if both do not fit."""
    left.truncate(max(width - right.cell_len - 1, 0), overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _title(state: DisplayState, width: int) -> list[Text]:
    title = state.title
    if title is None:
        return [Text("nmt-async train", "bold"), Text("getting ready", QUIET)]
    name = Text.assemble((title.name, "bold"))
    rule, workers = Text(title.rule(), UPDATES), Text(title.workers(), QUIET)
    workers.truncate(max(width - rule.cell_len - 3, 0), overflow="ellipsis")
    return [_spread(name, Text(title.model(), QUIET), width), Text.assemble(rule, (" · ", QUIET), workers)]


def _progress(state: DisplayState, width: int) -> Text:
    elapsed = clock(state.elapsed)
    if state.share is None:
        end = "ended" if state.ended else "until stopped" if state.update else "the workers start"
        return _spread(Text(elapsed), Text(end, QUIET), width)
    left = (
        "ended"
        if state.ended
        else "finishing"
        if state.share >= 1
        else ""
        if state.left is None
        else f"{clock(state.left)} left"
    )
    end = f" of {state.title.end()}" if state.title and state.title.end() else ""
    right = Text.assemble((f" {state.share:4.0%}", "bold"), (end, QUIET), f"   {elapsed}")
    if left:
        right.append(f"   {left}", QUIET)
    filled, track = bar(state.share, max(width - right.cell_len, 4))
    return Text.assemble((filled, UPDATES), (track, TRACK), right)


def _figures(state: DisplayState, width: int) -> list[Text]:
    """Nine figures in three columns, and the loss."""
    report, wide = state.report, width >= WIDE
    epoch, update, tokens, rate, norm, batch, source, target, aside = [NONE] * 9
    if state.update:
        update = f"{state.update:,}"
    if report is not None:
        epoch, tokens, aside = str(report.epoch), short_count(report.target_tokens), f"{report.set_aside:,}"
        rate, norm, batch = (
            f"{report.learning_rate:.2e}",
            f"{report.gradient_norm:.3g}",
            f"{report.effective_batch:,.0f}",
        )
        source = short_count(report.source_tokens_per_second)
        target = short_count(report.target_tokens_per_second)
    columns = (
        (("epoch", epoch), ("update", update), ("tokens", tokens)),
        (("learning rate" if wide else "rate", rate), ("gradient norm" if wide else "norm", norm),
         ("effective batch" if wide else "batch", batch)),
        (("source tokens/s" if wide else "source/s", source), ("target tokens/s" if wide else "target/s", target),
         ("set aside" if wide else "aside", aside)),
    )  # fmt: skip
    gap = 4 if wide else 3
    third = (width - 2 * gap) // 3
    widths = (third, third, width - 2 * gap - 2 * third)
    rows = []
    for line in zip(*columns, strict=True):
        parts = [
            _spread(Text(label, QUIET), Text(value), room) for (label, value), room in zip(line, widths, strict=True)
        ]
        rows.append(Text(" " * gap).join(parts))
    loss = Text.assemble(("loss", QUIET), f"{report.loss:10.4f}  " if report else f"{NONE:>10}  ")
    loss.append(sparkline(state.losses, width - loss.cell_len), LOSS)
    return [*rows, loss]


def _bars(state: DisplayState, width: int, rows: int) -> list[Text]:
    """Staleness on the left, waiting on the right."""
    report, half = state.report, (width - 4) // 2
    other = width - 4 - half
    staleness = f"mean {report.staleness_mean:.2f}, max {report.staleness_max}" if report else NONE
    shares = list(report.waiting_share) if report else [0.0] * len(state.title.devices if state.title else ())
    mean = f"mean {sum(shares) / len(shares):.0%}" if report and shares else NONE
    left = [_spread(Text("staleness", "bold"), Text(staleness, QUIET), half)]
    left += _bar_rows(buckets(report.staleness, rows) if report else [], half, STALENESS)
    right = [_spread(Text("waiting for work", "bold"), Text(mean, QUIET), other)]
    right += _bar_rows(_waiting(shares, rows), other, WAITING)
    pairs = zip_longest(left[: rows + 1], right[: rows + 1], fillvalue=None)
    return [Text("    ").join((one or Text(" " * half), two or Text())) for one, two in pairs]


def _waiting(shares: list[float], rows: int) -> list[tuple[str, float]]:
    """A row for each worker, or for those that wait the most and one for the mean of the others."""
    named = [(f"worker {number}", share) for number, share in enumerate(shares)]
    if len(named) <= rows:
        return named
    by_share = sorted(named, key=lambda row: -row[1])
    first, others = by_share[: max(rows - 1, 0)], [share for _, share in by_share[max(rows - 1, 0) :]]
    return [*first, (f"{len(others)} others", sum(others) / len(others))]


def _bar_rows(named: list[tuple[str, float]], width: int, style: str) -> list[Text]:
    labels = max((len(label) for label, _ in named), default=0)
    rows = []
    for label, share in named:
        filled, track = bar(share, max(width - labels - 6, 4))
        rows.append(Text.assemble((f"{label:>{labels}} ", QUIET), (filled, style), (track, TRACK), f" {share:4.0%}"))
    return rows


def _machines(state: DisplayState, width: int, rows: int) -> list[Text]:
    """A row for each machine that shares the run; the last one for all that have no room."""
    report, known = state.report, state.title.machines if state.title else None
    assert report is not None
    ranks = range(len(report.machine_tokens))
    alone = len(ranks) if len(ranks) <= rows else rows - 1
    groups = [(f"machine {rank}" if known is None else known.name(rank), [rank]) for rank in ranks[:alone]]
    if alone < len(ranks):
        groups.append((f"{len(ranks) - alone} {'others' if alone else 'machines'}", list(ranks[alone:])))
    wide = width >= WIDE
    columns = (16, 8, 10, 11) if wide else (10, 6, 8, 6)
    heads = ("target tokens/s", "share", "waiting", "staleness") if wide else ("target/s", "share", "waits", "age")
    room = max(width - sum(columns) - wide, 4)
    table = [_cells(Text("machine", "bold"), [Text(head, QUIET) for head in heads], room, columns, wide)]
    for name, members in groups:
        share = sum(report.machine_share(rank) for rank in members)
        waiting = _mean([report.machine_waiting[rank] for rank in members])
        age = _mean([report.machine_staleness[rank] for rank in members])
        cells = (
            Text(short_count(sum(report.machine_rate(rank) for rank in members))),
            Text(f"{share:.0%}"),
            Text(NONE if waiting is None else f"{waiting:.0%}", WAITING),
            Text(NONE if age is None else f"{age:.2f}", STALENESS),
        )
        here = known is not None and known.here > 0 and known.here in members
        table.append(_cells(Text(name, UPDATES if here else ""), cells, room, columns, wide))
    return table


def _cells(name: Text, cells: Sequence[Text], room: int, widths: Sequence[int], wide: bool) -> Text:
    """A row: the name, cut where there is no room for it, and the cells flush right."""
    name.truncate(room, overflow="ellipsis", pad=True)
    row = name
    for cell, width in zip(cells, (widths[0] + wide, *widths[1:]), strict=True):
        row = Text.assemble(row, " " * max(width - cell.cell_len, 0), cell)
    return row


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _validations(reports: Sequence[ValidReport], rows: int, width: int) -> list[Text]:
    """The last validations under their names, newest last; the deciding score's name stands out."""
    names = ["validation", "cross-entropy", "perplexity", "bleu", "chrf"]
    shown = ["validation", *(["cross-entropy", "perplexity"] if width >= WIDE else ["entropy", "ppl"]), "BLEU", "chrF"]
    widths = (10, 16, 13, 9, 9) if width >= WIDE else (10, 10, 9, 8, 8)
    table = [Text()]
    for name, label, room in zip(names, shown, widths, strict=True):
        style = "bold" if name in ("validation", reports[-1].metric) else QUIET
        table[0].append(f"{label:>{room}}", style)
    for report in reports[-rows:]:
        scores = report.scores()
        texts = [f"{report.update:,}", f"{report.cross_entropy:.4f}", _perplexity(report.perplexity)]
        texts += [f"{scores[name]:.2f}" if name in scores else NONE for name in names[3:]]
        best = scores.get(report.metric) == reports[-1].best
        row = Text("".join(f"{text:>{room}}" for text, room in zip(texts, widths, strict=True)), GOOD if best else "")
        verdict = ("   ★ best", GOOD) if best else (f"   stalled {report.stalled}" if report.stalled else "", BAD)
        table.append(row.append(*verdict))
    return table


def _perplexity(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else short_count(value) if value < 1e12 else f"{value:.0e}"


def _messages(state: DisplayState, width: int) -> list[Text]:
    """The last messages, broken into rows, newest last."""
    console = Console(width=width, file=None)
    rows: list[Text] = []
    for message in state.messages[-MOST["messages"] :]:
        text = Text(f"warning: {message.text}", BAD) if message.warning else Text(message.text)
        rows += text.wrap(console, width)
    return rows


LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last ``width`` values as blocks between their lowest and highest; what is not finite is a ``×``."""
    shown = list(values[-width:]) if width > 0 else []
    finite = [value for value in shown if math.isfinite(value)]
    if not finite:
        return "×" * len(shown)
    low, high = min(finite), max(finite)
    step = (high - low) / (len(LEVELS) - 1) or 1.0
    return "".join(LEVELS[round((value - low) / step)] if math.isfinite(value) else "×" for value in shown)


def bar(share: float, width: int) -> tuple[str, str]:
    """The filled and the empty part (which differ without colour too) of a bar of ``width`` columns.

    It moves by half columns; what is above 0 shows at least one half.
    """
    share = min(1.0, max(0.0, share))
    halves = max(round(share * 2 * width), 1 if share else 0)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "─" * (width - len(filled))


def buckets(counts: Mapping[int, int], rows: int) -> list[tuple[str, float]]:
    """A histogram in at most ``rows`` rows: the label (``3`` or ``2-3``) of each and its share of the total."""
    total = sum(counts.values())
    if not total or rows < 1:
        return []
    size = math.ceil((max(counts) + 1) / rows)
    named = []
    for begin in range(0, max(counts) + 1, size):
        label = str(begin) if size == 1 else f"{begin}-{begin + size - 1}"
        named.append((label, sum(counts.get(value, 0) for value in range(begin, begin + size)) / total))
    return named


def share_out(spare: int, wanted: Sequence[int]) -> list[int]:
    """How many of ``spare`` rows each part gets that wants so many: one each in turn while there are any."""
    given = [0] * len(wanted)
    while spare > 0 and any(have < want for have, want in zip(given, wanted, strict=True)):
        for part, want in enumerate(wanted):
            if given[part] < want and spare > 0:
                given[part] += 1
                spare -= 1
    return given
