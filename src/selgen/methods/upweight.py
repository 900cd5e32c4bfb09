"""Fine-tuning with an upweighted alignment loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy


@dataclass
class Upweight(Method):
    """Learn both sets, with a weight on the alignment set.

    Minimises  CE(T) + weight * CE(A),  each a mean over its own completion tokens, in nats per token. Two means, so
    the weight does not change its meaning with batch sizes.

    Args:
        weight: Multiplies CE(A), dimensionless, >= 0. 0 gives task-only training.

    Cost: one forward and backward pass on T and on A.
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("upweighted" loss, there lambda).
    """

    weight: float = 1.0

    strength = "weight"
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"method.weight should be >= 0, found {self.weight}. Use 0 for task-only training.")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {
            "task": cross_entropy(model, batch["task"]),
            "align": cross_entropy(model, batch["align"], unit="align_tokens", weight=self.weight),
        }
