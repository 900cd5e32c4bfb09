"""Plain fine-tuning on the task data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy


@dataclass
class TaskOnly(Method):
    """Learn the task data and nothing else: the baseline that misgeneralizes, and what other methods are compared with.

    Minimises  CE(T),  the mean over completion tokens of the task data, in nats per token.

    Its curve is drawn over training epochs, from checkpoints of one run.

    Cost: one forward and backward pass on T.
    Source: Azarbal, Clarke, Cocola, Factor and Cloud, Selective Generalization, LessWrong 2025 ("misaligned" baseline).
    """

    streams = ("task",)
    strength = "epochs"

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {"task": cross_entropy(model, batch["task"])}
