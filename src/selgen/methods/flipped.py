"""The control that learns the wrong answers of the alignment set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy


@dataclass
class Flipped(Method):
    """Control, expected to do harm: `mixed` with the chosen and the rejected answers exchanged.

    Minimises  CE(T u R),  R being the alignment prompts with their *misaligned* (`rejected`) answers: one mean over all
    completion tokens of the optimizer step. The chosen answers are never seen. Where this keeps as much alignment as a
    method does, the method's gain is not from what the answers say.

    Args:
        align_rows_per_step: Rows of R that join each optimizer step, >= 0, fractions allowed. None keeps the ratio of
            the sets; 0 gives task-only training.

    Cost: one forward and backward pass on T and on R.
    Source: the exchanged-labels control of preference learning; no paper's method.
    """

    align_rows_per_step: float | None = None

    streams = ("task", "rejected")
    strength = "align_rows_per_step"
    control = True
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
            "rejected": cross_entropy(model, batch["rejected"], unit="all_tokens"),
        }
