"""Bootstraps equal their closed forms where these exist, and the exchange test equals its definition."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selgen.maths.pareto import hypervolume
from selgen.maths.resampling import (
    MAX_EXACT,
    cluster_bootstrap,
    exchange_p,
    paired_bootstrap,
    smallest_exchange_p,
)
from selgen.maths.stats import paired_difference

tenths = st.integers(-5, 5).map(lambda k: k / 10)
fronts = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=4)


@given(st.lists(tenths, min_size=1, max_size=8))
def test_exchange_p_counts_sign_patterns_at_least_as_extreme(differences):
    n = len(differences)
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((1, -1), repeat=n)]
    extreme = [abs(total) >= abs(sum(differences)) - 1e-9 for total in sums]
    assert exchange_p(differences) == pytest.approx(sum(extreme) / 2**n)


@settings(deadline=None)
@given(st.lists(st.tuples(fronts, fronts), min_size=1, max_size=5))
def test_exchange_p_of_areas_is_the_permutation_test_between_two_methods_fronts(pairs):
    def statistic(relabelled):
        return abs(sum(hypervolume(a) - hypervolume(b) for a, b in relabelled))

    seen = statistic(pairs)
    swaps = product((False, True), repeat=len(pairs))
    exchanged = [[(b, a) if s else (a, b) for s, (a, b) in zip(swap, pairs, strict=True)] for swap in swaps]
    p = np.mean([statistic(labels) >= seen - 1e-9 for labels in exchanged])
    assert exchange_p([hypervolume(a) - hypervolume(b) for a, b in pairs]) == pytest.approx(p)


@pytest.mark.parametrize(("n", "smallest"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_seeds_that_all_agree_give_the_smallest_possible_p(n, smallest):
    assert smallest_exchange_p(n) == smallest == exchange_p([0.1 + 0.01 * i for i in range(n)])


def test_no_difference_and_none_measured_leave_nothing_to_reject():
    assert exchange_p([0.0, 0.0, 0.0]) == 1.0
    assert exchange_p([0.2, -0.2]) == 1.0
    assert exchange_p([]) is None


def test_exchange_p_keeps_its_level_and_is_uniform_under_the_null_hypothesis():
    x = np.random.default_rng(0).standard_cauchy((3000, 7))  # no mean, no variance: nothing a t test could rely on
    p = np.asarray([exchange_p(list(row)) for row in x])
    for alpha in (2 / 64, 8 / 64, 32 / 64):
        assert np.mean(p <= alpha) == pytest.approx(alpha, abs=0.025)


def test_exchanges_drawn_beyond_the_exact_range_agree_with_the_exact_p():
    x = list(np.random.default_rng(3).normal(0.45, 1.0, MAX_EXACT))
    exact = exchange_p(x)
    # A seed without a difference changes no sum, but makes one seed too many to try everything.
    assert exchange_p([*x, 0.0]) == pytest.approx(exact, abs=4 * math.sqrt(exact / 100_000))
    assert exchange_p([1.0] * 40) == pytest.approx(1 / 100_001)


def test_paired_bootstrap_leaves_few_seeds_to_the_t_interval():
    a = {seed: float(seed % 7) for seed in range(20)}
    b = {seed: 0.0 for seed in range(19)}
    assert paired_bootstrap(a, b) is None
    assert paired_bootstrap(a, b | {19: 0.0}) is not None


def test_paired_bootstrap_is_near_the_t_interval_where_both_are_sound():
    rng = np.random.default_rng(4)
    shared, own = rng.normal(0, 5, 60), rng.normal(0.3, 1, 60)
    a, b = dict(enumerate(shared + own)), dict(enumerate(shared))
    t, found = paired_difference(a, b), paired_bootstrap(a, b)
    assert found == pytest.approx((t.low, t.high), abs=0.05 * t.half_width)
    assert paired_bootstrap(b, a) == pytest.approx((-t.high, -t.low), abs=0.05 * t.half_width)
    assert found == paired_bootstrap(a, b)


def test_cluster_bootstrap_of_prompts_with_one_answer_is_the_normal_interval():
    x = np.random.default_rng(5).normal(size=400)
    half = 1.96 * x.std() / math.sqrt(len(x))
    found = cluster_bootstrap([[v] for v in x])
    assert found == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_repeating_every_answer_teaches_the_cluster_bootstrap_nothing():
    x = np.random.default_rng(6).normal(size=100)
    assert cluster_bootstrap([[v] * 5 for v in x]) == pytest.approx(cluster_bootstrap([[v] for v in x]))


def test_cluster_bootstrap_weighs_answers_alike():
    # Whatever is drawn, the answers are all 0.25; a prompt without answers has no say.
    assert cluster_bootstrap([[0.25] * 9, [0.25], []]) == (0.25, 0.25)
    # Draws of two prompts, of 1 answer at 1 and of 3 at 0: both, or one of them twice.
    assert cluster_bootstrap([[1.0], [0.0, 0.0, 0.0]]) == (0.0, 1.0)
    assert cluster_bootstrap([[1.0, 0.0], []]) is None
