"""Updates against what alignment did to the weights, by hand and against the published formulas."""

from __future__ import annotations

import math

import pytest
import torch

from selgen.maths.subspace import onto_alignment, overlap, similarity, square_norm

torch.manual_seed(0)
V, B, A = (torch.randn(shape, dtype=torch.float64) for shape in ((5, 4), (5, 2), (2, 4)))


def official(v, b, a):
    """P B and the cosine as Hsu et al. (2024) write them, with every [out, in] and [out, out] matrix formed."""
    p = v @ v.T / math.sqrt(sum(float(x) ** 2 for x in v.flatten()))
    ours, theirs = (p @ b @ a).flatten(), (b @ a).flatten()
    return p @ b, float(ours @ theirs) / math.sqrt(float(ours @ ours) * float(theirs @ theirs))


def test_projection_and_cosine_are_the_published_ones():
    expected, cosine = official(V, B, A)
    projected = onto_alignment(V, B)
    torch.testing.assert_close(projected, expected, rtol=0, atol=1e-12)
    assert similarity(projected, B, A) == pytest.approx(cosine, abs=1e-12)


def test_a_hand_example():
    """V = diag(3, 4): |V| = 5 and V V^T = diag(9, 16), so B = (1, 1) becomes (9/5, 16/5); A = (1) drops out."""
    v, b, a = torch.diag(torch.tensor([3.0, 4.0])), torch.ones(2, 1), torch.ones(1, 2)
    projected = onto_alignment(v, b)
    assert projected.flatten().tolist() == pytest.approx([1.8, 3.2])
    assert similarity(projected, b, a) == pytest.approx((9 + 16) / math.sqrt(2 * (81 + 256)))


def test_alignment_that_moved_nothing_has_no_projection():
    assert onto_alignment(torch.zeros(3, 2), torch.ones(3, 1)) is None


@pytest.mark.parametrize("zero", range(3))
def test_an_update_of_zero_has_no_cosine(zero):
    parts = [torch.zeros_like(x) if i == zero else x for i, x in enumerate((B, 2 * B, A))]
    assert similarity(*parts) is None


def test_the_cosine_ignores_scaling_and_is_1_for_the_same_direction():
    assert similarity(7 * B, B, A) == pytest.approx(1)
    assert similarity(-B, B, 3 * A) == pytest.approx(-1)


def test_the_cosine_with_the_projection_is_never_negative():
    """P is positive semidefinite."""
    for _ in range(20):
        v, b, a = torch.randn(6, 3), torch.randn(6, 2), torch.randn(2, 5)
        assert similarity(onto_alignment(v, b), b, a) >= 0


@pytest.mark.parametrize(("absolute", "expected"), [(False, 121 + 0 + 16 + 1), (True, 11 + 0 + 4 + 1)])
def test_overlap_sums_all_pairs_of_rows(absolute, expected):
    """A = ((1, 2), (0, 1)) and A' = ((3, 4), (2, -1)) have O = A A'^T = ((11, 0), (4, -1))."""
    a, other = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [2.0, -1.0]])
    assert overlap(a, other, absolute).item() == expected


def test_overlap_of_orthogonal_rows_is_zero():
    assert overlap(torch.eye(4)[:2], torch.eye(4)[2:]).item() == 0


def test_the_gradient_of_overlap():
    a, other = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(overlap, (a, other))


def test_the_square_norm_is_that_of_the_product():
    assert square_norm(B, A).item() == pytest.approx((B @ A).square().sum().item(), abs=1e-12)
    by_hand = square_norm(torch.tensor([[2.0], [1.0]]), torch.tensor([[3.0, 4.0]]))
    assert by_hand.item() == 6**2 + 8**2 + 3**2 + 4**2
    wanted = B.clone().requires_grad_(), A.clone().requires_grad_()
    assert torch.autograd.gradcheck(square_norm, wanted)
