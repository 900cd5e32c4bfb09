"""Distances between hidden states. Shapes: n positions, D hidden width."""

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
