"""Heat maps of proxy against domain, and protection against distance, drawn from the tables of `protection`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from selgen.maths.stats import Estimate
from selgen.report import text
from selgen.report.labels import Label, place_labels
from selgen.report.protection import HeatRow, HeatTable, Nearness
from selgen.report.safe import readable
from selgen.report.style import INK, MUTED, PAPER, RC, Tips, add_caption, add_tip, looks, new_figure, save, wrapped

SCALE = colormaps["cividis"]
"""Its lightness rises evenly, so that it reads in grey and without red or green."""
DARK, LIGHT = "#0b0d10", "#ffffff"
"""Of numbers and frames on the scale's colours, which stay as they are on a dark page."""
GAP = 0.18
"""Between the row without alignment data and the others, in rows."""


def heat_figures(tables: Sequence[HeatTable], directory: Path, setting: str) -> list[Path]:
    """Draw one figure per eval as `<directory>/heatmap_<setting>_<eval>.png` and `.svg`, a panel per curve and model.

    Returns:
        The SVG files.
    """
    by_eval: dict[str, list[HeatTable]] = {}
    for table in readable(tables):
        by_eval.setdefault(table.map.eval, []).append(table)
    stems = {name: directory / f"heatmap_{setting}_{name}" for name in by_eval}
    for name, own in by_eval.items():
        _draw_maps(own, stems[name])
    return [stem.with_suffix(".svg") for stem in stems.values()]


def _draw_maps(tables: Sequence[HeatTable], stem: Path) -> None:
    tips: Tips = {}
    heights = [0.42 * len(table.rows) + 1.25 for table in tables]
    with rc_context(RC):
        figure = new_figure(max(7.2, 2.4 + 0.56 * max(len(table.domains) for table in tables)), 1.0 + sum(heights))
        panels = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
        several = len({table.model for table in tables}) > 1
        for axes, table in zip(panels, tables, strict=True):
            _draw_map(axes, table, f"{table.model}: " if several else "", tips)
        first = tables[0].map
        figure.suptitle(first.title, x=0.012, ha="left", fontsize=12, fontweight="bold")
        seeds = sorted({e.n for table in tables for row in table.rows for e in row.values.values() if e is not None})
        add_caption(
            figure,
            f"Percent: {first.label}. Test split, mean of {_range(seeds)} seed{'' if seeds == [1] else 's'} (intervals "
            "are in the table). Rows: alignment data; columns: domains. Dark: 0, light: 100. Double frame: a domain "
            "that the alignment data covers. Hatched: not measured.",
        )
        save(figure, stem, tips)


def _draw_map(axes: Axes, table: HeatTable, prefix: str, tips: Tips) -> None:
    # The first row reads no alignment data; a gap sets it off.
    tops = [i + (GAP if i else 0) for i in range(len(table.rows))]
    for top, row in zip(tops, table.rows, strict=True):
        for column, domain in enumerate(table.domains):
            _draw_cell(axes, (column, top), row, domain, table, tips)
            for color, width in ((DARK, 3.4), (LIGHT, 1.4)) if domain in row.own else ():
                frame = Rectangle((column, top), 1, 1, fill=False, edgecolor=color, linewidth=width, zorder=3)
                axes.add_patch(frame)
                frame.set_clip_on(False)
    axes.set_xlim(-0.03, len(table.domains) + 0.03)
    axes.set_ylim(tops[-1] + 1.03, -0.03)
    axes.set_xticks(
        [i + 0.5 for i in range(len(table.domains))],
        [domain.replace("_", " ") for domain in table.domains],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
        fontsize=9,
    )
    axes.set_yticks([top + 0.5 for top in tops], [wrapped(row.label) for row in table.rows])
    axes.tick_params(length=0)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(prefix + table.name, fontsize=9.5, fontweight="normal")


def _draw_cell(axes: Axes, place: tuple[float, float], row: HeatRow, domain: str, table: HeatTable, tips: Tips) -> None:
    e = row.values[domain]
    if e is None:
        axes.add_patch(Rectangle(place, 1, 1, facecolor=PAPER, edgecolor=MUTED, hatch="////", linewidth=0.0))
        return
    red, green, blue, _ = SCALE(e.mean)
    cell = Rectangle(place, 1, 1, facecolor=to_hex((red, green, blue)), edgecolor=PAPER, linewidth=1.0)
    axes.add_patch(cell)
    add_tip(tips, cell, f"{row.label}, {domain}: {table.map.label} {_hover(e)}")
    ink = LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else DARK
    x, y = place
    axes.text(x + 0.5, y + 0.5, f"{100 * e.mean:.0f}", ha="center", va="center", color=ink, fontsize=9, zorder=4)


def _hover(e: Estimate) -> str:
    return f"{text.percent(e)} %, {e.n} seed{'' if e.n == 1 else 's'}"


def _range(numbers: Sequence[int]) -> str:
    return " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1])))) if numbers else "no"


def distance_figure(tables: Sequence[HeatTable], stem: Path) -> bool:
    """Draw protection (y) against semantic distance (x), one panel per table, as `<stem>.png` and `<stem>.svg`.

    Returns:
        Whether there was anything to draw.
    """
    # A panel of own domains alone says nothing; it is drawn only if there is no other.
    near = [(t, t.nearness) for t in readable(tables) if t.nearness is not None]
    drawn = [(t, nearness) for t, nearness in near if nearness.rho is not None] or [
        (t, nearness) for t, nearness in near if nearness.pairs
    ]
    if not drawn:
        return False
    tips: Tips = {}
    style = looks([pair.proxy for _, nearness in drawn for pair in nearness.pairs])
    columns = min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    with rc_context(RC):
        figure = new_figure(8.8 if columns == 1 else 13.0, 1.0 + 4.6 * lines)
        panels: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flatten())
        for axes, (table, nearness) in zip(panels, drawn, strict=False):
            axes.axhline(0, color=MUTED, lw=0.8, ls=":", zorder=1)
            for pair in nearness.pairs:
                look = style[pair.proxy]
                [point] = axes.plot(
                    pair.distance,
                    pair.protection.mean,
                    look.marker,
                    ms=7,
                    color=look.color,
                    mfc=PAPER if pair.own else look.color,
                    mec=look.color,
                    mew=1.4,
                    zorder=3,
                )
                own = " (its own domain)" if pair.own else ""
                gain = text.points(pair.protection)
                add_tip(tips, point, f"{pair.proxy}, {pair.domain}{own}: distance {pair.distance:.2f}, {gain} points")
            axes.set_xlabel("semantic distance of the alignment data from the domain →")
            axes.set_ylabel(wrapped(f"protection: {table.map.label}, minus task_only's") + " →", fontsize=9)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
            several = len({t.model for t, _ in drawn}) > 1
            axes.set_title(_panel_title(table, nearness, several), fontsize=9.5, fontweight="normal")
            axes.margins(0.1)
        for axes in panels[len(drawn) :]:
            axes.remove()
        for proxy, look in style.items():
            panels[0].plot([], [], look.marker, ms=7, color=look.color, ls="", label=wrapped(proxy))
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", title="alignment data")
        figure.suptitle("Protection against semantic distance", x=0.012, ha="left", fontsize=12, fontweight="bold")
        add_caption(
            figure,
            "Percentage points on test, mean over seeds; a marker is one kind of alignment data in one domain. Hollow: "
            "its own domain, left out of the correlation. Distance: between the starting model's mean hidden states on "
            "the prompts of both, centred over domains, 0 to 2.",
        )
        figure.canvas.draw()
        # Labels are placed in pixels, so the layout must not move afterwards.
        figure.set_layout_engine("none")
        for axes, (_, nearness) in zip(panels, drawn, strict=False):
            _label_pairs(axes, nearness)
        save(figure, stem, tips)
    return True


def _panel_title(table: HeatTable, nearness: Nearness, several: bool) -> str:
    name = f"{table.model}: {table.name}" if several else table.name
    return f"{table.map.title}: {name}\n" + nearness.headline.replace("; ", "\n")


def _label_pairs(axes: Axes, nearness: Nearness) -> None:
    """The domain beside each marker, where there is room."""
    places = [(pair.distance, pair.protection.mean) for pair in nearness.pairs]
    names = [pair.domain.replace("_", " ") for pair in nearness.pairs]
    labels = [Label(x, y, name, INK, size=7) for (x, y), name in zip(places, names, strict=True)]
    place_labels(axes, labels, places, [])
