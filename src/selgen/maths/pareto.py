"""Pareto fronts of points whose coordinates are all to be maximised. numpy and moocore; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from selgen.core import REFERENCE

Surface = list[tuple[float, float]]
"""Corners of a staircase, by rising first coordinate. What it attains is all points at or below one of its corners."""


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


@dataclass(frozen=True)
class Attainment:
    """How far out the fronts of repeated experiments reach: surfaces of their empirical attainment function.

    A point is attained by a front that has a point at least as good on both coordinates.

    Attributes:
        best: Bounds what at least one front attains.
        median: Bounds what at least half of the fronts attain.
        worst: Bounds what every front attains.
        num_fronts: Number of fronts.
    """

    best: Surface
    median: Surface
    worst: Surface
    num_fronts: int


def attainment(fronts: Sequence[Sequence[Sequence[float]]]) -> Attainment:
    """Best, median and worst attainment surface of several fronts, e.g. one per seed.

    Definition: Grunert da Fonseca, Fonseca and Hall, Inferential performance assessment of stochastic optimisers and
    the attainment function, EMO 2001.

    Args:
        fronts: One [n, 2] list of points per front, higher is better; dominated points do no harm.

    Raises:
        ValueError: there is no front, or one has no points.
    """
    if not fronts or not all(len(front) for front in fronts):
        raise ValueError(
            f"Parameter `fronts` should hold at least one front and no empty one, found sizes "
            f"`{[len(front) for front in fronts]}`. Leave out seeds without points."
        )
    points_N2 = np.concatenate([np.asarray(front, dtype=float) for front in fronts])
    of_N = np.repeat(np.arange(len(fronts)), [len(front) for front in fronts])
    # moocore minimises here. Without percentiles it gives the surfaces of 1, 2, ... n fronts, in this order.
    surfaces_M3 = moocore.eaf(-points_N2, of_N)
    level_M = np.rint(surfaces_M3[:, 2] * len(fronts) / 100).astype(int)

    def surface(num_attaining: int) -> Surface:
        corners = -surfaces_M3[level_M == num_attaining, :2]
        return sorted((float(x), float(y)) for x, y in corners)

    return Attainment(surface(1), surface((len(fronts) + 1) // 2), surface(len(fronts)), len(fronts))
