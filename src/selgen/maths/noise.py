"""Random tensors that are a function of a name: the same in every process, wherever a run resumes."""

from __future__ import annotations

import random

import torch
from torch import Tensor


def gaussian_like(x: Tensor, key: str) -> Tensor:
    """Independent standard normal numbers of x's shape, on its device, in float32 (float64 for a float64 x).

    They are drawn on the CPU, so that no device draws others, and no other random state moves.

    Args:
        x: Its shape and device are taken, and not its numbers.
        key: All that the numbers depend on besides the shape.
    """
    generator = torch.Generator().manual_seed(random.Random(key).getrandbits(63))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.randn(x.shape, generator=generator, dtype=dtype).to(x.device)
