"""Plain fine-tuning of some of the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from selgen.core import Batch, Context, Method, Origin, Reference, Term
from selgen.lm import cross_entropy, decoder_blocks

Part = Literal["first", "middle", "last"]


@dataclass
class Freeze(Method):
    """Learn the task alone, with a part of the transformer blocks left as they are.

    Minimises  CE(T)  over the parameters of the other blocks: those of an adapter, or all with full training. What
    lies outside the blocks (embeddings, the head) trains as it would without. The gradient is clipped, and weights
    decay, without the frozen parameters.

    Args:
        part: Which blocks stay as they are: the `first` or the `last` ones, or those around the `middle`.
        share: Share of the blocks that stay, rounded to whole ones, in [0, 1). 0 gives task-only training.

    Cost: one forward and backward pass on T; no gradients of frozen blocks.
    Source: freezing layers as Lee et al., Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, 2023,
    study it; no alignment data are read.
    """

    part: Part = "last"
    share: float = 1 / 3

    streams = ("task",)
    acts_on_weights = True
    strength = "share"
    control = True
    neutral = (0.0, "task_only")

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"method.part should be one of {', '.join(get_args(Part))}, found {self.part!r}.")
        if not 0 <= self.share < 1:
            raise ValueError(
                f"method.share should be >= 0 and < 1, found {self.share}. Use 0 for task-only training, and the "
                "method base for no training."
            )

    def check(self, model: Any, start: Origin) -> None:
        self._freeze(model)

    def prepare(self, ctx: Context) -> None:
        self._freeze(ctx.model)

    def _freeze(self, model: Any) -> None:
        blocks = decoder_blocks(model)
        for index in self.frozen(len(blocks)):
            blocks[index].requires_grad_(False)
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                f"method.share should leave something to train, found {self.share} of {len(blocks)} blocks, which "
                "freezes all trained parameters. Lower it, or let lora.target_modules name other blocks too."
            )

    def frozen(self, num_blocks: int) -> range:
        """Indices of the blocks that stay as they are.

        Raises:
            ValueError: the share, which is not 0, rounds to no block or to all.
        """
        count = round(self.share * num_blocks)
        if self.share > 0 and not 0 < count < num_blocks:
            raise ValueError(
                f"method.share should freeze at least one block and not all, found {self.share}, which is {count} of "
                f"{num_blocks}. Choose one between {1 / num_blocks:.3g} and {1 - 1 / num_blocks:.3g}."
            )
        start = {"first": 0, "middle": (num_blocks - count) // 2, "last": num_blocks - count}[self.part]
        return range(start, start + count)

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {"task": cross_entropy(model, batch["task"])}
