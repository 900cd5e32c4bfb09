"""Distances between hidden states. Shapes: n positions, D hidden width, M vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["mean", "squared"]


def hidden_distance(layers: Sequence[Tensor], ref_layers: Sequence[Tensor], norm: Norm = "mean") -> Tensor:
    """Squared difference of hidden states at each position, averaged over layers, in activation units squared.

    Args:
        layers: One [n, D] per layer, with gradient.
        ref_layers: The reference's, in the same order.
        norm: `mean` averages over the D units too (mean squared error); `squared` sums over them (squared L2 norm).

    Returns:
        [n] in float32 (float64 stays float64).
    """
    per_layer = []
    for h_nD, r_nD in zip(layers, ref_layers, strict=True):
        wide = torch.float64 if h_nD.dtype == torch.float64 else torch.float32
        square_nD = (h_nD.to(wide) - r_nD.to(wide)).square()
        per_layer.append(square_nD.mean(-1) if norm == "mean" else square_nD.sum(-1))
    return torch.stack(per_layer).mean(0)


def centred_cosine_distances(vector_D: Tensor, others_MD: Tensor) -> list[float | None]:
    """Cosine distance of a vector to each of several others, after subtracting the mean of the others from all.

    Mean hidden states of different prompts share a large common part; without it what tells them apart counts.

    Args:
        vector_D: [D].
        others_MD: [M, D].

    Returns:
        [M] numbers in [0, 2]: 0 for the same direction, 1 for perpendicular, 2 for opposite ones. None where one of the
        two is the mean itself, which has no direction: all of them for a single other.
    """
    centre_D = others_MD.double().mean(0)
    own_D, others_MD = vector_D.double() - centre_D, others_MD.double() - centre_D
    # A vector that equals the mean leaves float32's rounding errors behind, whose direction means nothing.
    least = 1e-6 * centre_D.norm()
    if own_D.norm() <= least:
        return [None] * len(others_MD)
    cosines_M = torch.nn.functional.cosine_similarity(own_D, others_MD, dim=-1).clamp(-1, 1)
    return [None if o.norm() <= least else 1 - float(c) for o, c in zip(others_MD, cosines_M, strict=True)]
