"""The attainment figure: a small panel per curve, with a band from what every seed reaches to what one seed reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from selgen.core import TASK_ONLY
from selgen.maths.pareto import Surface
from selgen.report.figures import limits
from selgen.report.fronts import Attained
from selgen.report.safe import readable
from selgen.report.style import (
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

COLUMNS = 4
"""Most panels side by side."""
BAND = 0.28
"""Opacity of a band."""


@dataclass(frozen=True)
class _Block:
    """The panels of one comparison: curves that are not task_only's, and what all panels show in grey and black."""

    comparison: Comparison
    panels: list[Attained]
    grey: Attained | None
    marks: list[tuple[Row, float, float]]

    def num_lines(self, num_columns: int) -> int:
        return -(-len(self.panels) // num_columns)

    @property
    def limits(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of both axes, the same for all panels of a comparison, so that areas compare."""
        shown = [*self.panels, *([] if self.grey is None else [self.grey])]
        corners = [c for one in shown for s in (one.surfaces.best, one.surfaces.worst) for c in s]
        places = corners + [(x, y) for _, x, y in self.marks]
        return limits([], [x for x, _ in places]), limits([], [y for _, y in places])


def attainment_figure(comparisons: Sequence[Comparison], stem: Path) -> bool:
    """Draw the attainment surfaces of every curve of several strengths, as `<stem>.png` and `<stem>.svg`.

    Returns:
        Whether there was anything to draw.
    """
    blocks = [block for c in readable(comparisons) if (block := _block(c)).panels]
    if not blocks:
        return False
    style = looks([row.curve for b in blocks for row in b.comparison.rows if row.role is None or row.role == "chosen"])
    most = max(len(block.panels) for block in blocks)
    num_columns = -(-most // -(-most // COLUMNS))  # as few lines as possible, filled as evenly as possible
    num_lines = sum(block.num_lines(num_columns) for block in blocks)
    tips: Tips = {}
    with rc_context(RC):
        figure = new_figure(2.3 + 3.0 * num_columns, 1.5 + 2.9 * num_lines)
        head = f"What each method reaches over seeds: {blocks[0].comparison.title}"
        below = "" if len(blocks) > 1 else f"\n{blocks[0].comparison.name}"
        figure.suptitle(f"{head}{below}", x=0.012, ha="left", fontsize=11, fontweight="bold")
        grid = figure.subplots(num_lines, num_columns, squeeze=False)
        top = 0
        for block in blocks:
            own: list[Axes] = list(grid[top : top + block.num_lines(num_columns)].flatten())
            for index, (axes, one) in enumerate(zip(own, block.panels, strict=False)):
                _draw(axes, block, one, style[one.curve], tips)
                name = "" if len(blocks) == 1 else f"\n{wrapped(block.comparison.name)}"
                axes.set_title(f"{wrapped(one.curve)}{name}", fontsize=9)
                if index % num_columns == 0:
                    axes.set_ylabel(f"{wrapped(block.comparison.axis_labels['score_y'])} →", fontsize=9)
                if index + num_columns >= len(block.panels):
                    axes.set_xlabel(f"{wrapped(block.comparison.axis_labels['alignment'])} →", fontsize=9)
            for axes in own[len(block.panels) :]:
                axes.remove()
            top += block.num_lines(num_columns)
        _legend(figure, blocks)
        add_caption(figure, _caption(blocks))
        save(figure, stem, tips)
    return True


def _block(comparison: Comparison) -> _Block:
    methods = {row.curve: row.method for row in comparison.rows}
    marks = [
        (row, x.mean, y.mean)
        for row in comparison.rows
        if row.role in ("base", "baseline")
        and (x := row.test["alignment"]) is not None
        and (y := row.test["score_y"]) is not None
    ]
    panels = [one for one in comparison.attained if methods[one.curve] != TASK_ONLY]
    return _Block(comparison, panels, comparison.strongest_yardstick, marks)


def _draw(axes: Axes, block: _Block, one: Attained, look: Look, tips: Tips) -> None:
    (left, right), (bottom, top) = block.limits
    if block.grey is not None:
        [line] = axes.plot(*_stairs(block.grey.surfaces.median, left, bottom), color=MUTED, lw=1.4, ls="--", zorder=3)
        add_tip(tips, line, f"{block.grey.curve}: median of {_number(block.grey)}")
    outer, inner = (list(zip(*_stairs(s, left, bottom), strict=True)) for s in (one.surfaces.best, one.surfaces.worst))
    band = Polygon([*outer, *inner[::-1]], closed=True, fc=look.color, ec="none", alpha=BAND, zorder=2)
    axes.add_patch(band)
    add_tip(tips, band, f"{one.curve}: from what all of {_number(one)} reach to what at least one reaches")
    [line] = axes.plot(*_stairs(one.surfaces.median, left, bottom), color=look.color, lw=2.0, zorder=4)
    add_tip(tips, line, f"{one.curve}: median of {_number(one)}")
    for row, x, y in block.marks:
        big = 11 if row.role == "base" else 8
        axes.plot(x, y, _marker(row), ms=big, color=INK, mec=PAPER, mew=0.6, ls="", zorder=5)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    percent_ticks(axes, 5)
    axes.tick_params(labelsize=8)


def _marker(row: Row) -> str:
    return "*" if row.role == "base" else "X"


def _number(one: Attained) -> str:
    return f"{len(one.seeds)} seed{'' if len(one.seeds) == 1 else 's'}"


def _stairs(surface: Surface, left: float, bottom: float) -> tuple[list[float], list[float]]:
    """x and y of the line around what a surface attains, from the left edge of the panel to its bottom."""
    xs, ys = [left], [surface[0][1]]
    for (x, y), below in zip(surface, [*(y for _, y in surface[1:]), bottom], strict=True):
        xs += [x, x]
        ys += [y, below]
    return xs, ys


def _legend(figure: Figure, blocks: Sequence[_Block]) -> None:
    """Explains line, band, grey and marks once, on artists that belong to no panel."""
    axes = figure.axes[0]
    handles: list[Artist] = [axes.plot([], [], color=INK, lw=2.0, label="median seed")[0]]
    handles.append(Polygon([(0, 0)], fc=INK, ec="none", alpha=BAND, label="from the worst\nto the best seed"))
    names = dict.fromkeys(block.grey.curve for block in blocks if block.grey is not None)
    if names:
        label = f"median seed of\n{wrapped(', '.join(names))},\nin every panel"
        handles.append(axes.plot([], [], color=MUTED, lw=1.4, ls="--", label=label)[0])
    marks = {row.label: _marker(row) for block in blocks for row, _, _ in block.marks}
    for label, marker in marks.items():
        handles.append(axes.plot([], [], marker, ms=9, color=INK, mec=PAPER, ls="", label=wrapped(label))[0])
    figure.legend(handles=handles, loc="outside right upper", labelspacing=0.9, fontsize=9)


def _caption(blocks: Sequence[_Block]) -> str:
    grey = (
        " Grey: the strongest (largest mean area) of the curves that only change task_only's adapter or stop it early."
        if any(block.grey is not None for block in blocks)
        else ""
    )
    return (
        "Test split. Each seed's runs at all strengths reach some combinations of both axes: those at or below and to "
        "the left of a point. The line bounds what at least half of the seeds reach, the band's edges what every seed "
        "and what any seed reaches (empirical attainment surfaces). Up and to the right is better."
        f"{grey} Seeds that lack a strength are left out."
    )
