"""Gaps between curves equal their integrals by hand, and have the symmetries of a difference."""

import numpy as np
import pytest

from selgen.maths.curves import mean_gap, overlap, value_at


def test_gap_of_parallel_curves_is_their_distance_wherever_their_points_lie():
    def line(x):
        return [0.9 - 0.5 * v for v in x]

    a, b = [0.1, 0.4, 0.8], [0.2, 0.33, 0.5, 0.9]
    assert mean_gap(a, [v + 0.25 for v in line(a)], b, line(b)) == pytest.approx(0.25)


def test_gap_by_hand():
    # a is 1 - x on [0, 1], b a tent with its top at (1/2, 1/2); on the shared [0, 1]: 1/2 - 1/4.
    assert mean_gap([0, 1], [1, 0], [0, 0.5, 1], [0, 0.5, 0]) == pytest.approx(0.25)
    # On [1/2, 1], which is all that b covers, b has mean 1/4 and a has mean 1/4.
    assert mean_gap([0, 1], [1, 0], [0.5, 1], [0.5, 0]) == 0.0
    # Only [1/2, 3/4] is shared: a has mean 3/8, b is 1.
    assert mean_gap([0, 0.75], [1, 0.25], [0.5, 2], [1, 1]) == pytest.approx(3 / 8 - 1)


def test_gap_agrees_with_a_fine_sum():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.uniform(0, 1, size=(2, 5)), rng.uniform(0, 1, size=(2, 4))
        shared = overlap(list(a[0]), list(b[0]))
        if shared is None:
            continue
        x = np.linspace(*shared, 20_001)
        fine = [np.interp(x, *c[:, np.argsort(c[0])]).mean() for c in (a, b)]
        assert mean_gap(*a.tolist(), *b.tolist()) == pytest.approx(fine[0] - fine[1], abs=1e-3)


def test_a_single_point_is_compared_at_its_place():
    assert mean_gap([0.5], [0.7], [0, 1], [0, 1]) == pytest.approx(0.2)
    assert mean_gap([0.5], [0.7], [0.5], [0.4]) == pytest.approx(0.3)


def test_curves_that_touch_are_compared_where_they_touch():
    assert mean_gap([0, 0.5], [1, 0.8], [0.5, 1], [0.1, 0]) == pytest.approx(0.7)


def test_curves_that_share_no_range_have_no_gap():
    assert overlap([0.0, 0.4], [0.5, 0.9]) is None
    assert mean_gap([0.0, 0.4], [1, 1], [0.5, 0.9], [0, 0]) is None
    assert mean_gap([], [], [0.5], [0]) is None


def test_points_at_the_same_place_count_as_their_average():
    assert mean_gap([0.5, 0.5, 0.5], [0.2, 0.4, 0.9], [0, 1], [0, 0]) == pytest.approx(0.5)
    assert mean_gap([0, 1, 1], [0, 0, 1], [0, 1], [0, 0]) == pytest.approx(0.25)


def test_gap_changes_sign_when_the_curves_change_places_and_ignores_the_order_of_points():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 1, size=(2, 6)), rng.uniform(0, 1, size=(2, 3))
    gap = mean_gap(*a.tolist(), *b.tolist())
    assert gap is not None and mean_gap(*b.tolist(), *a.tolist()) == -gap
    assert mean_gap(*a[:, rng.permutation(6)].tolist(), *b.tolist()) == gap


def test_gap_scales_with_the_values_and_not_with_the_places():
    rng = np.random.default_rng(2)
    (at_a, a), (at_b, b) = rng.uniform(0, 1, size=(2, 6)), rng.uniform(0, 1, size=(2, 3))
    gap = mean_gap(at_a, a, at_b, b)
    assert mean_gap(at_a, 3 * a + 1, at_b, 3 * b + 1) == pytest.approx(3 * gap)
    assert mean_gap(7 * at_a - 2, a, 7 * at_b - 2, b) == pytest.approx(gap)


def test_a_curve_against_itself_with_more_points_on_it_has_no_gap_at_all():
    # Interpolated places differ in the last digits; that must not count as a difference that all seeds agree on.
    assert mean_gap([0.1, 0.7], [0.9, 0.3], [0.1, 0.3, 0.5, 0.7], [0.9, 0.7, 0.5, 0.3]) == 0.0


@pytest.mark.parametrize("bad", [([0.1, 0.2], [0.5]), ([0.1], [float("nan")]), ([float("inf")], [0.1])])
def test_gap_refuses_unmeasured_numbers(bad):
    with pytest.raises(ValueError, match="Leave points out"):
        mean_gap(*bad, [0, 1], [0, 1])


def test_value_by_hand_and_never_beyond_the_curve():
    at, value = [0.6, 0.2, 0.4], [0.1, 0.9, 0.5]
    assert value_at(at, value, 0.3) == pytest.approx(0.7)
    assert value_at(at, value, 0.45) == pytest.approx(0.4)
    assert [value_at(at, value, place) for place in (0.2, 0.4, 0.6)] == pytest.approx([0.9, 0.5, 0.1])
    assert value_at(at, value, 0.19) is None and value_at(at, value, 0.61) is None
    assert value_at([], [], 0.3) is None
    assert value_at([0.3, 0.3], [0.2, 0.4], 0.3) == pytest.approx(0.3)


def test_an_end_that_is_missed_by_a_rounding_error_is_reached():
    # .6 + .9 * (.8 - .6) is .78 but for the last digit.
    assert value_at([0.6 + 0.9 * (0.8 - 0.6), 0.5], [0.4, 0.8], 0.78) == pytest.approx(0.4)
    assert value_at([0.78, 0.5], [0.4, 0.8], 0.6 + 0.9 * (0.8 - 0.6)) == pytest.approx(0.4)
