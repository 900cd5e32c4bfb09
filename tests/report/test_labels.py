"""Labels stay readable however the points lie."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.text import Annotation

from selgen.report.labels import Label, place_labels
from selgen.report.style import COLORS, MARKERS, RC, looks, new_figure


def place(points, required=()):
    """Label every point with its number on fixed axes; returns the axes and the kept texts by number."""
    with rc_context(RC):
        figure = new_figure(6, 4)
        figure.set_layout_engine("none")
        axes = figure.subplots()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        labels = [Label(x, y, str(i), "black", required=i in required) for i, (x, y) in enumerate(points)]
        place_labels(axes, labels, points, [])
    return axes, {int(text.get_text()): text for text in axes.texts if isinstance(text, Annotation)}


@pytest.mark.parametrize("seed", range(5))
def test_kept_labels_cover_neither_each_other_nor_points_and_stay_inside(seed):
    points = [tuple(p) for p in np.random.default_rng(seed).random((40, 2))]
    axes, kept = place(points)
    boxes = {i: text.get_window_extent() for i, text in kept.items()}
    assert len(kept) >= 20
    assert not any(a.overlaps(b) for a, b in combinations(boxes.values(), 2))
    centres = axes.transData.transform(points)
    assert not any(box.contains(x, y) for box in boxes.values() for x, y in centres)
    frame = axes.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes.values())


def test_in_a_crowd_optional_labels_go_and_required_ones_stay():
    crowd = [(0.5 + 0.002 * i, 0.5) for i in range(30)]
    _, kept = place(crowd, required={17})
    assert 17 in kept and len(kept) < 30


def test_a_lonely_label_is_beside_its_point():
    axes, kept = place([(0.5, 0.5)])
    x, y = axes.transData.transform((0.5, 0.5))
    box = kept[0].get_window_extent()
    assert abs((box.x0 + box.x1) / 2 - x) < 25 and abs((box.y0 + box.y1) / 2 - y) < 25


def test_curves_get_looks_of_their_own():
    names = [f"curve {i}" for i in range(len(COLORS) * len(MARKERS))]
    drawn = looks(names)
    assert len({(look.color, look.marker) for look in drawn.values()}) == len(names)
    assert all(bool(look.hatch) == (i >= len(COLORS)) for i, look in enumerate(drawn[n] for n in sorted(names)))
