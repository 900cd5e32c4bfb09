"""Puts text beside points without covering other text or markers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from selgen.report.style import PAPER

MARKER_RADIUS = 7.5
"""Points kept free around a marker's centre."""

GAPS = (8, 13, 20, 29)
"""Tried distances between a point and its label, in points. Beyond the first two a reader has to look twice."""


@dataclass(frozen=True)
class Label:
    """Text that belongs to a point.

    Attributes:
        x: In data coordinates.
        y: In data coordinates.
        required: Placed even where it covers something or lies far off; others are left out then.
    """

    x: float
    y: float
    text: str
    color: str
    required: bool = False
    size: float = 8.5
    weight: str = "normal"


Place = tuple[float, float]


def place_labels(
    axes: Axes, labels: Sequence[Label], markers: Sequence[Place], lines: Sequence[Sequence[Place]]
) -> None:
    """Place labels one after the other, each where it covers least; the axes must have their final limits and size.

    Args:
        labels: Required ones are placed first.
        markers: What must stay free, in data coordinates.
        lines: Vertices of curves and error bars, in data coordinates: they stay free if possible.
    """
    figure = axes.figure
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "figures are made by style.new_figure"
    renderer = canvas.get_renderer()
    scale = figure.dpi / 72
    vertices = [axes.transData.transform(line) for line in lines if len(line)]
    radius = MARKER_RADIUS * scale
    centres = [axes.transData.transform(marker) for marker in markers]
    solid = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
    soft = _samples(vertices, step=4 * scale)
    frame = axes.get_window_extent(renderer)
    for label in sorted(labels, key=lambda label: not label.required):
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=label.color,
            fontsize=label.size,
            fontweight=label.weight,
            bbox={"boxstyle": "round,pad=0.1", "fc": PAPER, "ec": "none", "alpha": 0.75},
            zorder=6,
        )
        size = text.get_window_extent(renderer)
        anchor = axes.transData.transform((label.x, label.y))
        gaps = GAPS if label.required else GAPS[:2]
        options = [_box(anchor, size, direction, gap * scale) for gap in gaps for direction in range(16)]
        # A nearer place wins among equals, because `min` keeps the first.
        best = min(options, key=lambda option: _cost(option[0], solid, soft, frame))
        if not label.required and _cost(best[0], solid, np.empty((0, 2)), frame) > 0:
            text.remove()
            continue
        text.set_position((best[1][0] / scale, best[1][1] / scale))
        solid.append(best[0])


def _samples(vertices: Sequence[np.ndarray], step: float) -> np.ndarray:
    """[n, 2] pixels along all segments."""
    found = [np.empty((0, 2))]
    for line in vertices:
        for start, end in pairwise(line):
            count = max(2, int(np.hypot(*(end - start)) / step))
            found.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(found)


def _box(anchor: np.ndarray, size: Bbox, direction: int, gap: float) -> tuple[Bbox, tuple[float, float]]:
    """The label's box in that direction (of 16) with its nearest edge `gap` pixels from the point, and its offset."""
    angle = math.pi / 4 + direction * math.pi / 8
    dx = math.cos(angle) * (gap + size.width / 2)
    dy = math.sin(angle) * (gap + size.height / 2)
    x, y = anchor[0] + dx, anchor[1] + dy
    half_w, half_h = size.width / 2 + 1, size.height / 2 + 1
    return Bbox.from_extents(x - half_w, y - half_h, x + half_w, y + half_h), (dx, dy)


def _cost(box: Bbox, solid: Sequence[Bbox], soft_N2: np.ndarray, frame: Bbox) -> float:
    """Covered markers and labels count most, then what sticks out of the axes, then line segments."""
    covered = sum(box.overlaps(other) for other in solid)
    outside = max(0.0, frame.x0 - box.x0) + max(0.0, box.x1 - frame.x1)
    outside += max(0.0, frame.y0 - box.y0) + max(0.0, box.y1 - frame.y1)
    x, y = soft_N2[:, 0], soft_N2[:, 1]
    crossed = int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
    return 1000 * covered + 100 * outside + crossed
