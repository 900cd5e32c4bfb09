"""The page: one HTML file with everything in it, readable offline, in light and in dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selgen.report import text
from selgen.report.console import NOTHING_CHOSEN, counts_text
from selgen.report.style import BASE_BAR, BASELINE_BAR, COLORS, GRID, INK, MUTED, PAPER
from selgen.report.summary import ReportSummary

CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    BASE_BAR: "--bar-base",
    BASELINE_BAR: "--bar-baseline",
    **{color: f"--curve-{i}" for i, color in enumerate(COLORS)},
}
"""Colours of the figures that the page may change in the dark."""


def render_page(summary: ReportSummary, figures: Mapping[str, Sequence[Path]]) -> str:
    """The HTML text. Every value is escaped; the figures, which we drew ourselves, are put in as SVG.

    Args:
        summary: What the report says.
        figures: SVG files by setting.
    """
    environment = Environment(
        loader=PackageLoader("selgen", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": text.percent,
        "seconds": text.seconds,
        "strength": text.strength,
        "number": text.number,
    }
    return environment.get_template("page.html").render(
        s=summary,
        counts=counts_text(summary.counts),
        checks=[check for c in summary.comparisons for check in c.checks],
        figures={name: [inline_svg(path) for path in paths] for name, paths in figures.items()},
        nothing_chosen=NOTHING_CHOSEN,
        colors=list(COLORS),
        bars=[BASE_BAR, BASELINE_BAR],
    )


def inline_svg(path: Path) -> Markup:
    """A figure as an <svg> element that follows the page's colours and shares no id with other figures."""
    svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    prefix = f"{path.stem}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    svg = svg.replace("url(#", f"url(#{prefix}")
    for color, variable in CSS_VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{path.stem}" ', 1))
