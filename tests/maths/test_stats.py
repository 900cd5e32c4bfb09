"""Estimates equal their closed forms."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from selgen.maths.stats import (
    detectable_difference,
    estimate,
    hierarchical_bootstrap,
    holm,
    paired_difference,
    paired_t_p,
    wilson,
)


def test_estimate_by_hand():
    e = estimate([1.0, 2.0, 3.0])
    assert e is not None and e.n == 3
    assert e.mean == 2.0
    assert e.stderr == pytest.approx(1 / math.sqrt(3))
    # t quantile .975 with 2 degrees of freedom, from tables
    assert e.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert e.low == pytest.approx(2.0 - 4.302653 / math.sqrt(3), rel=1e-5)


def test_estimate_agrees_with_scipy():
    x = np.random.default_rng(0).normal(size=7)
    low, high = scipy_stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    e = estimate(list(x))
    assert e is not None and (e.low, e.high) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_has_no_estimate():
    e = estimate([0.4])
    assert e is not None and (e.mean, e.stderr, e.half_width, e.n) == (0.4, None, None, 1)
    assert not e.above_zero
    assert estimate([]) is None


def test_equal_values_have_an_interval_of_zero_width():
    e = estimate([0.25, 0.25, 0.25])
    assert e is not None and (e.low, e.high) == (0.25, 0.25) and e.above_zero


def test_estimate_refuses_nan():
    with pytest.raises(ValueError, match="Leave missing seeds out"):
        estimate([1.0, float("nan")])


def test_paired_difference_uses_common_seeds_only_and_ignores_what_seeds_share():
    noise = {0: 10.0, 1: -7.0, 2: 3.0, 3: 99.0}
    a = {seed: noise[seed] + 0.5 for seed in (0, 1, 2)}
    d = paired_difference(a, noise)
    assert d is not None and d.n == 3
    assert d.mean == pytest.approx(0.5) and d.half_width == pytest.approx(0, abs=1e-9)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_t_interval_covers_at_its_level():
    rng = np.random.default_rng(0)
    estimates = [estimate(list(rng.normal(size=3))) for _ in range(2000)]
    covered = np.mean([e is not None and e.low is not None and e.low <= 0 <= e.high for e in estimates])
    assert covered == pytest.approx(0.95, abs=0.015)


def test_paired_p_value_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for n in (2, 3, 8):
        a, b = rng.normal(size=n), rng.normal(size=n)
        d = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
        assert paired_t_p(d) == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)


def test_p_value_is_below_5_percent_exactly_if_the_interval_excludes_zero():
    rng = np.random.default_rng(1)
    for shift in np.linspace(-3, 3, 61):
        e = estimate(list(shift + rng.normal(size=3)))
        assert (paired_t_p(e) < 0.05) == e.excludes_zero


def test_intervals_below_zero_exclude_it_too():
    assert estimate([-1.0, -1.1, -1.2]).excludes_zero and not estimate([-1.0, -1.1, -1.2]).above_zero
    assert not estimate([-1.0, 1.0]).excludes_zero and not estimate([-1.0]).excludes_zero


def test_equal_differences_leave_the_test_no_doubt_and_one_value_no_test():
    assert paired_t_p(estimate([0.25, 0.25, 0.25])) == 0.0
    assert paired_t_p(estimate([0.0, 0.0])) == 1.0
    assert paired_t_p(estimate([0.2])) is None
    assert detectable_difference(estimate([0.25, 0.25])) == 0.0
    assert detectable_difference(estimate([0.2])) is None


def test_holm_by_hand():
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1; the last may not fall below the third.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(2)
    for _ in range(50):
        p = np.round(rng.beta(0.5, 2, size=rng.integers(1, 8)), 2)
        adjusted = holm(list(p))
        for alpha in (0.011, 0.0503, 0.207):
            # By definition: from the smallest p on, reject while p < alpha / (hypotheses left), then stop for good.
            rejected: set[int] = set()
            for left, i in zip(range(len(p), 0, -1), np.argsort(p), strict=True):
                if p[i] >= alpha / left:
                    break
                rejected.add(int(i))
            assert {i for i, q in enumerate(adjusted) if q < alpha} == rejected


def test_holm_follows_the_order_of_its_input():
    p = [0.03, 0.2, 0.001, 0.04]
    order = [2, 0, 3, 1]
    assert holm([p[i] for i in order]) == [holm(p)[i] for i in order]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses_what_is_no_probability(p):
    with pytest.raises(ValueError, match="`p_values` should be in"):
        holm([0.1, p])


def test_detectable_difference_by_hand():
    # t quantiles .975 and .8 with 2 degrees of freedom, from tables
    assert detectable_difference(estimate([1.0, 2.0, 3.0])) == pytest.approx((4.302653 + 1.060660) / math.sqrt(3))


@pytest.mark.parametrize(("n", "power"), [(2, 0.73), (3, 0.77), (5, 0.79), (20, 0.80)])
def test_detectable_difference_is_found_about_four_times_in_five(n, power):
    # Unit variance: the standard error that we state is 1 / sqrt(n); the tests themselves must estimate it.
    example = np.linspace(-1, 1, n)
    size = detectable_difference(estimate(list(example / example.std(ddof=1))))
    x = np.random.default_rng(n).normal(size, 1.0, size=(40_000, n))
    assert np.mean(scipy_stats.ttest_1samp(x, 0.0, axis=1).pvalue < 0.05) == pytest.approx(power, abs=0.01)


def test_wilson_solves_its_quadratic():
    # The ends are the rates p at which |mean - p| = z * sqrt(p (1 - p) / n).
    for p in wilson(0.3, 50):
        assert abs(0.3 - p) == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 50), rel=1e-6)


def test_wilson_at_the_edges():
    low, high = wilson(0.0, 200)
    z2 = 1.959964**2
    assert low == 0 and high == pytest.approx(z2 / (200 + z2), rel=1e-6)
    assert wilson(1.0, 200) == pytest.approx((1 - high, 1.0))


@pytest.mark.parametrize(("mean", "n", "named"), [(0.5, 0, "`n`"), (1.5, 10, "`mean`")])
def test_wilson_refuses_what_is_no_rate(mean, n, named):
    with pytest.raises(ValueError, match=named):
        wilson(mean, n)


def test_bootstrap_of_one_seed_is_the_prompt_bootstrap():
    x = np.random.default_rng(1).normal(size=400)
    interval = hierarchical_bootstrap([list(x)])
    assert interval is not None
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert interval == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_bootstrap_without_prompt_noise_is_the_seed_bootstrap():
    # Two seeds at 0 and 1: the mean of two draws is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    assert hierarchical_bootstrap([[0.0] * 50, [1.0] * 5]) == (0.0, 1.0)
    assert hierarchical_bootstrap([[0.3] * 50, [0.3] * 5]) == pytest.approx((0.3, 0.3))


def test_bootstrap_is_reproducible_and_absent_without_prompts():
    data = [[0.0, 1.0, 1.0], [1.0, 0.0]]
    assert hierarchical_bootstrap(data, seed=3) == hierarchical_bootstrap(data, seed=3)
    assert hierarchical_bootstrap([]) is None
    assert hierarchical_bootstrap([[1.0], []]) is None
