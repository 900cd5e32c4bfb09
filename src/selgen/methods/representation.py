"""Fine-tuning with hidden states held near the starting model's on alignment data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from selgen.core import Batch, Context, Method, Reference, Term
from selgen.lm import block_outputs, cross_entropy
from selgen.maths.hidden import Norm, hidden_distance

Positions = Literal["all", "completion"]


@dataclass
class Representation(Method):
    """Learn the task while the hidden states on alignment data stay close to the starting model's.

    Minimises  CE(T) + beta * mean over layers l = 1..L and positions of A of |h_l(theta) - h_l(ref)|^2 / D.
    Layers are block outputs before the final norm, each counted once. The alignment answers are only read: their
    cross-entropy is not descended.

    Args:
        beta: Weight of the distance, >= 0, in nats per squared activation unit. 0 gives task-only training.
        norm: `mean` averages over the D hidden units, so that beta transfers across widths; `squared` is the study's
            squared L2 norm (D times as large).
        positions: `all` real tokens of A, prompt and template included, or those that predict the `completion`.

    Cost: one forward and backward pass on T and on A; the reference's layers are cached where they are small, else
    computed at every step (the run's record says which).
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("representation constraint", there beta).
    Differs from: the study's code takes Hugging Face's `hidden_states`, whose last entry has been through the final
    norm, averages over padding, and switches the term off on an exception.
    """

    beta: float = 1.0
    norm: Norm = "mean"
    positions: Positions = "all"

    strength = "beta"
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"method.beta should be >= 0, found {self.beta}. Use 0 for task-only training.")
        for name, allowed in (("norm", get_args(Norm)), ("positions", get_args(Positions))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"method.{name} should be one of {', '.join(allowed)}, found {getattr(self, name)!r}.")

    def prepare(self, ctx: Context) -> None:
        ctx.reference.precompute("align", "layers")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        terms, align = {"task": cross_entropy(model, batch["task"])}, batch["align"]
        unit = "align_positions" if self.positions == "all" else "align_tokens"
        if align.num_rows == 0:
            return {**terms, "hidden": Term(torch.zeros((), device=align.input_ids.device), unit, self.beta)}
        distance_n = hidden_distance(block_outputs(model, align), ref.layers(align), self.norm)
        if self.positions == "completion":
            distance_n = distance_n[align.predicts_BT[align.attention_mask.bool()]]
        return {**terms, "hidden": Term(distance_n.sum(), unit, self.beta)}
