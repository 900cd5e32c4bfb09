"""Fine-tuning on the union of task and alignment data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy


@dataclass
class Mixed(Method):
    """Mix the alignment rows into the task rows and fine-tune on the union.

    Minimises  CE(T u A):  one mean over all completion tokens of the optimizer step, so each *token* weighs the same,
    whichever set it comes from. This is not CE(T) + CE(A).

    Args:
        align_rows_per_step: Alignment rows that join each optimizer step, >= 0, fractions allowed. None keeps the ratio
            of the sets; 0 gives task-only training. Rates above that ratio repeat alignment rows.

    Cost: one forward and backward pass on T and on A.
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("mixed" fine-tuning).
    """

    align_rows_per_step: float | None = None

    strength = "align_rows_per_step"
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if self.align_rows_per_step is not None and self.align_rows_per_step < 0:
            raise ValueError(
                f"method.align_rows_per_step should be >= 0, found {self.align_rows_per_step}. "
                "Use 0 for task-only training, or null for the ratio of the sets."
            )

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {
            "task": cross_entropy(model, batch["task"], unit="all_tokens"),
            "align": cross_entropy(model, batch["align"], unit="all_tokens"),
        }
