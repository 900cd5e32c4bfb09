"""Fine-tuning on the task gradient with its component along the alignment gradient taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from selgen.core import Batch, Grads, Method, Reference, Term
from selgen.lm import cross_entropy
from selgen.maths.gradients import Scope, When, project_out


@dataclass
class Projection(Method):
    """Learn the task by steps that leave the alignment loss unchanged to first order.

    Steps along  g = g_T - (<g_T, g_A> / |g_A|^2) g_A,  g_T and g_A being the gradients of CE(T) and CE(A), each a mean
    over completion tokens of the whole optimizer step, before clipping. CE(A) itself is never descended. A step
    without alignment rows follows g_T.

    Args:
        when: `always`, or `conflict`: only in steps where <g_T, g_A> < 0, that is where the task step raises CE(A).
        scope: `global` is one inner product over all parameters (the study's formula); `tensor` projects each tensor
            apart (what the study's code did).

    Cost: one forward and backward pass on T and on A, and one more gradient in memory.
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("gradient projection"). `conflict` is the rule of
    Yu et al., Gradient Surgery for Multi-Task Learning, 2020, algorithm 1, applied to g_T alone.
    """

    when: When = "always"
    scope: Scope = "global"

    separate_gradients = True

    def __post_init__(self) -> None:
        for name, allowed in (("when", get_args(When)), ("scope", get_args(Scope))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"method.{name} should be one of {', '.join(allowed)}, found {getattr(self, name)!r}.")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {
            "task": cross_entropy(model, batch["task"]),
            "align": cross_entropy(model, batch["align"], unit="align_tokens"),
        }

    def combine(self, grads: Mapping[str, Grads]) -> Grads:
        return project_out(grads["task"], grads["align"], self.when, self.scope)
