"""A picture of the training display from a run's records: ``python -m nmt_async.report.picture RUN --out FILE``."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.terminal_theme import TerminalTheme
from safetensors import SafetensorError, safe_open

from nmt_async.errors import UserError
from nmt_async.model.configuration import model_title
from nmt_async.options import load_yaml
from nmt_async.quantity import Quantity, Unit, parse_quantity
from nmt_async.report.records import RunTitle, TrainReport, ValidReport
from nmt_async.report.screen import LEAST_WIDTH, render
from nmt_async.report.state import DisplayState

ALL_UNITS: tuple[Unit, ...] = ("updates", "tokens", "epochs", "hours", "minutes")
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"

# Rich's own frame, but for its fonts, which it would fetch from the network.
SVG = f"""<svg class="rich-terminal" viewBox="0 0 {{width}} {{height}}" xmlns="http://www.w3.org/2000/svg">
<style>
.{{unique_id}}-matrix {{{{ font-family: {FONTS}; font-size: {{char_height}}px; line-height: {{line_height}}px; }}}}
.{{unique_id}}-title {{{{ font-size: 18px; font-weight: bold; font-family: {FONTS}; }}}}
{{styles}}
</style>
<defs>
<clipPath id="{{unique_id}}-clip-terminal">
<rect x="0" y="0" width="{{terminal_width}}" height="{{terminal_height}}" />
</clipPath>
{{lines}}
</defs>
{{chrome}}
<g transform="translate({{terminal_x}}, {{terminal_y}})" clip-path="url(#{{unique_id}}-clip-terminal)">
{{backgrounds}}
<g class="{{unique_id}}-matrix">
{{matrix}}
</g>
</g>
</svg>
"""

THEME = TerminalTheme(
    background=(22, 27, 34),
    foreground=(221, 227, 234),
    normal=[
        (22, 27, 34), (248, 113, 113), (126, 211, 145), (233, 190, 102),
        (110, 168, 254), (199, 146, 234), (92, 200, 215), (221, 227, 234),
    ],
    bright=[
        (139, 148, 158), (248, 113, 113), (126, 211, 145), (233, 190, 102),
        (110, 168, 254), (199, 146, 234), (92, 200, 215), (255, 255, 255),
    ],
)  # fmt: skip


def recorded_state(run: Path, update: int | None = None) -> DisplayState:
    """What the display showed when the run's report of ``update`` (by default the last) had come.

    Raises:
        UserError: ``run`` is not the folder of a run, or has reported nothing until then.
    """
    config = load_yaml(run / "config.yaml") if (run / "config.yaml").is_file() else None
    path = run / "metrics.jsonl"
    if config is None or not path.is_file():
        raise UserError(f"{run} is not the folder of a run (no config.yaml and metrics.jsonl in it).")
    reports = [report for report in read_reports(path) if update is None or report.update <= update]
    trained = [report for report in reports if isinstance(report, TrainReport)]
    if not trained:
        until = "" if update is None else f" until update {update:,}"
        raise UserError(f"{path} holds no report of training{until}; there is nothing to show yet.")
    try:
        stop = None if config["stop-after"] is None else parse_quantity(str(config["stop-after"]), ALL_UNITS)
        workers = config["workers"] or max(len(report.waiting_share) for report in trained) or 1
        title = _title(run, config, stop, int(workers))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{run / 'config.yaml'} is not the configuration of a run ({error}).") from None
    state = DisplayState().begun(title).progressed(None if stop is None else 0.0, 0)
    for report in reports:
        if isinstance(report, TrainReport):
            share = None if stop is None else min(1.0, _amount(report, stop) / stop.amount)
            state = state.at(report.time).progressed(share, report.update).trained(report)
        else:
            state = state.validated(report)
    return state


def _amount(report: TrainReport, quantity: Quantity) -> float:
    """How far the run was, in the quantity's unit."""
    in_units = {"updates": report.update, "tokens": report.target_tokens, "epochs": report.epochs}
    in_units |= {"hours": report.time / 3600, "minutes": report.time / 60}
    return float(in_units[quantity.unit])


def read_reports(path: Path) -> list[TrainReport | ValidReport]:
    """The reports of a ``metrics.jsonl``, in order; a torn last line, as a crash leaves it, is passed over.

    Raises:
        UserError: a line is not a report.
    """
    reports: list[TrainReport | ValidReport] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            kinds: dict[str, type[TrainReport] | type[ValidReport]] = {"train": TrainReport, "valid": ValidReport}
            reports.append(kinds[values["kind"]].from_mapping(values))
        except (ValueError, KeyError, TypeError, AttributeError):
            if number < len(lines):
                raise UserError(f"{path}, line {number}: this is not a report of training or validation.") from None
    return reports


def _title(run: Path, config: dict[str, Any], stop: Quantity | None, workers: int) -> RunTitle:
    mode, pushes, devices = config["sync-mode"], config["accumulate"], str(config["devices"]).split(",")
    if pushes is None:
        pushes = workers if mode == "hybrid" else 1
    dealt = tuple(devices[number % len(devices)].strip() for number in range(workers))
    model = model_title(config.get("model", "transformer"), config["preset"])
    return RunTitle(run.resolve().name, mode, int(pushes), dealt, model, saved_parameters(run), stop)


def saved_parameters(run: Path) -> int | None:
    """How many parameters the run's model has, None if it has saved none."""
    for pointer in ("best", "last"):
        try:
            folder = run / (run / pointer).read_text(encoding="utf-8").strip()
            with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
                shapes: list[list[int]] = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
                return sum(map(math.prod, shapes))
        except (OSError, SafetensorError):
            continue
    return None


def picture(state: DisplayState, width: int, height: int) -> str:
    """The screen of ``state`` as an SVG that needs nothing from the network."""
    console = Console(
        record=True, file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor",
        legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(Padding(render(state), (0, 1, 1, 1)))
    return console.export_svg(title="nmt-async train", theme=THEME, code_format=SVG, unique_id="display")


def main(arguments: list[str] | None = None) -> int:
    """The exit code of the command; what goes wrong is one sentence on standard error."""
    parser = argparse.ArgumentParser("python -m nmt_async.report.picture", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the SVG to write")
    parser.add_argument("--update", type=int, metavar="N", help="as it was at this update (else at the last)")
    parser.add_argument("--width", type=int, default=88, metavar="COLUMNS", help="of the terminal (88)")
    parser.add_argument("--height", type=int, default=30, metavar="ROWS", help="of the terminal (30)")
    given = parser.parse_args(arguments)
    try:
        if given.width < LEAST_WIDTH or given.height < 1:
            raise UserError(f"--width must be {LEAST_WIDTH} or more, --height 1 or more.")
        svg = picture(recorded_state(given.run, given.update), given.width, given.height)
        beside = given.out.with_name(given.out.name + ".partial")
        beside.write_text(svg, encoding="utf-8")
        os.replace(beside, given.out)
    except (UserError, OSError) as error:
        text = str(error) if isinstance(error, UserError) else f"{given.out}: {error.strerror}."
        print(f"picture: {text}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
