"""Intervals and tests that reuse the data: bootstraps, and exact tests by exchanging labels. numpy; no torch.

Which one where: over seeds the rule is the t interval of `stats.estimate`. No interval made of resampled means can do
its work with few seeds, because it never leaves the range of the values, and the range of three values holds their true
mean only three times in four (of five: 15 in 16). From `MIN_SEEDS` on a bootstrap may stand beside it, as a check that
does not assume a normal distribution. Over prompts, of which there are hundreds, the cluster bootstrap is sound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from selgen.maths.curves import ROUNDING
from selgen.maths.stats import LEVEL

MIN_SEEDS = 20
"""Fewest seeds over which a bootstrap is worth showing."""
MAX_EXACT = 20
"""Most seeds for which every exchange of labels is tried: 2**20 of them take a second."""


def paired_bootstrap(
    a: Mapping[int, float], b: Mapping[int, float], num_resamples: int = 5000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % interval of the mean of a - b, from resampling the seeds that both have.

    The percentiles are moved outwards to make up for what a plain percentile interval lacks: its variance is too small
    by (n - 1) / n, and it has normal instead of t quantiles. Source of the correction: Hesterberg, What Teachers Should
    Know About the Bootstrap, The American Statistician 2015 ("expanded percentile interval").

    Args:
        a: Value by seed.
        b: Value by seed.
        num_resamples: Bootstrap replicates.
        seed: Of the resampling.

    Returns:
        Lower and upper end; None for fewer than `MIN_SEEDS` common seeds: take the t interval of `paired_difference`.
    """
    x_n = np.asarray([a[key] - b[key] for key in sorted(a.keys() & b.keys())], dtype=float)
    n = len(x_n)
    if n < MIN_SEEDS:
        return None
    drawn_Rn = np.random.default_rng(seed).integers(n, size=(num_resamples, n))
    tail = float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 - LEVEL) / 2, n - 1)))
    return _ends(x_n[drawn_Rn].mean(-1), tail)


def cluster_bootstrap(
    values: Sequence[Sequence[float]], num_resamples: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of all answers, resampling prompts with all of their answers.

    Answers to the same prompt are alike, so that an interval that takes them for independent is too narrow. This one
    says what the choice of prompts contributes for the model at hand, and nothing about other seeds.

    Args:
        values: One sequence per prompt with one number per answer; a paired difference has one number per pair.
        num_resamples: Bootstrap replicates.
        seed: Of the resampling.

    Returns:
        Lower and upper end; None for fewer than two prompts with answers.
    """
    clusters = [v for v in values if len(v)]
    if len(clusters) < 2:
        return None
    total_C = np.asarray([sum(v) for v in clusters], dtype=float)
    count_C = np.asarray([len(v) for v in clusters])
    drawn_RC = np.random.default_rng(seed).integers(len(clusters), size=(num_resamples, len(clusters)))
    return _ends(total_C[drawn_RC].sum(-1) / count_C[drawn_RC].sum(-1), (1 - LEVEL) / 2)


def _ends(replicates_R: NDArray[np.float64], tail: float) -> tuple[float, float]:
    low, high = np.quantile(replicates_R, [tail, 1 - tail])
    return float(low), float(high)


def exchange_p(differences: Sequence[float], num_draws: int = 100_000, seed: int = 0) -> float | None:
    """Two-sided p of the paired permutation test: that a and b could have changed places within every seed.

    Exchanging the labels of a seed changes the sign of its difference, whatever the two results are (a number, or the
    area under a front). All 2**n exchanges are tried; p is the share whose mean is at least as far from 0 as the one
    seen. It assumes no distribution, but cannot fall below `smallest_exchange_p`: five seeds never reach 0.05.

    Args:
        differences: [n] result of a - result of b, one per seed.
        num_draws: Exchanges that are drawn instead of trying all of them, beyond `MAX_EXACT` seeds.
        seed: Of these draws.

    Returns:
        In (0, 1]; None for no differences.
    """
    x_n = np.asarray(differences, dtype=float)
    n = len(x_n)
    if n == 0:
        return None
    seen = abs(x_n.sum())
    slack = ROUNDING * max(1.0, float(np.abs(x_n).sum()))
    if n > MAX_EXACT:
        signs_Dn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(num_draws, n))
        # The labels as they are count as one of the draws, so that p is never 0.
        return float((1 + (np.abs(signs_Dn @ x_n) >= seen - slack).sum()) / (1 + num_draws))
    # An exchange and its opposite have sums of equal size, so the first seed keeps its labels.
    sums = x_n[:1]
    for x in x_n[1:]:
        sums = np.concatenate([sums + x, sums - x])
    return float((np.abs(sums) >= seen - slack).mean())


def smallest_exchange_p(num_seeds: int) -> float:
    """The smallest p that `exchange_p` can give: only the labels as they are and their opposite are as extreme.

    Args:
        num_seeds: At least 1.
    """
    return 2.0 ** (1 - num_seeds)
