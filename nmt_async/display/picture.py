"""A picture of the training display from a run's records: ``python -m nmt_async.display.picture RUN --out FILE``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.terminal_theme import TerminalTheme

from nmt_async.display.recorded_run import recorded_state
from nmt_async.display.screen import LEAST_WIDTH, render
from nmt_async.display.state import DisplayState
from nmt_async.errors import UserError
from nmt_async.writing import write_whole

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
    parser = argparse.ArgumentParser("python -m nmt_async.display.picture", description=__doc__)
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
        write_whole(given.out, svg)
    except (UserError, OSError) as error:
        text = str(error) if isinstance(error, UserError) else f"{given.out}: {error.strerror}."
        print(f"picture: {text}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
