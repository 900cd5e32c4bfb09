"""Means, paired differences and rates with 95 % intervals. Pure functions on numpy arrays; no torch.

Intervals over seeds are Student t intervals, at any number of seeds: a bootstrap over few seeds is too narrow (three
seeds give ten distinct resamples), while a t interval says honestly how little three seeds know. A bootstrap over seeds
and, within them, prompts shows beside it what the choice of prompts contributes; `maths.resampling` has others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Coverage of every interval."""
POWER = 0.8
"""Probability with which a difference of the smallest detectable size is found."""


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
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False for a single value, which has no interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

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


def paired_t_p(difference: Estimate) -> float | None:
    """Two-sided p value of the paired t test: that the true mean of the differences is 0.

    Below 0.05 exactly if the 95 % interval of the same estimate excludes 0.

    Args:
        difference: Of paired values, one per seed; from `paired_difference`.

    Returns:
        In [0, 1]; None for a single value. Differences that are all equal leave the test no doubt: 1 if they are
        0, else 0. That says nothing about seeds beyond these.
    """
    if difference.stderr is None:
        return None
    if difference.stderr == 0:
        return 1.0 if difference.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.mean) / difference.stderr, difference.n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number by Holm's step-down procedure, in the given order.

    Rejecting all hypotheses whose adjusted value is below alpha keeps the probability of any false rejection below
    alpha, however the tests depend on one another. The i-th smallest of m values is multiplied by m - i + 1, and never
    falls below the adjusted value of a smaller one.

    Args:
        p_values: [m] in [0, 1].

    Returns:
        [m] in [0, 1]; empty for no values.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    p_m = np.asarray(p_values, dtype=float)
    if not ((p_m >= 0) & (p_m <= 1)).all():
        raise ValueError(f"Parameter `p_values` should be in [0, 1], found `{list(p_values)}`. Leave missing ones out.")
    order_m = np.argsort(p_m, kind="stable")
    factors_m = np.arange(len(p_m), 0, -1)
    adjusted_m = np.empty_like(p_m)
    adjusted_m[order_m] = np.minimum(np.maximum.accumulate(factors_m * p_m[order_m]), 1.0)
    return [float(p) for p in adjusted_m]


def detectable_difference(difference: Estimate) -> float | None:
    """The smallest true difference that a paired t test like this one would find with 80 % probability.

    (t_{0.975, n-1} + t_{0.8, n-1}) * standard error, for a single two-sided test at 5 %: no correction for many pairs.
    This is the usual approximation. The exact power follows a noncentral t distribution, which we would have to invert
    numerically, and the standard error is itself an estimate from n seeds, which matters more: with three seeds the
    true power at this difference is 77 % (two: 73 %, five: 79 %) if the standard error were known to be right.

    Args:
        difference: Of paired values, one per seed; from `paired_difference`.

    Returns:
        >= 0, in the unit of the values; None for a single value. 0 if all differences are equal.
    """
    if difference.stderr is None:
        return None
    quantiles = stats.t.ppf([(1 + LEVEL) / 2, POWER], difference.n - 1)
    return float(quantiles.sum()) * difference.stderr


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
