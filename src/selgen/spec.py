"""What a run is: typed, complete, and checked before any model is loaded.

A config file is data (`config.read_yaml`, `config.override`); `RunSpec.parse` turns it into a spec or says everything
that is wrong with it at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from selgen.config import ConfigError, build, explain
from selgen.core import BASE, TASK_ONLY, Judge, Method, PostHoc, Setting

EPOCHS = "epochs"
"""The strength of a curve whose points are checkpoints of one run."""

Count = Annotated[int, Field(ge=1)]


def _named(value: Any) -> Any:
    """`method: kl` is short for `method: {name: kl}`."""
    return {"name": value} if isinstance(value, str) else value


def _setting(block: dict[str, Any]) -> dict[str, Any]:
    return build("settings", block)[1]


def _method(block: dict[str, Any]) -> dict[str, Any]:
    if block.get("name") != BASE:
        return build("methods", block)[1]
    if len(block) > 1:
        raise ConfigError([f"method base trains nothing and has no keys, found {sorted(set(block) - {'name'})}."])
    return block


def _judge(block: dict[str, Any]) -> dict[str, Any]:
    return build("judges", block)[1]


Block = Annotated[dict[str, Any], BeforeValidator(_named)]
SettingBlock = Annotated[Block, AfterValidator(_setting)]
MethodBlock = Annotated[Block, AfterValidator(_method)]
JudgeBlock = Annotated[Block, AfterValidator(_judge)]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Check a config and fill in its defaults.

        Raises:
            ConfigError: with every problem found.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error


class ModelSpec(Spec):
    """The starting model.

    Attributes:
        name: `miniature` (the setting's own), a model or adapter directory, or a hub id.
        dtype: Of its weights; an adapter is always trained in float32.
    """

    name: str = "miniature"
    dtype: Literal["float32", "bfloat16"] = "float32"


class TrainingSpec(Spec):
    """How every method trains, under the names of Hugging Face's TrainingArguments.

    Attributes:
        save_steps: Optimizer steps between checkpoints that an interrupted run resumes from; None keeps none, so that
            it starts again.
        max_length: Most tokens per example, longer ones are an error; None for no limit.
        pairing: `proportional` (each set once per epoch) or `cycle` (as many alignment rows as task rows per step).
        seed: Of data, adapter initialisation and row order.
    """

    num_train_epochs: Count = 3
    per_device_train_batch_size: Count = 16
    gradient_accumulation_steps: Count = 1
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: Literal["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"] = "adamw_torch"
    bf16: bool = False
    activation_checkpointing: bool = False
    logging_steps: Count = 10
    save_steps: Count | None = None
    max_length: Count | None = None
    pairing: Literal["proportional", "cycle"] = "proportional"
    seed: int = Field(default=1, ge=0)


class LoraSpec(Spec):
    """The adapter, under PEFT's names."""

    r: Count = 8
    lora_alpha: int = Field(default=16, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: str | list[str] = "all-linear"


class EvaluationSpec(Spec):
    """How responses are sampled.

    Attributes:
        temperature: 0 decodes greedily.
        splits: `val` chooses strengths, `test` is drawn.
    """

    max_new_tokens: Count = 64
    batch_size: Count = 256
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    splits: list[Literal["val", "test"]] = Field(default=["val", "test"], min_length=1)


class Shared(Spec):
    """What all runs of a sweep have in common.

    Attributes:
        setting: Name and options.
        lora: None trains all weights.
        judge: Scores answers where the setting has judge prompts; None leaves them to the setting's own scorer.
        allow_large_alignment: Lift the limit of 25 % on alignment rows per task row; the report says so.
    """

    setting: SettingBlock
    model: Annotated[ModelSpec, BeforeValidator(_named)] = ModelSpec()
    training: TrainingSpec = TrainingSpec()
    lora: LoraSpec | None = LoraSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    judge: JudgeBlock | None = None
    allow_large_alignment: bool = False


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
        """The run, and before it the run that it acts on, if its method is a post-hoc one."""
        if not self.is_post_hoc:
            return [self]
        ours = {"method", "epochs", "curve", "strength_name", "budget"}
        shared = {name: getattr(self, name) for name in RunSpec.model_fields if name not in ours}
        kept = None if self.parent_epoch is None else [self.parent_epoch, self.training.num_train_epochs]
        return [RunSpec(**shared, method={"name": TASK_ONLY}, epochs=kept), self]


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


def checkpoint_problems(method: Method, name: str, training: TrainingSpec) -> list[str]:
    """What is wrong with the checkpoint on which a post-hoc method acts; none for others."""
    epoch, last = method.parent_epoch if isinstance(method, PostHoc) else None, training.num_train_epochs
    if epoch is None or epoch <= last:
        return []
    return [
        f"method {name} acts on {TASK_ONLY} after epoch {epoch}, but training.num_train_epochs is {last}. Choose an "
        "earlier epoch, or train for longer."
    ]


def run_id(
    spec: RunSpec,
    *,
    setting: Setting,
    data: str,
    weights: str,
    miniature: str | None,
    named: Mapping[str, str | None] | None = None,
    parent: str | None = None,
) -> str:
    """Name of a run: the first 12 hex digits of the sha256 of everything that determines its result.

    Args:
        spec: The resolved run; where its model and data lie does not count, what they are does.
        setting: Of the run: its version counts, its `paths` do not.
        data: Fingerprint of the data rows.
        weights: Fingerprint of the starting weights, or hub commit.
        miniature: Key of the miniature's corpus and recipe, or None for other models.
        named: Fields of a post-hoc method that name weights, and what the weights are; None for its own default.
        parent: Name of the run that a post-hoc method acts on.
    """
    resolved = spec.model_dump(mode="json")
    del resolved["model"]["name"]
    for path in setting.paths:
        del resolved["setting"][path]
    if spec.judge is None:
        del resolved["judge"]
    else:
        for field in type(build("judges", spec.judge)[0]).unhashed:
            del resolved["judge"][field]
    content = {
        "spec": resolved,
        "setting_version": setting.version,
        "data": data,
        "weights": weights,
        "miniature": miniature,
    }
    for field in named or {}:
        del resolved["method"][field]
    if parent is not None:
        content |= {"named": dict(named or {}), "parent": parent}
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:12]


def canonical(content: Any) -> str:
    """JSON with sorted keys and no spaces: equal content gives equal text."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
