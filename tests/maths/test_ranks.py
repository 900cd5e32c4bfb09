"""Rank correlation by hand and against scipy; intervals that draw clusters whole; what is undefined says why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from selgen.maths.ranks import spearman, spearman_interval

NUMBERS = st.integers(-5, 5).map(float)


def test_ranks_by_hand():
    # Ranks 1 2 3 4 and 2 1 4 3: rho = 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15) = 0.6.
    assert spearman([0.1, 0.2, 0.5, 9.0], [20, 10, 40, 30]).rho == pytest.approx(0.6)


def test_equal_values_share_their_mean_rank():
    # Ranks 1.5 1.5 3 and 1 2 3, centred -.5 -.5 1 and -1 0 1: 1.5 / sqrt(1.5 * 2).
    assert spearman([1, 1, 2], [1, 2, 3]).rho == pytest.approx(1.5 / np.sqrt(3))


@pytest.mark.parametrize(("sign", "rho"), [(1, 1.0), (-1, -1.0)])
def test_any_monotone_relation_is_perfect(sign, rho):
    x = [0.0, 1.0, 2.0, 3.0]
    assert spearman(x, [sign * 10**v for v in x]).rho == pytest.approx(rho)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=20))
def test_agrees_with_scipy_wherever_it_is_defined(pairs):
    x, y = zip(*pairs, strict=True)
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found.rho is None and "are equal" in str(found.reason)
    else:
        assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1, 2], [2, 1], "fewer than 3 pairs"),
        ([], [], "fewer than 3 pairs"),
        ([1, 1, 1], [1, 2, 3], "all values of the first quantity are equal"),
        ([1, 2, 3], [0, 0, 0], "all values of the second quantity are equal"),
    ],
)
def test_what_is_undefined_has_a_reason_and_no_interval(x, y, reason):
    found = spearman(x, y)
    assert (found.rho, found.reason, found.num_pairs) == (None, reason, len(x))
    assert spearman_interval(x, y, list(range(len(x)))) is None


def test_numbers_that_are_not_finite_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="finite"):
        spearman([1, 2, float("nan")], [1, 2, 3])
    with pytest.raises(ValueError, match="equally long"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="as long as `x`"):
        spearman_interval([1, 2, 3], [1, 2, 3], [1, 2])


def test_a_perfect_relation_has_an_interval_without_width():
    x = list(range(12))
    assert spearman_interval(x, [-v for v in x], [v // 2 for v in x]) == pytest.approx((-1.0, -1.0))


def test_an_unrelated_pair_has_an_interval_around_zero_and_the_same_one_each_time():
    rng = np.random.default_rng(1)
    x, y, clusters = rng.normal(size=60), rng.normal(size=60), [i // 5 for i in range(60)]
    low, high = spearman_interval(x, y, clusters)
    assert low < 0 < high
    assert spearman_interval(x, y, clusters) == (low, high)


def test_clusters_are_drawn_whole():
    """Ten copies of the same six pairs know no more than the six; resampled one by one they would seem to."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=6), rng.normal(size=6)
    once = spearman_interval(x, y, range(6))
    copies = spearman_interval(np.tile(x, 10), np.tile(y, 10), [i % 6 for i in range(60)])
    alone = spearman_interval(np.tile(x, 10), np.tile(y, 10), range(60))
    assert copies == pytest.approx(once, abs=0.02)
    assert alone[1] - alone[0] < 0.6 * (copies[1] - copies[0])


def test_the_interval_holds_the_correlation_and_stays_among_correlations():
    """All pairs of a cluster share x, so that a repeated cluster is a larger tie than any in the data."""
    x = [k for k in range(8) for _ in range(3)]
    y = [-v - 0.5 * (i % 3) for i, v in enumerate(x)]
    low, high = spearman_interval(x, y, x)
    assert -1 <= low <= spearman(x, y).rho <= high <= 1


def test_two_clusters_and_many_undefined_resamples_give_no_interval():
    assert spearman_interval([1, 2, 3, 4], [1, 2, 3, 5], ["a", "a", "b", "b"]) is None
    # Nearly every pair is the same: a resample without the odd one has no ranks to correlate.
    assert spearman_interval([0, 0, 0, 0, 1], [0, 0, 0, 0, 1], range(5)) is None
