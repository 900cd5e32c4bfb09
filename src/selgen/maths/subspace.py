"""LoRA updates against other directions of weight space. Pure functions on tensors, in the dtype of their input.

Legend: O outputs and I inputs of a linear layer, R and S ranks. An update is B A with B [O, R] and A [R, I].
"""

from __future__ import annotations

import torch
from torch import Tensor


def onto_alignment(v_OI: Tensor, b_OR: Tensor) -> Tensor | None:
    """P B with P = V V^T / |V|_F [O, O], which is never formed; None where V is 0 and P is 0/0.

    P is no projection in the strict sense: P P differs from P, and P B has the size of |V| |B|.

    Args:
        v_OI: What alignment did to the layer's weight, W_aligned - W_base.
        b_OR: The update's left factor.
    """
    norm = torch.linalg.matrix_norm(v_OI)
    return v_OI @ (v_OI.T @ b_OR) / norm if norm > 0 else None


def similarity(first_OR: Tensor, second_OR: Tensor, a_RI: Tensor) -> float | None:
    """Cosine between the updates first A and second A, each read as one long vector; None if one of them is 0.

    From R x R products in float64, so that no [O, I] matrix is formed. A factor on an update does not change it.
    """
    first, second, a = first_OR.double(), second_OR.double(), a_RI.double()
    gram_RR = a @ a.T
    inner, one, other = (((x.T @ y) * gram_RR).sum() for x, y in ((first, second), (first, first), (second, second)))
    return (inner / (one * other).sqrt()).item() if one > 0 and other > 0 else None


def square_norm(b_OR: Tensor, a_RI: Tensor) -> Tensor:
    """|B A|_F^2, a scalar with gradient: the sum over the entries of (B^T B) (A A^T), so that B A is never formed."""
    return ((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum()


def overlap(a_RI: Tensor, other_SI: Tensor, absolute: bool = False) -> Tensor:
    """Sum over the entries of O = A A'^T [R, S] of their squares, or of their absolute values; a scalar.

    0 exactly if every row of one is orthogonal to every row of the other.
    """
    products_RS = a_RI @ other_SI.T
    return products_RS.abs().sum() if absolute else products_RS.square().sum()
