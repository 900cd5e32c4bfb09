"""Fine-tuning orthogonally to an adapter that was fitted to the alignment data first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from selgen.adapters import lora_layers
from selgen.core import Batch, Method, Reference, Term
from selgen.lm import cross_entropy
from selgen.maths.subspace import overlap


@dataclass
class OLoRA(Method):
    """Learn A with one adapter, then the task with another that is kept orthogonal to it.

    First fits an adapter on CE(A), over as many passes as the task gets, freezes it and leaves it on. Then minimises
    CE(T) + weight * sum over modules and entries of O^2,  O = A_align A_task^T  [r, r], where A_align and A_task are
    the first factors of both adapters (update B A). The result is one adapter of twice the rank: the sum of both.

    Args:
        weight: Weight of the overlap, dimensionless, >= 0. 0 is task-only training that starts from the base with the
            alignment adapter.
        absolute: Sum |O| instead of O^2.
        l2: Weight of the sum of the L2 norms (not squared) of the task adapter's factors, >= 0.

    Cost: a training on A, then one forward and backward pass on T; two adapters in memory.
    Source: Wang et al., Orthogonal Subspace Learning for Language Model Continual Learning (O-LoRA), 2023; used for
    alignment by Azarbal et al., Selective Generalization, LessWrong 2025, whose squares we follow.
    Differs from: the official code (github.com/cmnfriend/O-LoRA) sums absolute values (`absolute`) and adds the L2
    norms of the new adapter's factors (`l2`).
    """

    weight: float = 1.0
    absolute: bool = False
    l2: float = 0.0

    streams = ("task",)
    fits = ("align",)
    acts_on_weights = True
    strength = "weight"

    def __post_init__(self) -> None:
        for name in ("weight", "l2"):
            if getattr(self, name) < 0:
                raise ValueError(f"method.{name} should be >= 0, found {getattr(self, name)}. Use 0 to leave it out.")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        # The adapter in training is the first of those that are on.
        layers = [(layer, layer.active_adapters[0]) for _, layer in lora_layers(model)]
        factors = [(layer.lora_A["align"].weight, layer.lora_A[task].weight) for layer, task in layers]
        shared = [overlap(fitted, own, self.absolute) for fitted, own in factors]
        terms = {
            "task": cross_entropy(model, batch["task"]),
            "overlap": Term(torch.stack(shared).sum(), "one", self.weight),
        }
        if self.l2:
            norms = [side[task].weight.norm() for layer, task in layers for side in (layer.lora_A, layer.lora_B)]
            terms["l2"] = Term(torch.stack(norms).sum(), "one", self.l2)
        return terms
