"""The parts of a config, each checked by itself: setting, method, model, training, adapter, a run before, ..."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from selgen.config import ConfigError, build, explain
from selgen.core import BASE

Count = Annotated[int, Field(ge=1)]


def named(value: Any) -> Any:
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


Block = Annotated[dict[str, Any], BeforeValidator(named)]
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


class QuantizationSpec(Spec):
    """Weights in 4 or 8 bits, under the names of transformers' BitsAndBytesConfig.

    `nf4` is short for what QLoRA's paper trains on (4 bits, NormalFloat, constants quantized too), `fp4` and `int8`
    for bitsandbytes' other types.

    Attributes:
        bnb_4bit_compute_dtype: Of products with 4-bit weights.
    """

    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = False
    bnb_4bit_compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.load_in_4bit == self.load_in_8bit:
            raise ValueError(
                "model.quantization should set one of load_in_4bit and load_in_8bit, found "
                f"{'both' if self.load_in_4bit else 'neither'}. Use nf4, fp4 or int8, or set one of them."
            )
        return self


_QUANTIZATIONS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
}


def _quantized(value: Any) -> Any:
    if isinstance(value, str):
        if value not in _QUANTIZATIONS:
            raise ValueError(
                f"model.quantization should be one of {', '.join(_QUANTIZATIONS)}, fields of BitsAndBytesConfig or "
                f"null, found {value!r}. Correct it."
            )
        return _QUANTIZATIONS[value]
    return value


class ModelSpec(Spec):
    """The starting model.

    Attributes:
        name: `miniature` (the setting's own), a model or adapter directory, or a hub id.
        dtype: Of its weights; an adapter is always trained in float32.
        revision: Branch, tag or commit of a hub id; None: its main branch. The commit is part of a run's id.
        trust_remote_code: Run Python code that lies beside the weights, for architectures that transformers lacks.
        attn_implementation: None: the fastest that computes the architecture's attention (sdpa, or eager for Gemma2).
        quantization: Of the weights, on a CUDA GPU, under an adapter; None: none.
    """

    name: str = "miniature"
    dtype: Literal["float32", "bfloat16"] = "float32"
    revision: str | None = None
    trust_remote_code: bool = False
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = (
        None
    )
    quantization: Annotated[QuantizationSpec | None, BeforeValidator(_quantized)] = None

    def loading(self) -> dict[str, Any]:
        """How `models.load` is to load it."""
        return self.model_dump(include={"dtype", "trust_remote_code", "attn_implementation", "quantization"})


class TrainingSpec(Spec):
    """How every method trains, under the names of Hugging Face's TrainingArguments.

    Attributes:
        save_steps: Optimizer steps between checkpoints that an interrupted run resumes from; None keeps none, so that
            it starts again.
        max_length: Most tokens per example, longer ones are an error; None for no limit.
        activation_checkpointing: Compute activations again in the backward pass instead of keeping them: less memory, a
            third more time. `gradient_checkpointing` is its older name and may be used too.
        padding_free: Give the model a micro-batch's rows as one, without padding: for flash attention.
        compile_blocks: Compile the model's blocks with torch.compile.
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
    padding_free: bool = False
    compile_blocks: bool = False
    pairing: Literal["proportional", "cycle"] = "proportional"
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "gradient_checkpointing" not in data:
            return data
        rest = {key: value for key, value in data.items() if key != "gradient_checkpointing"}
        return {**rest, "activation_checkpointing": data["gradient_checkpointing"]}


class LoraSpec(Spec):
    """The adapter, under PEFT's names.

    Attributes:
        target_modules: Names, or a regular expression over whole names; `all-linear`: all but the head.
        exclude_modules: Of those, the ones to leave out, likewise.
        layers_to_transform: Indices of the blocks to adapt; None: all.
        rank_pattern: Module name or its end -> r there.
        alpha_pattern: The same for lora_alpha.
        modules_to_save: Must stay None: see the message.
    """

    r: Count = 8
    lora_alpha: int = Field(default=16, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: str | list[str] = "all-linear"
    exclude_modules: str | list[str] | None = None
    layers_to_transform: list[Annotated[int, Field(ge=0)]] | None = None
    rank_pattern: dict[str, Count] = {}
    alpha_pattern: dict[str, Annotated[int, Field(gt=0)]] = {}
    modules_to_save: list[str] | None = None

    @property
    def names_modules(self) -> bool:
        """Whether it says more about where the adapter goes than what fits every model."""
        only = {"target_modules", "exclude_modules", "layers_to_transform", "rank_pattern", "alpha_pattern"}
        return self.model_dump(include=only) != LoraSpec().model_dump(include=only)

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.modules_to_save:
            raise ValueError(
                f"lora.modules_to_save should be null, found {self.modules_to_save}: trained copies of whole modules "
                "are no low-rank update, so their change could be neither measured, added to another adapter's nor "
                "changed after training. Name the modules in lora.target_modules, or train all weights with lora=null."
            )
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError(
                "lora.target_modules should be a list of names with lora.layers_to_transform, found "
                f"{self.target_modules!r}. List them, e.g. lora.target_modules=[q_proj,v_proj]."
            )
        return self


class EndpointSpec(Spec):
    """A server that answers instead of this process: vLLM's, which loads a run's adapter by name.

    Attributes:
        url: Of its API, usually ending in /v1, as every process that carries out runs reaches it.
        model: Name under which it serves the starting model (without adapter); None finds it by that model's name.
        key_env: Environment variable that holds its key; None if it needs none.
        concurrency: Requests at the same time, from each run.
        timeout: Seconds without a byte after which a request is given up.
        tries: Times that each request is sent, at most.
    """

    url: str
    model: str | None = None
    key_env: str | None = None
    concurrency: Count = 64
    timeout: float = Field(default=300.0, gt=0)
    tries: Count = 6

    @model_validator(mode="after")
    def _plain_url(self) -> Self:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(
                f"evaluation.endpoint.url should begin with http:// or https://, found {self.url!r}. Write, for "
                "example, http://localhost:8000/v1."
            )
        self.url = self.url.rstrip("/")
        return self


class EvaluationSpec(Spec):
    """How responses are sampled.

    Attributes:
        temperature: 0 decodes greedily.
        endpoint: A server that samples them; None samples in the run's own process.
        splits: `val` chooses strengths, `test` is drawn.
    """

    max_new_tokens: Count = 64
    batch_size: Count = 256
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    splits: list[Literal["val", "test"]] = Field(default=["val", "test"], min_length=1)
    endpoint: EndpointSpec | None = None


class ExecutorSpec(Spec):
    """Where a sweep's runs are carried out, and what each gets. Changes no result, so it is no part of any run's id.

    Attributes:
        name: `local` (processes of this machine, which use nothing of the rest), `ray` or `slurm`.
        num_cpus: Cores of each run, and threads that it computes with. Other numbers than 1 change the last bits.
        num_gpus: GPUs of each run; with Ray a fraction lets runs share one. None: one if Ray's cluster has any, none
            with Slurm.
        memory_gb: Main memory of each run, in GB; None leaves it to the cluster.
        minutes: Slurm: longest time of a run.
        options: Slurm: other options of sbatch by their long names, e.g. `{partition: gpu, account: mine}`.
    """

    name: Literal["local", "ray", "slurm"] = "local"
    num_cpus: Count = 1
    num_gpus: float | None = Field(default=None, ge=0)
    memory_gb: float | None = Field(default=None, gt=0)
    minutes: Count = 240
    options: dict[str, str | int | bool] = {}

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        gpus = self.num_gpus or 0
        if gpus != int(gpus) and (self.name == "slurm" or gpus > 1):
            allowed = "a whole number with slurm" if self.name == "slurm" else "a whole number, or below 1"
            raise ValueError(f"executor.num_gpus should be {allowed}, found {gpus:g}. Round it up.")
        return self


def changed_setting(
    setting: Mapping[str, Any], options: Mapping[str, Any], where: str, fixed: Sequence[str] = ("name",)
) -> dict[str, Any]:
    """A setting's block with other values of some options.

    Args:
        where: What begins each message.
        fixed: Keys that may not be changed.

    Raises:
        ConfigError: an option is unknown, fixed or refused.
    """
    problems = [
        f"setting.{key} should be left out, found {options[key]!r}: it is the same for all runs. Remove it."
        for key in fixed
        if key in options
    ]
    try:
        if not problems:
            return build("settings", {**setting, **options})[1]
    except ConfigError as error:
        problems = error.problems
    raise ConfigError(f"{where}: {problem}" for problem in problems)


class FirstSpec(Spec):
    """A run of `TASK_ONLY` that comes before others of its seed, which start from its adapter.

    It has their model, evaluation and seed; the rest is theirs too unless it is overridden here.

    Attributes:
        setting: Overrides of the setting's options.
        training: Overrides of training.
        lora: Overrides of lora; None for none.
    """

    setting: dict[str, Any] = {}
    training: dict[str, Any] = {}
    lora: dict[str, Any] | None = None

    def resolved(self, setting: Mapping[str, Any], training: TrainingSpec, lora: LoraSpec | None) -> FirstSpec:
        """The same with every number of its training and its adapter filled in, whatever else is overridden later.

        Raises:
            ConfigError: with everything that is wrong with the overrides, or with `lora` for a run that starts from it.
        """
        if lora is None:
            raise ConfigError(
                [
                    "lora should not be null with first: on top of an adapter only an adapter is trained. Give lora.r, "
                    "e.g. lora.r=8, or remove first."
                ]
            )
        problems: list[str] = []
        own = {"setting": self.setting, "training": self.training, "lora": self.lora or {}}
        if "seed" in self.training:
            problems.append(
                f"first.training.seed should be left out, found {self.training['seed']!r}: it is the run's. Remove it."
            )
        try:
            block = changed_setting(setting, self.setting, "first")
            own["setting"] = {option: block[option] for option in self.setting}
        except ConfigError as error:
            problems += error.problems
        for part, whole in (("training", training), ("lora", lora)):
            try:
                filled = type(whole).model_validate({**whole.model_dump(), **own[part]})
                own[part] = filled.model_dump(exclude={"seed"})
            except ValidationError as error:
                problems += explain(error, type(whole), f"first.{part}")
        if not problems and (lora.use_dora or own["lora"]["use_dora"]):
            problems.append(
                "lora.use_dora should be false with first, in lora and in first.lora: both adapters are saved as one "
                "sum, which DoRA's norms do not have. Turn DoRA off."
            )
        if problems:
            raise ConfigError(problems)
        return FirstSpec(**own)
