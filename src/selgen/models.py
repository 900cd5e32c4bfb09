"""Load and save models: hub ids (`id` or `id@revision`), local directories, adapters."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, load_peft_weights
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoTokenizer

from selgen import adapters, hub, loading
from selgen.adapters import AdapterWeights

ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
STORED = ["model*.safetensors", "model.safetensors.index.json"]
"""Files of a hub model that hold its weights."""
NOT_IN_FINGERPRINT = {"README.md", "training_args.bin", ".gitattributes"}


def load(
    name_or_dir: str | Path,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from a hub id, a model directory or a PEFT adapter directory.

    An adapter is loaded onto its base model and comes back as a `PeftModel`.

    Args:
        dtype: Of the weights; of those that stay unquantized, with `quantization`.
        trust_remote_code: Run Python code that lies beside the weights.
        attn_implementation: As transformers names them; None: the architecture's best that computes what it should.
        quantization: Fields of transformers' BitsAndBytesConfig. The weights go to the current GPU; None: none.

    Raises:
        FileNotFoundError: a path that does not exist.
        ModelNotFound: a hub id that cannot be had.
        ValueError: the tokenizer has neither a padding nor an end token; the model needs code that is not trusted,
            or cannot compute attention as asked; quantized weights cannot be used here.
    """
    name = str(name_or_dir)
    if re.match(r"[./~]", name) and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(f"model should be a directory or a hub id, found no directory at {name!r}.")
    tokenizer = load_tokenizer(name, trust_remote_code)
    base_name = base_of(Path(name)) if is_adapter(name) else name
    if base_name is None:
        raise ValueError(f"adapter {name!r} names no base model. Add base_model_name_or_path to its config.")
    model = loading.weights(base_name, dtype, trust_remote_code, attn_implementation, quantization)
    return (PeftModel.from_pretrained(model, name) if is_adapter(name) else model), tokenizer


def load_tokenizer(name: str, trust_remote_code: bool = False) -> Any:
    """A tokenizer that can pad.

    Raises:
        ModelNotFound: a hub id that cannot be had.
        ValueError: it has neither a padding nor an end token, or needs code that is not trusted.
    """
    source, revision = hub.split(tokenizer_source(name))
    with hub.explained(tokenizer_source(name)), loading.only_trusted(source):
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"tokenizer of {name!r} has neither a padding nor an end token. Set one of them.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_source(name: str) -> str:
    """Where a model's tokenizer lies: PEFT saves adapters without one, which then is their base model's."""
    path = Path(name)
    if not is_adapter(path) or any((path / file).is_file() for file in TOKENIZER_FILES):
        return name
    return base_of(path) or name


def base_of(adapter: Path) -> str | None:
    """The base model that an adapter directory names, at the revision that it names."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    return base and hub.pinned(base, config.get("revision"))


def is_adapter(name_or_dir: str | Path) -> bool:
    return (Path(name_or_dir) / ADAPTER_CONFIG).is_file()


def raw(name_or_dir: str) -> str:
    """The model itself, or the one under an adapter directory."""
    return (base_of(Path(name_or_dir)) if is_adapter(name_or_dir) else None) or name_or_dir


def read_adapter(directory: str | Path) -> AdapterWeights:
    """What a saved adapter adds to the linear layers of its base model, of which no weight is read.

    Raises:
        ValueError: it adapts embeddings, or is a DoRA one: then it is no sum of matrices.
    """
    config = LoraConfig.from_pretrained(str(directory))
    shapes = empty(str(directory), cast(LoraConfig, config))
    _check_linear(shapes)
    if adapters.config_of(shapes).use_dora:
        raise ValueError(f"adapter {directory} should be none of DoRA's. Merge it into its base model first.")
    stored = load_peft_weights(str(directory), device="cpu")
    factors = {}
    for name, layer in adapters.lora_layers(shapes):
        a, b = (stored[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        factors[name] = a, b * layer.scaling[shapes.active_adapter]
    return AdapterWeights(config.to_dict(), factors)


def fingerprint(name_or_dir: str | Path, trust_remote_code: bool = False) -> str:
    """What a run id says about its starting weights: a hash of the directory's files, or a hub id at its commit.

    Raises:
        ModelNotFound: a hub id that cannot be had, or whose weights cannot.
        ValueError: the model needs code that is not trusted.
    """
    path = Path(name_or_dir)
    if not path.is_dir():
        return loading.pinned(str(name_or_dir), trust_remote_code)
    total = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file() and f.name not in NOT_IN_FINGERPRINT):
        total.update(f"{file.relative_to(path)}\n".encode())
        with file.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


class StoredWeights:
    """The weights of a model, read from its safetensors files one at a time.

    Args:
        name_or_dir: Model directory or hub id, in one file or in shards; or an adapter directory, which stands for its
            base model with the adapter folded in.

    Raises:
        ValueError: there is no such model, or it has no such files.
    """

    def __init__(self, name_or_dir: str) -> None:
        self.name = name_or_dir
        base = raw(name_or_dir)
        path = Path(base)
        try:
            self._adapter = read_adapter(name_or_dir) if is_adapter(name_or_dir) else None
            # Named as a path, or there: not for the hub.
            local = path.is_dir() or bool(re.match(r"[./~]", base))
            self._dir = path if local else _downloaded(base)
            index = self._dir / "model.safetensors.index.json"
            text = index.read_text(encoding="utf-8") if index.is_file() else None
            files = sorted(set(json.loads(text)["weight_map"].values())) if text else ["model.safetensors"]
            self._shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
            for file in files:
                with safe_open(self._dir / file, framework="pt") as opened:
                    for key in opened.keys():  # noqa: SIM118  # no iterator
                        self._shapes[key] = file, tuple(opened.get_slice(key).get_shape())
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"{name_or_dir} is no model whose weights can be read ({str(error).splitlines()[0]}). Name a model "
                "directory with safetensors files, or a hub id."
            ) from error

    def shape(self, module: str) -> tuple[int, ...]:
        """Of a module's weight.

        Raises:
            ValueError: there is no such weight.
        """
        return self._find(module)[1]

    def read(self, module: str) -> Tensor:
        """A module's weight as stored; with an adapter its sum with W's change B A, in float32.

        Raises:
            ValueError: there is no such weight.
        """
        with safe_open(self._dir / self._find(module)[0], framework="pt") as opened:
            weight = opened.get_tensor(f"{module}.weight")
        if self._adapter is None or module not in self._adapter.factors:
            return weight
        a, b = self._adapter.factors[module]
        update = b.float() @ a.float()
        # GPT-2 stores its weights [in, out].
        return weight.float() + (update.T if self._adapter.config["fan_in_fan_out"] else update)

    def _find(self, module: str) -> tuple[str, tuple[int, ...]]:
        key = f"{module}.weight"
        if key not in self._shapes:
            raise ValueError(
                f"{self.name} has no weight {key}, which the adapter changes. Name a model of the same architecture."
            )
        return self._shapes[key]


def _downloaded(name: str) -> Path:
    own, revision = hub.split(name)
    with hub.explained(name):
        return Path(snapshot_download(own, revision=revision, allow_patterns=STORED))


def described(model: Any) -> dict[str, Any]:
    """How a model was loaded, for a record: the hub's commit (None: a directory), attention, type, quantization."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = base.config
    quantization = getattr(config, "quantization_config", None)
    return {
        "commit": getattr(base, loading.COMMIT, None),
        "attn_implementation": config._attn_implementation,
        "dtype": str(config.dtype).removeprefix("torch."),
        "quantization": quantization if quantization is None else quantization.to_dict(),
    }


def lora_config(fields: Mapping[str, Any]) -> LoraConfig:
    """PEFT's configuration of an adapter of a causal language model."""
    return LoraConfig(**fields, task_type="CAUSAL_LM")


def empty(name_or_dir: str, peft_config: LoraConfig | None, **how: Any) -> Any:
    """A model, with an adapter if one is configured, without numbers (on the meta device); of an adapter, its base.

    Args:
        how: `trust_remote_code` and `attn_implementation` of `load`.

    Raises:
        ValueError: see `load`, and `prepare` for the adapter.
    """
    model = loading.without_numbers(raw(name_or_dir), **how)
    with torch.device("meta"):
        return model if peft_config is None else _with_adapter(model, peft_config)


def prepare(model: Any, peft_config: LoraConfig | None) -> tuple[Any, AdapterWeights | None]:
    """The model to train, and the adapter it started from (None if it started from plain weights).

    A starting adapter that has been trained is merged into the weights in memory (in place), so that the frozen
    reference is the model one started from and not its raw base; a fresh adapter is trained on top, with `peft_config`
    or else the starting adapter's own configuration. Draw seeds before: the fresh adapter is random.
    """
    if not isinstance(model, PeftModel):
        return (model if peft_config is None else _with_adapter(model, peft_config)), None
    _check_linear(model)
    if not _is_trained(model):
        return (model if peft_config is None else _with_adapter(model.unload(), peft_config)), None
    start = adapters.extract(model)
    config = copy.deepcopy(peft_config or adapters.config_of(model))
    if config.use_dora or start.config["use_dora"]:
        raise ValueError(
            "lora.use_dora should be false with a starting adapter, and so should that adapter's: both are saved as "
            "one sum, which DoRA's norms do not have. Merge the adapter into its base model first, or turn DoRA off."
        )
    config.inference_mode, config.base_model_name_or_path = False, None
    return _with_adapter(model.merge_and_unload(), config), start


def reopen(model: Any, directory: Path) -> tuple[PeftModel, AdapterWeights | None]:
    """A starting model with the adapter that a run trained on it, and the adapter it started from, as `prepare` has it.

    Args:
        model: The starting model as `load` gives it; changed in place.
        directory: What `save` wrote: with a trained starting adapter, the sum of both, which is taken apart again.

    Raises:
        ValueError: the saved adapter started from another one.
    """
    if not isinstance(model, PeftModel):
        return PeftModel.from_pretrained(model, str(directory)), None
    if not _is_trained(model):
        return PeftModel.from_pretrained(model.unload(), str(directory)), None
    start = adapters.extract(model)
    own = adapters.split(read_adapter(directory), start)
    return adapters.attach(model.merge_and_unload(), own), start


def _is_trained(model: PeftModel) -> bool:
    return any(bool(p.any()) for name, p in model.named_parameters() if ".lora_B." in name)


def _check_linear(model: PeftModel) -> None:
    if any(".lora_embedding_B." in name for name, _ in model.named_parameters()):
        raise ValueError(
            "the starting adapter should adapt linear layers only, found embeddings. Merge it into its base first."
        )


def _with_adapter(model: Any, config: LoraConfig) -> PeftModel:
    if config.bias != "none":
        raise ValueError(
            f"lora.bias should be 'none', found {config.bias!r}. Trained biases stay on when the adapter is off, "
            "so the reference would drift with them."
        )
    # A hub model's commit, so that the adapter opens on the weights that it was trained on.
    revision = getattr(model, loading.COMMIT, None)
    return cast(PeftModel, get_peft_model(model, copy.deepcopy(config), revision=revision))


def save(model: Any, tokenizer: Any, directory: str | Path, start: AdapterWeights | None = None) -> None:
    """Write a directory that opens in plain transformers (full) or PEFT (adapter).

    Several active adapters, `start` among them, are concatenated into one of summed rank, which opens on the raw base
    model.
    """
    several = isinstance(model, PeftModel) and len(model.active_adapters) > 1
    if start is None and not several:
        model.save_pretrained(str(directory))
    else:
        own = adapters.extract(model)
        adapters.write(own if start is None else adapters.concatenate(start, own), Path(directory))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(directory))
