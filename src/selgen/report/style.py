"""How figures look: colours that colour-blind readers can tell apart, markers, and saving in both formats."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import RcKeyType

INK = "#1b1f24"
MUTED = "#6b7480"
GRID = "#dfe3e8"
PAPER = "#fdfdfe"
# Okabe and Ito's palette without its yellow, which is too faint on white, and two darker colours.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b3fa8", "#7d6608")
# Labels in the colour of their curve: darker where the colour itself would be too faint for text (contrast below 4.5).
TEXT_COLORS = {
    "#d55e00": "#b84f00",
    "#009e73": "#007a59",
    "#cc79a7": "#a84f80",
    "#e69f00": "#8f6300",
    "#56b4e9": "#1f78ab",
}
BASE_BAR, BASELINE_BAR = "#b3bac3", "#4b535d"
# Seven markers and eight colours: 56 curves before a pair repeats.
MARKERS = ("o", "s", "^", "D", "v", "P", "<")
FAINT = 0.35
"""Opacity of dominated points."""

RC: dict[RcKeyType, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    # Text stays text, so that the SVG can be searched; equal figures give equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "selgen",
}


@dataclass(frozen=True)
class Look:
    """How a curve is drawn; `hatch` tells bars of equal colour apart."""

    color: str
    marker: str
    hatch: str = ""

    @property
    def text_color(self) -> str:
        return TEXT_COLORS.get(self.color, self.color)


def looks(curves: list[str]) -> dict[str, Look]:
    """A look for each curve, by its place in the sorted list."""
    return {
        curve: Look(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], "///" if i >= len(COLORS) else "")
        for i, curve in enumerate(sorted(set(curves)))
    }


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches, not known to pyplot. Call within `rc_context(RC)`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def wrapped(name: str) -> str:
    """A name in lines short enough for a legend, however long it is."""
    return textwrap.fill(name, 28)


def percent_ticks(axes: Axes, most: int) -> None:
    """Round percentages on both axes, at most so many and none beyond 0 and 100 %; the axes must have their limits."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        ticks = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
        axis.set_ticks([tick for tick in ticks if max(low, -1e-9) <= tick <= min(high, 1 + 1e-9)])
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def add_caption(figure: Figure, text: str) -> None:
    """Wrapped small print under the axes."""
    columns = int(figure.get_figwidth() * 15.5)
    figure.supxlabel("\n".join(textwrap.wrap(text, columns)), x=0.012, ha="left", fontsize=8, color=MUTED)


Tips = dict[str, str]
"""Hover text by the group id of its artist."""


def add_tip(tips: Tips, artist: Artist, text: str) -> None:
    """Give an artist a text that the SVG shows when the pointer rests on it."""
    group = f"tip-{len(tips)}"
    artist.set_gid(group)
    tips[group] = text


def save(figure: Figure, stem: Path, tips: Tips) -> None:
    """Write `<stem>.png` and `<stem>.svg`; the SVG with hover texts."""
    with rc_context(RC):
        figure.savefig(stem.with_suffix(".png"), dpi=160)
        drawing = StringIO()
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    svg = re.sub(
        r'<g id="(tip-\d+)">', lambda group: f"{group[0]}<title>{escape(tips[group[1]])}</title>", drawing.getvalue()
    )
    stem.with_suffix(".svg").write_text(svg, encoding="utf-8")
