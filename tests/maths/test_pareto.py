"""Pareto fronts and hypervolumes agree with their definitions."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selgen.maths.pareto import attainment, dominated, hypervolume, pareto_front

# A coarse grid makes ties and duplicates common.
coordinate = st.integers(0, 8).map(lambda k: k / 8)
clouds = st.lists(st.tuples(coordinate, coordinate), max_size=12)


# Numbers off any grid, some beyond any reference point, mixed with a few that make ties.
number = st.one_of(st.floats(-0.5, 1.5, allow_nan=False), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
places = st.lists(st.tuples(number, number), max_size=10)
front_sets = st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=6), min_size=1, max_size=6)


def dominates(p, q):
    return all(a >= b for a, b in zip(p, q, strict=True)) and any(a > b for a, b in zip(p, q, strict=True))


@given(clouds)
def test_dominated_is_the_definition(points):
    assert dominated(points) == [any(dominates(p, q) for p in points) for q in points]


@given(clouds)
def test_front_holds_all_undominated_points_in_order(points):
    front = pareto_front(points)
    assert sorted(front) == [i for i, is_dominated in enumerate(dominated(points)) if not is_dominated]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert [points[i][1] for i in front] == sorted((points[i][1] for i in front), reverse=True)


@settings(deadline=None)
@given(clouds)
def test_hypervolume_counts_covered_cells(points):
    cells = sum(any(x > i / 8 and y > j / 8 for x, y in points) for i in range(8) for j in range(8))
    assert hypervolume(points) == pytest.approx(cells / 64)


@given(clouds, st.tuples(coordinate, coordinate))
def test_hypervolume_never_falls_when_a_point_is_added(points, extra):
    assert hypervolume([*points, extra]) >= hypervolume(points) - 1e-12


def test_hypervolume_by_hand():
    assert hypervolume([(0.5, 1.0), (1.0, 0.5)]) == pytest.approx(0.75)
    assert hypervolume([(0.5, 1.0), (1.0, 0.5)], reference=(0.5, 0.25)) == pytest.approx(0.125)
    assert hypervolume([(0.4, 1.0)], reference=(0.5, 0.0)) == 0


@settings(deadline=None)
@given(places, st.tuples(number, number))
def test_hypervolume_is_the_area_of_the_cells_that_some_point_covers(points, reference):
    # The coordinates of all points cut the plane into cells, each of which is covered as a whole or not at all.
    xs, ys = (sorted({reference[k], *(p[k] for p in points if p[k] > reference[k])}) for k in (0, 1))
    area = sum(
        (x1 - x0) * (y1 - y0)
        for x0, x1 in pairwise(xs)
        for y0, y1 in pairwise(ys)
        if any(x >= x1 and y >= y1 for x, y in points)
    )
    assert hypervolume(points, reference) == pytest.approx(area, abs=1e-12)


@settings(deadline=None)
@given(front_sets)
def test_attainment_surfaces_are_the_corners_of_what_enough_fronts_attain(fronts):
    found = attainment(fronts)
    # Corners can only lie where some point has its x and some point its y.
    grid = {(p[0], q[1]) for front in fronts for p in front for other in fronts for q in other}

    def corners(num_attaining):
        attained = [
            (x, y)
            for x, y in grid
            if sum(any(p[0] >= x and p[1] >= y for p in front) for front in fronts) >= num_attaining
        ]
        return sorted(p for p in attained if not any(dominates(q, p) for q in attained))

    n = len(fronts)
    assert (found.best, found.worst, found.num_fronts) == (corners(1), corners(n), n)
    assert found.median == corners(next(k for k in range(1, n + 1) if 2 * k >= n))


@given(front_sets)
def test_attainment_does_not_depend_on_the_order_of_fronts_or_points(fronts):
    assert attainment([front[::-1] for front in fronts[::-1]]) == attainment(fronts)


@given(st.lists(st.tuples(number, number), min_size=1, max_size=10))
def test_all_surfaces_of_a_single_front_are_the_front(points):
    front = sorted({points[i] for i in pareto_front(points)})
    found = attainment([points])
    assert found.best == found.median == found.worst == front


def test_attainment_by_hand():
    found = attainment([[(0.2, 0.9), (0.8, 0.4)], [(0.5, 0.6)], [(0.6, 0.5)]])
    assert found.best == [(0.2, 0.9), (0.5, 0.6), (0.6, 0.5), (0.8, 0.4)]
    assert found.median == [(0.2, 0.6), (0.5, 0.5), (0.6, 0.4)]
    assert found.worst == [(0.2, 0.5), (0.5, 0.4)]


@pytest.mark.parametrize("fronts", [[], [[(0.1, 0.2)], []]])
def test_attainment_refuses_to_guess_what_an_empty_front_attains(fronts):
    with pytest.raises(ValueError, match="Leave out seeds without points"):
        attainment(fronts)
