"""Task-only training that ends early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selgen.core import Origin, PostHoc


@dataclass
class EarlyStop(PostHoc):
    """Take the task-only adapter as it was after fewer epochs: the oldest way not to learn too much.

    The checkpoint is one of the full training's, under its learning-rate schedule; it is not a shorter training, whose
    rate would have fallen sooner. Like `rescale` it knows nothing of the alignment data.

    Args:
        epoch: Passes over the task set after which the adapter was kept, >= 1 and at most
            `training.num_train_epochs`, where it is the task-only adapter.

    Cost: no training; the run that it acts on keeps the adapter of each epoch at which it is measured.
    Source: early stopping, in this form Prechelt, Early Stopping - but when?, 1998; the strength is chosen on val as
    every method's.
    """

    epoch: int = 1

    strength = "epoch"
    control = True

    def __post_init__(self) -> None:
        if self.epoch < 1 or self.epoch != int(self.epoch):
            raise ValueError(
                f"method.epoch should be a whole number >= 1, found {self.epoch}. Use the method base for the starting "
                "model."
            )

    @property
    def parent_epoch(self) -> int | None:
        return self.epoch

    def transform(self, model: Any, start: Origin) -> Mapping[str, Any]:
        return {}
