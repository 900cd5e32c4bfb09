"""The page: one HTML file with everything in it, readable offline, in light and in dark."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from selgen.report import text
from selgen.report.console import NOTHING_CHOSEN, counts_text
from selgen.report.safe import embedded_json, readable, visible
from selgen.report.samples import RULE, ShownSamples, as_data
from selgen.report.style import BASE_BAR, BASELINE_BAR, COLORS, GRID, INK, MUTED, PAPER, TEXT_COLORS
from selgen.report.summary import ReportSummary

CSS_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    BASE_BAR: "--bar-base",
    BASELINE_BAR: "--bar-baseline",
    **{color: f"--curve-{i}" for i, color in enumerate(COLORS)},
    **{TEXT_COLORS[color]: f"--text-{i}" for i, color in enumerate(COLORS) if color in TEXT_COLORS},
}
"""Colours of the figures that the page may change in the dark."""


def render_page(
    summary: ReportSummary, figures: Mapping[str, Sequence[Path]], samples: Sequence[ShownSamples] = ()
) -> str:
    """The HTML text. Every value is escaped; the figures, which we drew ourselves, are put in as SVG.

    The page allows the browser to run one script, ours, known by its hash, and to load nothing.

    Args:
        summary: What the report says.
        figures: SVG files by setting.
        samples: What can be read in the sample browser, one entry per comparison.
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
    summary = readable(summary)
    script = files("selgen.report").joinpath("page.js").read_text(encoding="utf-8")
    data = as_data(samples)
    return environment.get_template("page.html").render(
        s=summary,
        counts=counts_text(summary.counts),
        checks=[check for c in summary.comparisons for check in c.checks],
        figures={readable(name): [inline_svg(path) for path in paths] for name, paths in figures.items()},
        nothing_chosen=NOTHING_CHOSEN,
        colors=list(COLORS),
        text_colors=[TEXT_COLORS.get(color, color) for color in COLORS],
        bars=[BASE_BAR, BASELINE_BAR],
        browsing=data,
        samples_json=embedded_json(data),
        samples_rule=RULE,
        shown=sum(c.shown for c in samples),
        total=sum(c.total for c in samples),
        silent=sum(c.silent for c in samples),
        script=Markup(script),
        policy=_policy(script),
    )


def _policy(script: str) -> str:
    """Content security policy: no network, no script but this one."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    rules = ("style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'")
    return "; ".join(("default-src 'none'", *rules))


def inline_svg(path: Path) -> Markup:
    """A figure as an <svg> element that follows the page's colours and shares no id with other figures."""
    svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # A setting may have any name; a digest of it is safe in an attribute.
    prefix = f"figure-{sha256(path.stem.encode()).hexdigest()[:8]}-"

    def own(tag: re.Match[str]) -> str:
        text = re.sub(r'\bid="', f'id="{prefix}', tag[0])
        text = text.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
        for color, variable in CSS_VARIABLES.items():
            text = text.replace(color, f"var({variable})")
        return text

    svg = re.sub(r"<[^>]*>", own, svg)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(visible(path.stem))}" ', 1))
