"""Each interval holds the truth as often as it says, on simulated sweeps; those that we do not use for it do not.

A sweep is simulated as it arises: a method's value on a seed is the seed's effect (shared by all methods), the method's
own effect on that seed, and the mean over prompts of answers that are right or wrong.
"""

import numpy as np
import pytest

from selgen.maths.resampling import cluster_bootstrap, paired_bootstrap
from selgen.maths.stats import LEVEL, estimate, hierarchical_bootstrap, paired_difference

TOLERANCE = 0.02
"""How far a coverage may be from its nominal value."""
GAIN = 0.15


def covers(interval, truth):
    return interval is not None and interval[0] <= truth <= interval[1]


def t_interval(values):
    e = estimate(list(values))
    return e.low, e.high


def sweeps(num_seeds, num_sweeps, rng, prompts=100):
    """[sweeps, seeds] values of two methods, the first better by `GAIN` in expectation."""
    shape = (num_sweeps, num_seeds)
    shared = rng.normal(0, 0.06, shape)
    rates = [0.4 + gain + shared + rng.normal(0, 0.03, shape) for gain in (GAIN, 0.0)]
    return [rng.binomial(prompts, np.clip(rate, 0, 1)) / prompts for rate in rates]


@pytest.mark.parametrize("num_seeds", [3, 5, 20])
def test_the_paired_t_interval_covers_at_its_level(num_seeds):
    a, b = sweeps(num_seeds, 3000, np.random.default_rng(num_seeds))
    found = [paired_difference(dict(enumerate(x)), dict(enumerate(y))) for x, y in zip(a, b, strict=True)]
    coverage = np.mean([covers((d.low, d.high), GAIN) for d in found])
    assert coverage == pytest.approx(LEVEL, abs=TOLERANCE)


@pytest.mark.parametrize("num_seeds", [3, 5, 20])
def test_the_t_interval_of_a_mean_covers_at_its_level(num_seeds):
    _, b = sweeps(num_seeds, 3000, np.random.default_rng(10 + num_seeds))
    assert np.mean([covers(t_interval(x), 0.4) for x in b]) == pytest.approx(LEVEL, abs=TOLERANCE)


@pytest.mark.parametrize(("num_seeds", "expected"), [(3, 0.75), (5, 0.85)])
def test_a_plain_percentile_bootstrap_over_few_seeds_does_not(num_seeds, expected):
    rng = np.random.default_rng(20 + num_seeds)
    a, b = sweeps(num_seeds, 1000, rng)
    # One number per seed leaves only seeds to resample.
    found = [hierarchical_bootstrap([[d] for d in x - y], num_resamples=1000) for x, y in zip(a, b, strict=True)]
    coverage = np.mean([covers(interval, GAIN) for interval in found])
    assert coverage == pytest.approx(expected, abs=0.05)
    assert coverage < LEVEL - TOLERANCE


def test_resampling_prompts_too_does_not_make_up_for_few_seeds():
    rng = np.random.default_rng(30)
    found = []
    for _ in range(300):
        rates = np.clip(rng.normal(0.5, 0.15, 5), 0, 1)
        found.append(hierarchical_bootstrap(rng.binomial(1, rates, (50, 5)).T.tolist(), num_resamples=400))
    assert np.mean([covers(interval, 0.5) for interval in found]) < LEVEL - TOLERANCE


def test_the_paired_bootstrap_covers_at_its_level_from_twenty_seeds_on():
    a, b = sweeps(20, 2000, np.random.default_rng(40))
    found = [paired_bootstrap(dict(enumerate(x)), dict(enumerate(y)), 1000) for x, y in zip(a, b, strict=True)]
    assert np.mean([covers(interval, GAIN) for interval in found]) == pytest.approx(LEVEL, abs=TOLERANCE)


def test_the_cluster_bootstrap_covers_at_its_level_where_taking_answers_for_independent_does_not():
    rng = np.random.default_rng(50)
    clustered, independent = [], []
    for _ in range(1000):
        # 60 prompts of different difficulty, four answers each
        right = rng.binomial(1, rng.beta(0.6, 0.9, 60)[:, None], (60, 4)).astype(float)
        clustered.append(cluster_bootstrap(right.tolist(), num_resamples=600))
        independent.append(cluster_bootstrap(right.reshape(-1, 1).tolist(), num_resamples=600))
    assert np.mean([covers(interval, 0.4) for interval in clustered]) == pytest.approx(LEVEL, abs=TOLERANCE)
    assert np.mean([covers(interval, 0.4) for interval in independent]) < LEVEL - 2 * TOLERANCE
