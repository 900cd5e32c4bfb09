"""What a run is: typed, complete, and checked before any model is loaded.

A config file is data (`config.read_yaml`, `config.override`); `RunSpec.parse` turns it into a spec or says everything
that is wrong with it at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from selgen.blocks import (
    Count,
    EvaluationSpec,
    FirstSpec,
    JudgeBlock,
    LoraSpec,
    MethodBlock,
    ModelSpec,
    SettingBlock,
    Spec,
    TrainingSpec,
    changed_setting,
    named,
)
from selgen.config import ConfigError, build
from selgen.core import BASE, FIRST, TASK_ONLY, Judge, Method, PostHoc, Setting

EPOCHS = "epochs"
"""The strength of a curve whose points are checkpoints of one run."""


class Shared(Spec):
    """What all runs of a sweep have in common.

    Attributes:
        setting: Name and options.
        first: A run before, whose adapter the runs start from; None: they start from the model itself.
        lora: None trains all weights.
        judge: Scores answers where the setting has judge prompts; None leaves them to the setting's own scorer.
        allow_large_alignment: Lift the limit of 25 % on alignment rows per task row; the report says so.
    """

    setting: SettingBlock
    model: Annotated[ModelSpec, BeforeValidator(named)] = ModelSpec()
    training: TrainingSpec = TrainingSpec()
    lora: LoraSpec | None = LoraSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    judge: JudgeBlock | None = None
    allow_large_alignment: bool = False
    first: FirstSpec | None = None

    @model_validator(mode="after")
    def _can_be_served(self) -> Self:
        if self.evaluation.endpoint is None or (self.lora is not None and not self.lora.use_dora):
            return self
        found = "lora should not be null" if self.lora is None else "lora.use_dora should be false"
        reason = "loads adapters and no whole models" if self.lora is None else "cannot load DoRA's adapters"
        raise ValueError(
            f"{found} with evaluation.endpoint: vLLM's server {reason}. Train a LoRA adapter, or set "
            "evaluation.endpoint=null to sample in the run's own process."
        )

    @model_validator(mode="after")
    def _resolve_first(self) -> Self:
        problems = quantization_problems(self.model, self.lora, self.first)
        if problems:
            raise ConfigError(problems)
        if self.first is not None:
            self.first = self.first.resolved(self.setting, self.training, self.lora)
        return self


class RunSpec(Shared):
    """One method at one strength with one seed.

    Attributes:
        method: Name and hyper-parameters; `base` evaluates the starting model untouched.
        epochs: Epochs after which to evaluate, the last of training among them; None evaluates after the last only.
        curve: The line that this run's points belong to; defaults to the method's name.
        strength_name: The field that the curve varies, `epochs`, or None; defaults to the method's own strength.
        budget: How the curve's budget differs from the others', or None.
        covered: Domains that some alignment data of the sweep covers: left out of the alignment axis.
    """

    method: MethodBlock
    epochs: list[Count] | None = None
    curve: str | None = None
    strength_name: str | None = None
    budget: str | None = None
    covered: list[str] = []

    @model_validator(mode="after")
    def _complete(self) -> Self:
        name = self.method["name"]
        self.curve = self.curve or name
        if name != BASE:
            method = make_method(self.method)
            self.strength_name = EPOCHS if self.epochs else self.strength_name or method.strength
        problems = epoch_problems(self.epochs, self.training, "epochs")
        if name != BASE:
            problems += adapter_problems(make_method(self.method), name, self.lora, self.epochs)
            problems += checkpoint_problems(make_method(self.method), name, self.training)
        if problems:
            raise ConfigError(problems)
        return self

    @property
    def strength(self) -> float | None:
        """Where on its curve the run lies; None if nothing varies or each checkpoint has its own."""
        return self.method[self.strength_name] if self.strength_name not in (None, EPOCHS) else None

    @property
    def is_post_hoc(self) -> bool:
        """Whether it acts on a finished run of `TASK_ONLY` instead of training."""
        return self.method["name"] != BASE and isinstance(make_method(self.method), PostHoc)

    @property
    def parent_epoch(self) -> int | None:
        """The checkpoint, in epochs, that a post-hoc run acts on; None for others and where it is the last one."""
        method = None if self.method["name"] == BASE else make_method(self.method)
        epoch = method.parent_epoch if isinstance(method, PostHoc) else None
        return None if epoch == self.training.num_train_epochs else epoch

    def keeps(self, epoch: int | None) -> bool:
        """Whether the run, if it trains an adapter, leaves it as it was after that epoch; None: at its end."""
        return epoch is None or epoch in (self.epochs or [])

    def lineage(self) -> list[RunSpec]:
        """The run, and before it those that it needs: the one that it starts from, then the one that it acts on."""
        first = self.first_run()
        parent = [self._parent()] if self.is_post_hoc else []
        return [*([] if first is None else [first]), *parent, self]

    def _parent(self) -> RunSpec:
        """The run whose adapter a post-hoc run changes."""
        kept = None if self.parent_epoch is None else [self.parent_epoch, self.training.num_train_epochs]
        return RunSpec(**self._shared(), method={"name": TASK_ONLY}, epochs=kept)

    def first_run(self) -> RunSpec | None:
        """The run whose adapter it starts from; None if it starts from the model itself."""
        if self.first is None:
            return None
        # What the sweep covers elsewhere does not count, so that sweeps share it.
        other = {
            "setting": changed_setting(self.setting, self.first.setting, "first"),
            "training": {**self.first.training, "seed": self.training.seed},
            "lora": self.first.lora,
            "first": None,
            "covered": [],
        }
        return RunSpec(**self._shared() | other, method={"name": TASK_ONLY}, curve=FIRST)

    def _shared(self) -> dict[str, Any]:
        """What it has in common with the runs that it needs."""
        ours = {"method", "epochs", "curve", "strength_name", "budget"}
        return {name: getattr(self, name) for name in RunSpec.model_fields if name not in ours}


def make_method(block: Mapping[str, Any]) -> Method:
    return build("methods", block)[0]


def make_judge(block: Mapping[str, Any] | None) -> Judge | None:
    return None if block is None else build("judges", block)[0]


def make_setting(block: Mapping[str, Any]) -> Setting:
    return build("settings", block)[0]


def epoch_problems(
    epochs: list[int] | None, training: TrainingSpec, where: str, budget: str | None = None
) -> list[str]:
    """What is wrong with a list of epochs at which to evaluate; None is fine.

    Args:
        budget: What a curve declares to differ from the others' budget: then it may train for other numbers of epochs.
    """
    rises = epochs is not None and bool(epochs) and sorted(set(epochs)) == epochs
    if epochs is None or (rises and (budget is not None or epochs[-1] == training.num_train_epochs)):
        return []
    return [
        f"{where} should rise and end with training.num_train_epochs ({training.num_train_epochs}), found {epochs}. "
        "Correct the list, train for another number of epochs, or (a curve of a sweep) say in budget that it differs."
    ]


def adapter_problems(method: Method, name: str, lora: LoraSpec | None, epochs: list[int] | None) -> list[str]:
    """What is wrong with a method that acts on an adapter, or fits one first; none for others."""
    post_hoc = isinstance(method, PostHoc)
    problems = []
    if lora is None and (post_hoc or method.fits):
        reason = "changes a trained adapter" if post_hoc else "fits an adapter first"
        problems.append(f"lora should not be null with method {name}, which {reason}. Give lora.r, e.g. lora.r=8.")
    if lora is not None and lora.use_dora and method.fits:
        problems.append(
            f"lora.use_dora should be false with method {name}: the sum of two adapters is saved, which DoRA's norms "
            "do not have. Turn DoRA off."
        )
    if post_hoc and epochs:
        problems.append(
            f"epochs should not be given with method {name}, which trains nothing, found {epochs}. "
            f"Vary {method.strength or 'its fields'} instead."
        )
    return problems


def quantization_problems(model: ModelSpec, lora: LoraSpec | None, first: FirstSpec | None) -> list[str]:
    """What cannot be done with quantized weights."""
    if model.quantization is None:
        return []
    problems = []
    if lora is None:
        problems.append(
            "lora should not be null with model.quantization: quantized weights have no gradients. Give lora.r, e.g. "
            "lora.r=8, or set model.quantization=null."
        )
    if first is not None:
        problems.append(
            "first should be left out with model.quantization: its adapter is merged into the weights, and would be "
            "rounded with them. Remove one of the two."
        )
    return problems


def checkpoint_problems(method: Method, name: str, training: TrainingSpec) -> list[str]:
    """What is wrong with the checkpoint on which a post-hoc method acts; none for others."""
    epoch, last = method.parent_epoch if isinstance(method, PostHoc) else None, training.num_train_epochs
    if epoch is None or epoch <= last:
        return []
    return [
        f"method {name} acts on {TASK_ONLY} after epoch {epoch}, but training.num_train_epochs is {last}. Choose an "
        "earlier epoch, or train for longer."
    ]


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text. Dataclasses are written as their fields."""
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_fields
    )


def _fields(instance: Any) -> dict[str, Any]:
    return {field.name: getattr(instance, field.name) for field in dataclasses.fields(instance)}
