"""Pareto fronts of points whose coordinates are all to be maximised. numpy and moocore; no torch."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np

REFERENCE = (0.0, 0.0)
"""Reference point of every hypervolume: nothing learned and nothing preserved. Both axes are shares in [0, 1]."""


def dominated(points: Sequence[Sequence[float]]) -> list[bool]:
    """Whether some other point is at least as good on every coordinate and better on one.

    Args:
        points: [n, d], higher is better. Equal points do not dominate one another.
    """
    if not len(points):
        return []
    return [not bool(x) for x in moocore.is_nondominated(np.asarray(points, float), maximise=True, keep_weakly=True)]


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates, by rising first coordinate.

    Args:
        points: [n, d], higher is better.
    """
    kept = [i for i, is_dominated in enumerate(dominated(points)) if not is_dominated]
    return sorted(kept, key=lambda i: tuple(points[i]))


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float] = REFERENCE) -> float:
    """Area (volume) that the points dominate, above and to the right of the reference point.

    Args:
        points: [n, d], higher is better; a point that does not exceed the reference adds nothing.
        reference: [d]. With (0, 0) and coordinates in [0, 1] the result is in [0, 1].
    """
    if not len(points):
        return 0.0
    return float(moocore.hypervolume(np.asarray(points, float), ref=list(reference), maximise=True))
