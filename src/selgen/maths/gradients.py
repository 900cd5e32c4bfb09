"""Arithmetic on gradients: one tensor per trainable parameter, by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Grads = Mapping[str, Tensor]
When = Literal["always", "conflict"]
Scope = Literal["global", "tensor"]


def dot(a: Grads, b: Grads) -> Tensor:
    """Inner product over all parameters, a scalar in float32 (float64 stays float64)."""
    return torch.stack([_wide(a[name]).flatten() @ _wide(b[name]).flatten() for name in a]).sum()


def project_out(grads: Grads, along: Grads, when: When = "always", scope: Scope = "global") -> Grads:
    """`grads` without its component along `along`:  g - (<g, a> / |a|^2) a.  A zero `along` leaves g as it is.

    Args:
        grads: The gradient to follow.
        along: The direction to take out, with the same names and shapes.
        when: `always`, or `conflict`: only where <g, a> < 0, so that a step that also serves `along` is not cut.
        scope: `global` has one inner product over all parameters; `tensor` one for each tensor apart, which takes out a
            larger subspace (one direction per tensor) and is a different method.
    """
    if scope == "tensor":
        return {name: _project({name: g}, {name: along[name]}, when)[name] for name, g in grads.items()}
    return _project(grads, along, when)


def _project(grads: Grads, along: Grads, when: When) -> Grads:
    overlap, square = dot(grads, along), dot(along, along)
    if square == 0 or (when == "conflict" and overlap >= 0):
        return grads
    share = overlap / square
    return {name: (_wide(g) - share * _wide(along[name])).to(g.dtype) for name, g in grads.items()}


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
