"""The Pareto figure and the bar chart, drawn from the summary's rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from selgen.core import Anchor
from selgen.maths.stats import Estimate
from selgen.report.labels import Label, place_labels
from selgen.report.safe import readable
from selgen.report.style import (
    BASE_BAR,
    BASELINE_BAR,
    FAINT,
    INK,
    MUTED,
    PAPER,
    RC,
    Look,
    Tips,
    add_caption,
    add_tip,
    looks,
    new_figure,
    percent_ticks,
    save,
    wrapped,
)
from selgen.report.summary import Comparison
from selgen.report.tables import Row

FIXED_BARS = {"base": Look(BASE_BAR, ""), "baseline": Look(BASELINE_BAR, "")}
MIN_SPAN = 0.1
"""Smallest range of an axis: differences below it should not look large."""


def pareto_figure(comparisons: Sequence[Comparison], stem: Path) -> bool:
    """Draw alignment (x) against score_y (y), one panel per comparison, as `<stem>.png` and `<stem>.svg`.

    Returns:
        Whether there was anything to draw.
    """
    drawn = [c for c in readable(comparisons) if any(_xy(row) for row in c.rows)]
    if not drawn:
        return False
    style = looks([row.curve for c in drawn for row in c.rows if row.role is None or row.role == "chosen"])
    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    tips: Tips = {}
    with rc_context(RC):
        figure = new_figure(8.8 if columns == 1 else 13.0, 1.0 + 5.0 * lines)
        panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flatten())
        for axes, comparison in zip(panels, drawn, strict=False):
            _draw_points(axes, comparison, style, tips)
        for axes in panels[len(drawn) :]:
            axes.remove()
        figure.legend(*_legend(panels), loc="outside right upper", labelspacing=0.9)
        grey = " Hollow and grey: published by others, not measured here." if any(c.anchors for c in drawn) else ""
        add_caption(
            figure,
            f"{_average(drawn)} Numbers: strength. Ring: the strength chosen on val. Faint: another point is at least "
            f"as good on both axes.{grey} Up and to the right is better.",
        )
        figure.canvas.draw()
        # Labels are placed in pixels, so the layout must not move afterwards.
        figure.set_layout_engine("none")
        for axes, comparison in zip(panels, drawn, strict=False):
            _label_points(axes, comparison, style)
        save(figure, stem, tips)
    return True


def _average(comparisons: Sequence[Comparison]) -> str:
    """Says what a point or bar is an average of, and what its error bars are."""
    seeds = sorted({len(c.seeds) for c in comparisons})
    if seeds == [1]:
        return "Test split, one seed: no error bars."
    return (
        f"Test split, mean of {' or '.join(map(str, seeds))} seeds; error bars: ± 1 standard error over seeds (95 % "
        "intervals are in the tables)."
    )


def _legend(panels: Sequence[Axes]) -> tuple[list, list[str]]:
    """Handles and texts, each text once however many panels have it."""
    pairs = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {text: handle for handle, text in reversed(pairs)}
    texts = list(dict.fromkeys(text for _, text in pairs))
    return [handles[text] for text in texts], texts


def _xy(row: Row) -> tuple[Estimate, Estimate] | None:
    x, y = row.test["alignment"], row.test["score_y"]
    return None if x is None or y is None else (x, y)


def _curves(comparison: Comparison) -> dict[str, list[tuple[Row, Estimate, Estimate]]]:
    """Rows that can be drawn, by curve in order of strength."""
    found: dict[str, list[tuple[Row, Estimate, Estimate]]] = {}
    for row in comparison.rows:
        xy = _xy(row)
        if xy is not None:
            found.setdefault(row.curve, []).append((row, *xy))
    return found


def _is_baseline(points: Sequence[tuple[Row, Estimate, Estimate]]) -> bool:
    return any(row.role in ("base", "baseline") for row, _, _ in points)


def _draw_points(axes: Axes, comparison: Comparison, style: dict[str, Look], tips: Tips) -> None:
    for curve, points in _curves(comparison).items():
        name = points[0][0].strength_name
        legend = wrapped(curve) if name is None or len(points) == 1 else f"{wrapped(curve)}\n{wrapped(f'({name})')}"
        line = ":" if _is_baseline(points) else "-"
        look = Look(INK, "*" if points[0][0].role == "base" else "X") if _is_baseline(points) else style[curve]
        xs, ys = [x.mean for _, x, _ in points], [y.mean for _, _, y in points]
        axes.plot(xs, ys, color=look.color, lw=1.4, ls=line, alpha=0.7, zorder=2)
        for row, x, y in points:
            big = row.role in ("base", "baseline")
            point = axes.errorbar(
                x.mean,
                y.mean,
                xerr=x.stderr,
                yerr=y.stderr,
                fmt=look.marker if big or not _is_baseline(points) else ".",
                ms=13 if big else 7,
                color=look.color,
                mec=PAPER,
                mew=0.6,
                elinewidth=0.9,
                alpha=FAINT if row.dominated and not big else 1.0,
                zorder=4,
            )
            add_tip(tips, point.lines[0], f"{row.label}: alignment {_hover(x)}, score_y {_hover(y)}, {_seeds(x, y)}")
            if row.role == "chosen":
                axes.plot(x.mean, y.mean, "o", ms=14, mfc="none", mec=look.color, mew=1.3, zorder=3)
        # One legend entry per curve, in full colour even if its first point is faint.
        axes.plot([], [], color=look.color, marker=look.marker, ms=8, ls=line if len(points) > 1 else "", label=legend)
    _draw_anchors(axes, comparison, tips)
    xy = [(x, y) for points in _curves(comparison).values() for _, x, y in points]
    axes.set_xlim(*limits([x for x, _ in xy], [a.alignment for a in comparison.anchors]))
    axes.set_ylim(*limits([y for _, y in xy], [a.score_y for a in comparison.anchors]))
    axes.set_xlabel(f"{comparison.axis_labels['alignment']} →")
    axes.set_ylabel(f"{comparison.axis_labels['score_y']} →")
    percent_ticks(axes, 7)
    _head(axes, comparison.title, comparison.name)


def _draw_anchors(axes: Axes, comparison: Comparison, tips: Tips) -> None:
    """Published points: small, hollow and grey, behind what was measured here."""
    for line in _anchor_lines(comparison.anchors):
        axes.plot(*zip(*line, strict=True), color=MUTED, lw=0.8, alpha=0.6, zorder=1)
    for anchor in comparison.anchors:
        [marker] = axes.plot(anchor.alignment, anchor.score_y, "o", ms=4.5, mfc=PAPER, mec=MUTED, mew=0.9, zorder=1.5)
        place = f"alignment {100 * anchor.alignment:.1f} %, score_y {100 * anchor.score_y:.1f} %"
        add_tip(tips, marker, f"{anchor.label}: {place}, published by {anchor.source}. {' '.join(anchor.notes)}")
    if comparison.anchors:
        label = wrapped(f"published ({comparison.anchor_sources})")
        axes.plot([], [], "o", ms=4.5, mfc=PAPER, mec=MUTED, mew=0.9, label=label)


def _anchor_lines(anchors: Sequence[Anchor]) -> list[list[tuple[float, float]]]:
    """The curves among the published points, each in order of strength."""
    lines: dict[str, list[Anchor]] = {}
    for anchor in anchors:
        if anchor.line is not None:
            lines.setdefault(anchor.line, []).append(anchor)
    return [
        [(a.alignment, a.score_y) for a in sorted(line, key=lambda a: a.strength or 0.0)] for line in lines.values()
    ]


def _head(axes: Axes, title: str, name: str) -> None:
    """Title and, below it, what is compared; a long name runs out of the figure instead of squeezing the axes."""
    axes.set_title(f"{title}\n", pad=2)
    axes.text(0, 1.015, name, transform=axes.transAxes, fontsize=9, color=MUTED).set_in_layout(False)


def limits(estimates: Sequence[Estimate], values: Sequence[float] = ()) -> tuple[float, float]:
    """A range that holds all points and bars with some air, at least `MIN_SPAN` wide, and hardly beyond 0 and 1."""
    low = min([e.mean - (e.stderr or 0) for e in estimates] + [*values])
    high = max([e.mean + (e.stderr or 0) for e in estimates] + [*values])
    centre, span = (low + high) / 2, max(high - low, MIN_SPAN)
    return max(centre - 0.6 * span, -0.05), min(centre + 0.6 * span, 1.05)


def _label_points(axes: Axes, comparison: Comparison, style: dict[str, Look]) -> None:
    labels = []
    curves = _curves(comparison)
    for curve, points in curves.items():
        for row, x, y in points:
            if row.role in ("base", "baseline"):
                labels.append(Label(x.mean, y.mean, row.label, INK, required=True, size=10, weight="bold"))
            elif row.strength is not None:
                color = INK if _is_baseline(points) else style[curve].text_color
                labels.append(Label(x.mean, y.mean, f"{row.strength:g}", color, required=row.role == "chosen"))
    lines = [[(x.mean, y.mean) for _, x, y in points] for points in curves.values()]
    bars = [bar for points in curves.values() for _, x, y in points for bar in _error_bars(x, y)]
    anchors = comparison.anchors
    markers = [vertex for line in lines for vertex in line] + [(a.alignment, a.score_y) for a in anchors]
    labels += [Label(a.alignment, a.score_y, a.label, MUTED, size=6.5) for a in anchors]
    place_labels(axes, labels, markers, [*lines, *bars, *_anchor_lines(anchors)])


def _hover(e: Estimate, height: float | None = None) -> str:
    """`97.6 % ± 0.4`: mean (or the height that is drawn) and half-width of the 95 % interval, as in the tables."""
    share = f"{100 * (e.mean if height is None else height):.1f} %"
    return share if e.half_width is None else f"{share} ± {100 * e.half_width:.1f}"


def _seeds(*estimates: Estimate) -> str:
    """`3 seeds (± 95 % interval)`, or the range if the estimates have different numbers."""
    numbers = sorted({e.n for e in estimates})
    if numbers == [1]:
        return "1 seed"
    return f"{' to '.join(map(str, numbers))} seeds (± 95 % interval)"


def _error_bars(x: Estimate, y: Estimate) -> list[list[tuple[float, float]]]:
    dx, dy = x.stderr or 0.0, y.stderr or 0.0
    return [[(x.mean - dx, y.mean), (x.mean + dx, y.mean)], [(x.mean, y.mean - dy), (x.mean, y.mean + dy)]]


def bar_figure(comparisons: Sequence[Comparison], stem: Path) -> bool:
    """Draw the setting's bar chart for base, task_only and each chosen strength, as `<stem>.png` and `<stem>.svg`.

    Returns:
        Whether there was anything to draw.
    """
    clean = readable(comparisons)
    drawn = [c for c in clean if c.bar_chart is not None and c.domains and any(row.role for row in c.rows)]
    if not drawn:
        return False
    style = looks([row.curve for c in drawn for row in c.rows if row.role is None or row.role == "chosen"])
    tips: Tips = {}
    with rc_context(RC):
        figure = new_figure(10.5, 0.9 + 4.0 * len(drawn))
        for axes, comparison in zip(figure.subplots(len(drawn), 1, squeeze=False)[:, 0], drawn, strict=True):
            _draw_bars(axes, comparison, style, tips)
        add_caption(
            figure,
            f"{_average(drawn)} Strengths are chosen on val. "
            "(proxy): the alignment data covers this domain. n/a: too few prompts met the condition.",
        )
        save(figure, stem, tips)
    return True


def _draw_bars(axes: Axes, comparison: Comparison, style: dict[str, Look], tips: Tips) -> None:
    chart = comparison.bar_chart
    assert chart is not None, "drawn only for settings that declare a bar chart"
    rows = [row for row in comparison.rows if row.role is not None]
    width = 0.84 / len(rows)
    for k, row in enumerate(rows):
        look = FIXED_BARS[row.role] if row.role in FIXED_BARS else style[row.curve]
        edge = PAPER if look.hatch else look.color
        for d, domain in enumerate(comparison.domains):
            e = row.metrics[f"{chart.eval}.{domain}"]
            x = d - 0.42 + (k + 0.5) * width
            if e is None:
                axes.text(x, 0.015, "n/a", rotation=90, ha="center", va="bottom", fontsize=7, color=MUTED)
                continue
            height = 1 - e.mean if chart.complement else e.mean
            # The outline keeps a bar of height 0 visible.
            bar = axes.bar(x, height, 0.9 * width, color=look.color, hatch=look.hatch, edgecolor=edge, linewidth=1.2)
            add_tip(tips, bar.patches[0], f"{row.label}, {domain}: {chart.label} {_hover(e, height)}, {_seeds(e)}")
            if e.stderr:
                axes.errorbar(x, height, e.stderr, fmt="none", ecolor=INK, elinewidth=0.8)
        axes.bar(0, 0, 0, color=look.color, hatch=look.hatch, edgecolor=edge, label=wrapped(row.label))
    ticks = [
        f"{domain.replace('_', ' ')}{' (proxy)' if domain in comparison.proxy_domains else ''}"
        for domain in comparison.domains
    ]
    axes.set_xticks(range(len(ticks)), [tick.replace(" ", "\n") for tick in ticks])
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    axes.set_ylim(0, 1.05)
    axes.set_xlim(-0.6, len(ticks) - 0.4)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_ylabel(chart.label)
    _head(axes, chart.title, comparison.name)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
