"""Projection against vectors worked out by hand, and its properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selgen.maths.gradients import dot, project_out

# <g, a> = 3*1 + 4*0 + 2*2 = 7, |a|^2 = 1 + 0 + 4 = 5; per tensor: 3/1 and 4/4.
G = {"x": torch.tensor([3.0, 4.0]), "y": torch.tensor([[2.0]])}
A = {"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([[2.0]])}
# Opposite in x alone: <g, -> = -3 in x, 4 in y; together 1, |.|^2 = 5.
C = {"x": torch.tensor([-1.0, 0.0]), "y": torch.tensor([[2.0]])}


def lists(grads):
    return {name: g.flatten().tolist() for name, g in grads.items()}


@pytest.mark.parametrize(
    ("along", "when", "scope", "expected"),
    [
        (A, "always", "global", {"x": [3 - 7 / 5, 4], "y": [2 - 7 / 5 * 2]}),
        (A, "always", "tensor", {"x": [0, 4], "y": [0]}),
        (A, "conflict", "global", {"x": [3, 4], "y": [2]}),
        (A, "conflict", "tensor", {"x": [3, 4], "y": [2]}),
        (C, "always", "global", {"x": [3 + 1 / 5, 4], "y": [2 - 2 / 5]}),
        (C, "always", "tensor", {"x": [0, 4], "y": [0]}),
        (C, "conflict", "global", {"x": [3, 4], "y": [2]}),
        (C, "conflict", "tensor", {"x": [0, 4], "y": [2]}),
    ],
)
def test_scopes_and_conditions_agree_with_hand_computed_vectors(along, when, scope, expected):
    found = lists(project_out(G, along, when, scope))
    assert {name: pytest.approx(values, abs=1e-6) for name, values in expected.items()} == found


def test_a_global_conflict_is_projected_as_a_whole():
    along = {"x": torch.tensor([-1.0, 0.0]), "y": torch.tensor([[1.0]])}  # <g, a> = -3 + 2 = -1, |a|^2 = 2
    found = lists(project_out(G, along, "conflict", "global"))
    assert found == {"x": pytest.approx([2.5, 4]), "y": pytest.approx([2.5])}


@pytest.mark.parametrize("scope", ["global", "tensor"])
@pytest.mark.parametrize("when", ["always", "conflict"])
def test_no_direction_leaves_the_gradient_as_it_is(when, scope):
    assert lists(project_out(G, {n: torch.zeros_like(g) for n, g in G.items()}, when, scope)) == lists(G)


vectors = st.lists(st.floats(-10, 10), min_size=6, max_size=6)


def split(values):
    return {"x": torch.tensor(values[:2], dtype=torch.float64), "y": torch.tensor(values[2:], dtype=torch.float64)}


@given(vectors, vectors)
def test_the_result_has_no_component_along_the_direction(g, a):
    projected = project_out(split(g), split(a))
    assert abs(dot(projected, split(a)).item()) <= 1e-9 * (1 + dot(split(a), split(a)).item()) * 100


@given(vectors, vectors, st.floats(0.01, 100))
def test_the_direction_s_length_does_not_matter(g, a, scale):
    if dot(split(a), split(a)) < 1e-6:
        return
    one, other = (project_out(split(g), split([s * v for v in a])) for s in (1, scale))
    assert all(torch.allclose(one[name], other[name], atol=1e-8) for name in one)


@given(vectors, vectors)
def test_projecting_twice_changes_nothing_more(g, a):
    if dot(split(a), split(a)) < 1e-6:
        return
    once = project_out(split(g), split(a))
    twice = project_out(once, split(a))
    assert all(torch.allclose(once[name], twice[name], atol=1e-8) for name in once)
