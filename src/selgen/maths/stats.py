"""Means, paired differences and rates with 95 % intervals. Pure functions on numpy arrays; no torch.

Intervals over seeds are Student t intervals: below 20 seeds a bootstrap over seeds is too narrow (three seeds give ten
distinct resamples), while a t interval says honestly how little three seeds know. A bootstrap over seeds and, within
them, prompts shows beside it what the choice of prompts contributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Coverage of every interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its uncertainty, in the unit of the values.

    Attributes:
        mean: Arithmetic mean.
        stderr: Sample standard deviation / sqrt(n); None for a single value.
        low: Lower end of the 95 % t interval; None for a single value.
        high: Upper end of it; None for a single value.
        n: Number of values (seeds).
    """

    mean: float
    stderr: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval; None for a single value."""
        return None if self.high is None else self.high - self.mean

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0; False for a single value, which has no interval."""
        return self.low is not None and self.low > 0


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean, standard error and 95 % t interval of independent values, one per seed.

    Args:
        values: [n] numbers; missing seeds are left out by the caller, who counts them.

    Returns:
        The estimate; None if there are no values. One value gives a mean without an interval.

    Raises:
        ValueError: a value is not finite.
    """
    x_n = np.asarray(values, dtype=float)
    if not np.isfinite(x_n).all():
        raise ValueError(f"Parameter `values` should be finite, found `{list(values)}`. Leave missing seeds out.")
    n = len(x_n)
    if n == 0:
        return None
    mean = float(x_n.mean())
    if n == 1:
        return Estimate(mean, None, None, None, 1)
    stderr = float(x_n.std(ddof=1) / math.sqrt(n))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * stderr
    return Estimate(mean, stderr, mean - half, mean + half, n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Mean of a - b over the seeds that both have, with its 95 % t interval.

    Args:
        a: Value by seed.
        b: Value by seed.

    Returns:
        The estimate, whose `n` is the number of common seeds; None if there is none.
    """
    return estimate([a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())])


def wilson(mean: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a rate: stays within [0, 1] and is not empty at 0 and 1, as the normal one is.

    Args:
        mean: Share of successes, in [0, 1].
        n: Number of independent trials, at least 1.

    Raises:
        ValueError: `mean` or `n` is out of range.
    """
    if n < 1:
        raise ValueError(f"Parameter `n` should be >= 1, found `{n}`. A rate of no trials has no interval.")
    if not 0 <= mean <= 1:
        raise ValueError(f"Parameter `mean` should be in [0, 1], found `{mean}`. Give a share, not a percentage.")
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def hierarchical_bootstrap(
    values: Sequence[Sequence[float]], num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of a mean, resampling seeds and, within each drawn seed, prompts.

    Seeds weigh the same, whatever their number of prompts. With few seeds the interval is too narrow: show it beside a
    t interval over seeds, never instead of it.

    Args:
        values: One sequence per seed with one number per prompt (for a paired difference: the prompt's difference).
        num_resamples: Bootstrap replicates.
        seed: Of the resampling.

    Returns:
        Lower and upper end; None if there are no seeds or a seed has no prompts.
    """
    if not values or any(len(v) == 0 for v in values):
        return None
    rng = np.random.default_rng(seed)
    # [S, R]: mean of resampled prompts of each seed. A drawn seed takes a fresh column each time it is drawn, so that
    # two draws of the same seed have independent prompts.
    num_seeds = len(values)
    means_SKR = np.stack(
        [
            x_n[rng.integers(len(x_n), size=(num_seeds, num_resamples, len(x_n)))].mean(-1)
            for x_n in (np.asarray(v, dtype=float) for v in values)
        ]
    )
    drawn_KR = rng.integers(num_seeds, size=(num_seeds, num_resamples))
    slot_K1, column_1R = np.arange(num_seeds)[:, None], np.arange(num_resamples)[None, :]
    replicates_R = means_SKR[drawn_KR, slot_K1, column_1R].mean(0)
    low, high = np.quantile(replicates_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
