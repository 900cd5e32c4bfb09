"""Two curves compared where both are known. Pure functions on numpy arrays; no torch.

A curve is a piecewise linear function through points: `at_n` is where they lie, `value_n` what was measured there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDING = 1e-12
"""A smaller gap between two curves is floating point noise, not a difference, and is 0."""


def overlap(at_a: Sequence[float], at_b: Sequence[float]) -> tuple[float, float] | None:
    """The range that two curves share: (low, high), of no width where they only touch; None if they share nothing.

    Args:
        at_a: [n] where the points of the one curve lie, in any order.
        at_b: [m] the same of the other.
    """
    if not len(at_a) or not len(at_b):
        return None
    low, high = max(min(at_a), min(at_b)), min(max(at_a), max(at_b))
    return (low, high) if low <= high else None


def mean_gap(
    at_a: Sequence[float], value_a: Sequence[float], at_b: Sequence[float], value_b: Sequence[float]
) -> float | None:
    """Mean of curve a - curve b over the range that they share: the exact integral of both, over the width.

    All points of a curve are used, none is selected; several at the same place count as their average. A range of no
    width (a curve of a single point, or curves that only touch) is compared at that place.

    Args:
        at_a: [n] where the points of curve a lie, in any order.
        value_a: [n] their values.
        at_b: [m] where the points of curve b lie.
        value_b: [m] their values.

    Returns:
        The gap in the unit of the values; None if the curves share no range.

    Raises:
        ValueError: a curve has not one value per place, or a number is not finite.
    """
    a, b = _knots(at_a, value_a), _knots(at_b, value_b)
    shared = overlap(at_a, at_b)
    if shared is None:
        return None
    gap = _mean_between(*a, *shared) - _mean_between(*b, *shared)
    return gap if abs(gap) > ROUNDING else 0.0


def value_at(at: Sequence[float], value: Sequence[float], place: float) -> float | None:
    """A curve's value at one place, interpolated linearly between the points on both sides of it.

    Nothing is extrapolated. Several points at the same place count as their average.

    Args:
        at: [n] where the points lie, in any order.
        value: [n] their values.
        place: In the unit of `at`.

    Returns:
        The value; None where the curve does not reach the place, or has no points.

    Raises:
        ValueError: the curve has not one value per place, or a number is not finite.
    """
    place_k, value_k = _knots(at, value)
    # A place that was computed may miss the end of the curve that it stands for by a rounding error.
    if not len(place_k) or not place_k[0] - ROUNDING <= place <= place_k[-1] + ROUNDING:
        return None
    return float(np.interp(place, place_k, value_k))


def _knots(at: Sequence[float], value: Sequence[float]) -> tuple[Floats, Floats]:
    """Points in order, with one (averaged) value per place."""
    at_n, value_n = np.asarray(at, dtype=float), np.asarray(value, dtype=float)
    if at_n.shape != value_n.shape or not (np.isfinite(at_n).all() and np.isfinite(value_n).all()):
        raise ValueError(
            "Parameters `at` and `value` should be finite and equally long, found "
            f"`{list(at)}` and `{list(value)}`. Leave points out that were not measured."
        )
    place_k, which_n, count_k = np.unique(at_n, return_inverse=True, return_counts=True)
    return place_k, np.bincount(which_n, weights=value_n, minlength=len(place_k)) / count_k


def _mean_between(place_k: Floats, value_k: Floats, low: float, high: float) -> float:
    """Mean of one curve over a range that it covers."""
    inside = place_k[(place_k > low) & (place_k < high)]
    x = np.concatenate([[low], inside, [high]])
    y = np.interp(x, place_k, value_k)
    # The trapezoid rule is exact here: the function is linear between neighbouring places.
    return float(np.trapezoid(y, x) / (high - low)) if high > low else float(y[0])
