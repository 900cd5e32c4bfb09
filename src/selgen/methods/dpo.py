"""Fine-tuning with preference optimisation on pairs of aligned and misaligned answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from selgen.core import Batch, Context, Method, Reference, Term
from selgen.lm import cross_entropy, sequence_logprobs
from selgen.maths.preference import dpo


@dataclass
class DPO(Method):
    """Learn the task while preferring each aligned answer of A to its misaligned (`rejected`) one.

    Minimises  CE(T) + weight * mean over pairs of -log sigma(beta * ((logp+ - ref+) - (logp- - ref-))),  the
    log-probabilities summed over completion tokens alone, in nats.

    Args:
        weight: Weight of the preference term, dimensionless, >= 0. 0 gives task-only training.
        beta: Inverse temperature of the preference, > 0, fixed along a curve.

    A pair is two sequences, so half of the alignment rows are read: as many sequences as other methods see.
    Cost: one forward and backward pass on T, on the chosen and on the rejected answers; the reference is two numbers
    per pair, computed once.
    Source: Rafailov et al., Direct Preference Optimization, 2023, equation 7; added to CE(T) by Azarbal et al.,
    Selective Generalization, LessWrong 2025, whose formula has no weight while its code has.
    Differs from: the study's code sums log-probabilities over padding too, which makes most of its margin.
    """

    weight: float = 1.0
    beta: float = 0.1

    streams = ("task", "align", "rejected")
    strength = "weight"
    neutral = (0.0, "task_only")
    align_share = 0.5

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"method.weight should be >= 0, found {self.weight}. Use 0 for task-only training.")
        if self.beta <= 0:
            raise ValueError(f"method.beta should be > 0, found {self.beta}. Use weight 0 for task-only training.")

    def prepare(self, ctx: Context) -> None:
        ctx.reference.precompute("align", "logprobs")
        ctx.reference.precompute("rejected", "logprobs")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        terms, chosen, rejected = {"task": cross_entropy(model, batch["task"])}, batch["align"], batch["rejected"]
        if chosen.num_rows == 0:
            return {**terms, "dpo": Term(torch.zeros((), device=chosen.input_ids.device), "pairs", self.weight)}
        policy = sequence_logprobs(model, chosen), sequence_logprobs(model, rejected)
        pairs_B = dpo(*policy, ref.logprobs(chosen), ref.logprobs(rejected), self.beta)
        return {**terms, "dpo": Term(pairs_B.sum(), "pairs", self.weight)}
