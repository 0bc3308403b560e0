"""A matplotlib figure that becomes a PNG for light pages and an SVG that takes the colours of the page around it."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from nmt_async.errors import UserError
from nmt_async.report.looks import SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#1d232b", "#5a6470", "#dde1e6"
"""Of text, of axes, of grid lines, on a light page."""

VARIABLES = {INK: ("ink", "#e4e8ee"), MUTED: ("muted", "#9aa4b0"), RULE: ("rule", "#313842")} | {
    light: (f"series-{number}", dark) for number, (light, dark) in enumerate(SERIES)
}
"""Light colour: the name of its variable in CSS, and its dark colour."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
WIDTH = 4.6
"""Inches. At 72 units an inch this is about as wide as a phone, so that its text is read there at its own size."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.family": "DejaVu Sans", "font.size": 9.4,
    "axes.titlesize": 10.4, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "axes.linewidth": 0.8, "grid.linewidth": 0.6, "lines.linewidth": 1.7, "lines.markersize": 4.2,
    "xtick.major.size": 3, "ytick.major.size": 0, "ytick.major.pad": 4, "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "text.color": INK, "axes.titlecolor": INK,
    "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.edgecolor": MUTED, "grid.color": RULE,
    "axes.formatter.useoffset": False, "hatch.linewidth": 0.8,
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """A finished plot.

    Attributes:
        name: of its files and its anchor.
        title: stands in the picture too.
        caption: what is shown and how to read it.
        alternative: what it shows, for who cannot see it.
        svg: for a page: colours are CSS variables with the light colour where the page has none; it has no size.
        png: on white.
        group: heading of the part of the page that it belongs to.
    """

    name: str
    title: str
    caption: str
    alternative: str
    svg: str
    png: bytes
    group: str = ""

    @property
    def svg_file(self) -> str:
        """The SVG as a file of its own, light or dark as the reader's system is."""
        light = "".join(f"--{name}:{colour};" for colour, (name, _) in VARIABLES.items())
        dark = "".join(f"--{name}:{colour};" for name, colour in VARIABLES.values())
        style = (
            f"<style>svg{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
        )
        width, height = re.findall(r"[\d.]+", self.svg.split('viewBox="', 1)[1].split('"', 1)[0])[2:]
        head, body = self.svg.split(">", 1)
        return f'{head} xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt">{style}{body}\n'


def require_matplotlib() -> None:
    """Nothing, if plots can be drawn here.

    Raises:
        UserError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "plots need matplotlib, which is not installed; install it with: pip install 'nmt-async[report]'"
        )


@contextmanager
def drawing(height: float, width: float = WIDTH) -> Iterator[Figure]:
    """An empty figure of so many inches in our style, to be drawn and made a `Plot` inside the ``with``.

    Raises:
        UserError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**matplotlib.rcParamsDefault, **STYLE}  # not that of the user's matplotlibrc
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width, height))


def finished(drawn: Figure, name: str, title: str, caption: str, alternative: str) -> Plot:
    """The drawn figure in both forms."""
    import matplotlib

    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.id": None}):
        drawn.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn.savefig(png, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return Plot(name, title, caption, alternative, _inline(svg.getvalue(), name, title, alternative), png.getvalue())


def _inline(svg: str, name: str, title: str, alternative: str) -> str:
    """matplotlib's SVG as a part of a page: names of its own, no size, the page's font and colours."""
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    body = svg[svg.index("<defs>") : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, count=1, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r'<g id="(?:figure|axes|matplotlib|text|line2d|patch|xtick|ytick)[^"]*">', "<g>", body)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body).replace("'DejaVu Sans'", "sans-serif")
    body = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _variable, body)
    body = re.sub(r"(?<=[\d ]) *\n(?=[LMCQZz\"])", " ", re.sub(r"\n +<", "\n<", body))
    described = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(alternative)}</desc>'
    look = f'style="font-family: {FONT}; stroke-linejoin: round"'
    return (
        f'<svg class="plot" role="img" aria-labelledby="{name}-title {name}-desc" {view.group()} {look}>'
        f"{described}{body}</svg>"
    )


def _variable(match: re.Match[str]) -> str:
    """A program that knows no CSS variables passes over the second declaration."""
    what, colour = match.groups()
    if colour not in VARIABLES:
        return match.group()
    return f"{what}: {colour}; {what}: var(--{VARIABLES[colour][0]}, {colour})"
