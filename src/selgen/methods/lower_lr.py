"""Plain fine-tuning at a lower learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy


@dataclass
class LowerLR(Method):
    """Learn the task alone, in smaller steps: what a more careful choice of the learning rate would have given.

    Minimises  CE(T)  as `task_only` does, with the same rows, steps and schedule. It knows nothing of the alignment
    data.

    Args:
        lr_scale: Multiplies `training.learning_rate`, dimensionless, in (0, 1]. 1 is task-only training.

    Cost: one forward and backward pass on T.
    Source: no paper; a control that Azarbal et al., Selective Generalization, LessWrong 2025, do not draw.
    """

    lr_scale: float = 0.3

    streams = ("task",)
    strength = "lr_scale"
    control = True
    neutral = (1.0, "task_only")

    def __post_init__(self) -> None:
        if not 0 < self.lr_scale <= 1:
            raise ValueError(
                f"method.lr_scale should be > 0 and <= 1, found {self.lr_scale}. Use 1 for task-only training, or "
                "raise training.learning_rate for all methods."
            )

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {"task": cross_entropy(model, batch["task"])}
