"""Fine-tuning with a KL penalty to the starting model on alignment prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch

from selgen.core import Batch, Context, Method, Reference, Term
from selgen.lm import chunk_tokens, completion_hidden, cross_entropy, head
from selgen.maths.divergence import Direction, total_kl


@dataclass
class KLPenalty(Method):
    """Learn the task while staying close to the starting model on alignment data.

    Minimises  CE(T) + beta * KL(p_theta || p_ref),  the KL averaged over the completion tokens of A, in nats per token.
    The alignment answers are context for the KL only: their cross-entropy is not descended.

    Args:
        beta: Weight of the KL term, dimensionless, >= 0. 0 gives task-only training.
        direction: `policy_ref` (as written above: the expectation is under the fine-tuned model; TRL calls it
            reverse), `ref_policy` (KL(p_ref || p_theta)), or `jsd` (Jensen-Shannon).

    Cost: one forward and backward pass on T and on A; the reference's hidden states are cached once. No second model
    with adapters.
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("KL penalty", there beta).
    Differs from: the study's code averages over every position, padding and prompts included, and switches the term off
    on an exception; here only completion tokens count and an exception stops the run.
    """

    beta: float = 1.0
    direction: Direction = "policy_ref"

    strength = "beta"
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"method.beta should be >= 0, found {self.beta}. Use 0 for task-only training.")
        if self.direction not in get_args(Direction):
            raise ValueError(
                f"method.direction should be one of {', '.join(get_args(Direction))}, found {self.direction!r}."
            )

    def prepare(self, ctx: Context) -> None:
        ctx.reference.precompute("align")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        terms = {"task": cross_entropy(model, batch["task"])}
        align = batch["align"]
        if align.num_rows == 0:
            kl = torch.zeros((), device=align.input_ids.device)
        else:
            hidden_nD = completion_hidden(model, align)
            kl = total_kl(hidden_nD, ref.hidden(align), head(model), ref.head, chunk_tokens(model), self.direction)
        return {**terms, "kl": Term(kl, unit="align_tokens", weight=self.beta)}
