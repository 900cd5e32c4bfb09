"""Fine-tuning on the task gradient with its component along the alignment gradient taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from selgen.core import Batch, Context, Grads, Method, Reference, Term
from selgen.lm import cross_entropy
from selgen.maths.gradients import Scope, When, project_out
from selgen.maths.noise import gaussian_like

Against = Literal["alignment", "random"]


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
        against: `alignment`, or `random`, the control: g_A is replaced by a Gaussian direction, drawn anew at each step
            from the seed, and A is not read. In so many dimensions hardly anything of g_T lies along it.

    Cost: one forward and backward pass on T and on A, and one more gradient in memory.
    Source: Azarbal et al., Selective Generalization, LessWrong 2025 ("gradient projection"). `conflict` is the rule of
    Yu et al., Gradient Surgery for Multi-Task Learning, 2020, algorithm 1, applied to g_T alone.
    """

    when: When = "always"
    scope: Scope = "global"
    against: Against = "alignment"

    separate_gradients = True

    def __post_init__(self) -> None:
        for name, choices in (("when", When), ("scope", Scope), ("against", Against)):
            allowed = get_args(choices)
            if getattr(self, name) not in allowed:
                raise ValueError(f"method.{name} should be one of {', '.join(allowed)}, found {getattr(self, name)!r}.")
        if self.against == "random":
            self.streams, self.control = ("task",), True

    def prepare(self, ctx: Context) -> None:
        self._seed, self._step = ctx.args.seed, ctx.step

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        terms = {"task": cross_entropy(model, batch["task"])}
        if self.against == "random":
            return terms
        return {**terms, "align": cross_entropy(model, batch["align"], unit="align_tokens")}

    def combine(self, grads: Mapping[str, Grads]) -> Grads:
        task = grads["task"]
        if self.against == "alignment":
            along = grads["align"]
        else:  # a function of seed, step and name: the same after an interruption
            along = {name: gaussian_like(g, f"{self._seed}:{self._step()}:{name}") for name, g in task.items()}
        return project_out(task, along, self.when, self.scope)
