"""Fine-tuning with an L2 penalty on the distance of the weights from the starting point."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from selgen.adapters import lora_layers
from selgen.core import Batch, Context, Method, Origin, Reference, Term
from selgen.lm import cross_entropy
from selgen.maths.subspace import square_norm


@dataclass
class L2SP(Method):
    """Learn the task while the weights are pulled back to where they started.

    Minimises  CE(T) + weight / 2 * |Delta|^2,  Delta being the change of the effective weights since step 0 and |.|
    the Frobenius norm over all of them: s B A of each module for an adapter (from r x r products, so that no matrix of
    the model's size is formed), theta - theta_0 of the trained parameters otherwise. It reads no alignment data.

    Args:
        weight: Of the penalty, per unit of squared weight, >= 0. 0 gives task-only training.

    Cost: one forward and backward pass on T; full training keeps a copy of the starting weights.
    Source: Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with Convolutional Networks
    (L2-SP), 2018, with their factor 1/2.
    Differs from: the paper penalises every trained parameter; with an adapter, whose factors are no weights of the
    starting model, we penalise what they do to its weights.
    """

    weight: float = 0.1

    streams = ("task",)
    acts_on_weights = True
    strength = "weight"
    control = True
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if not 0 <= self.weight < inf:
            raise ValueError(
                f"method.weight should be >= 0 and finite, found {self.weight}. Use 0 for task-only training."
            )
        self._start: dict[str, Tensor] = {}

    def prepare(self, ctx: Context) -> None:
        self._check(ctx.model)
        if not isinstance(ctx.model, PeftModel):
            self._start = {n: p.detach().clone() for n, p in ctx.model.named_parameters() if p.requires_grad}

    def check(self, model: Any, start: Origin) -> None:
        self._check(model)

    def _check(self, model: Any) -> None:
        layers = lora_layers(model) if isinstance(model, PeftModel) else []
        other = [name for name, layer in layers if not layer.lora_A or any(layer.use_dora.values())]
        if other:
            raise ValueError(
                f"lora should adapt linear layers only, without DoRA, for method l2_sp, found {', '.join(other[:3])}. "
                "Set lora.use_dora=false and lora.target_modules=all-linear."
            )

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        square = self._adapter_square(model) if isinstance(model, PeftModel) else self._square(model)
        return {"task": cross_entropy(model, batch["task"]), "l2_sp": Term(square / 2, "one", self.weight)}

    def _adapter_square(self, model: PeftModel) -> Tensor:
        squares = []
        for _, layer in lora_layers(model):
            [name] = layer.active_adapters
            update = square_norm(layer.lora_B[name].weight, layer.lora_A[name].weight)
            squares.append(layer.scaling[name] ** 2 * update)
        return torch.stack(squares).sum()

    def _square(self, model: Any) -> Tensor:
        moved = [p.float() - self._start[n].float() for n, p in model.named_parameters() if n in self._start]
        return torch.stack([m.square().sum() for m in moved]).sum()
