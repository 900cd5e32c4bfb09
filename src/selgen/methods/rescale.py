"""A trained adapter with its whole update made smaller or larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch

from selgen.adapters import config_of
from selgen.core import Origin, PostHoc


@dataclass
class Rescale(PostHoc):
    """Multiply everything that task-only training did to the weights by one number: the uniform brake.

    The weights become  theta_0 + alpha (theta - theta_0),  theta_0 being the starting model's; for an adapter that is
    B <- alpha B in every module. It knows nothing of the alignment data, so it is the control for methods whose gain
    could be that they only move the weights less.

    Args:
        alpha: Share of the update that is kept, dimensionless, >= 0 and finite. 0 is the starting model, 1 the
            task-only adapter; values above 1 extrapolate.

    Cost: no training.
    Source: Wortsman et al., Robust fine-tuning of zero-shot models (WiSE-FT), 2022, whose interpolation of
    all weights is the same line from the starting model to the fine-tuned one.
    """

    alpha: float = 0.5

    strength = "alpha"
    control = True
    neutral = (1.0, "task_only")

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < inf:
            raise ValueError(
                f"method.alpha should be >= 0 and finite, found {self.alpha}. Use 1 for the task-only adapter and 0 "
                "for the starting model."
            )

    def check(self, model: Any, start: Origin) -> None:
        if config_of(model).use_dora:
            raise ValueError(
                "lora should be without DoRA, whose norms do not grow in proportion to B, found use_dora=true. Set "
                "lora.use_dora=false."
            )

    def transform(self, model: Any, start: Origin) -> Mapping[str, Any]:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_B." in name or ".lora_embedding_B." in name:
                    parameter.mul_(self.alpha)
        return {}
