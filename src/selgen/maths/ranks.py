"""Rank correlation of pairs that come in clusters, with an interval. Pure functions on numpy arrays; no torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from selgen.maths.stats import LEVEL

MIN_PAIRS = 3
"""Fewest pairs with a rank correlation: of two it is always -1 or 1."""
MIN_CLUSTERS = 3
"""Fewest clusters with an interval: two give three different resamples."""
MAX_UNDEFINED = 0.05
"""Largest share of resamples without a correlation (all values equal) that an interval may leave out."""


@dataclass(frozen=True)
class Correlation:
    """A rank correlation; what is undefined has a reason.

    Attributes:
        rho: Spearman's, in [-1, 1]; None if it is undefined.
        reason: Why it is; None if it is not.
        num_pairs: Pairs behind it.
    """

    rho: float | None
    reason: str | None
    num_pairs: int


def spearman(x: Sequence[float], y: Sequence[float]) -> Correlation:
    """Spearman's rank correlation: Pearson's of the ranks, equal values sharing their mean rank.

    Args:
        x: [n] finite numbers.
        y: [n] finite numbers.

    Raises:
        ValueError: different lengths, or a number that is not finite.
    """
    x_n, y_n = _pairs(x, y)
    reason = _undefined(x_n, y_n)
    return Correlation(None if reason else _rho(x_n, y_n), reason, len(x_n))


def spearman_interval(
    x: Sequence[float], y: Sequence[float], clusters: Sequence[Hashable], num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % bootstrap interval of Spearman's rank correlation, resampling whole clusters of pairs.

    Pairs of one cluster are not independent, so they are drawn together. The percentiles of the replicates are moved so
    that their median is the correlation itself, and cut at -1 and 1: a resample repeats clusters, so that pairs of one
    cluster are compared with one another more often than in the data, and its correlation differs systematically.

    What else pairs share is not resampled, and with few clusters the interval is too narrow: show it beside an interval
    over independent repetitions.

    Args:
        x: [n] finite numbers.
        y: [n] finite numbers.
        clusters: [n] which cluster each pair belongs to.
        num_resamples: Bootstrap replicates.
        seed: Of the resampling.

    Returns:
        Lower and upper end; None if the correlation itself is undefined, if there are fewer than `MIN_CLUSTERS`
        clusters, or if more than `MAX_UNDEFINED` of the resamples have none.

    Raises:
        ValueError: different lengths, or a number that is not finite.
    """
    x_n, y_n = _pairs(x, y)
    if len(clusters) != len(x_n):
        raise ValueError(
            f"Parameter `clusters` should be as long as `x` ({len(x_n)}), found {len(clusters)}. Name one per pair."
        )
    names = list(dict.fromkeys(clusters))
    if len(names) < MIN_CLUSTERS or _undefined(x_n, y_n):
        return None
    members = [np.array([i for i, c in enumerate(clusters) if c == name]) for name in names]
    rng = np.random.default_rng(seed)
    found = []
    for drawn in rng.integers(len(names), size=(num_resamples, len(names))):
        rows = np.concatenate([members[k] for k in drawn])
        if not _undefined(x_n[rows], y_n[rows]):
            found.append(_rho(x_n[rows], y_n[rows]))
    if len(found) < (1 - MAX_UNDEFINED) * num_resamples:
        return None
    low, middle, high = np.quantile(found, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    shift = _rho(x_n, y_n) - middle
    return max(-1.0, float(low + shift)), min(1.0, float(high + shift))


def _pairs(x: Sequence[float], y: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x_n, y_n = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x_n.shape != y_n.shape:
        raise ValueError(f"Parameters `x` and `y` should be equally long, found {len(x)} and {len(y)}. Pair them.")
    if not (np.isfinite(x_n).all() and np.isfinite(y_n).all()):
        raise ValueError("Parameters `x` and `y` should be finite. Leave pairs out that were not measured.")
    return x_n, y_n


def _undefined(x_n: np.ndarray, y_n: np.ndarray) -> str | None:
    if len(x_n) < MIN_PAIRS:
        return f"fewer than {MIN_PAIRS} pairs"
    for name, values_n in (("first", x_n), ("second", y_n)):
        if (values_n == values_n[0]).all():
            return f"all values of the {name} quantity are equal"
    return None


def _rho(x_n: np.ndarray, y_n: np.ndarray) -> float:
    ranks = [stats.rankdata(v) - (len(v) + 1) / 2 for v in (x_n, y_n)]
    return float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
