"""Pareto fronts and hypervolumes agree with their definitions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selgen.maths.pareto import dominated, hypervolume, pareto_front

# A coarse grid makes ties and duplicates common.
coordinate = st.integers(0, 8).map(lambda k: k / 8)
clouds = st.lists(st.tuples(coordinate, coordinate), max_size=12)


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
