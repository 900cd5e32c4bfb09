"""Load and save models: hub ids, local directories, adapters."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

NOT_IN_FINGERPRINT = {"README.md", "training_args.bin", ".gitattributes"}


def load(name_or_dir: str | Path, dtype: str = "float32") -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from a hub id, a model directory or a PEFT adapter directory.

    An adapter is loaded onto its base model and comes back as a `PeftModel`.

    Raises:
        FileNotFoundError: a path that does not exist.
        ValueError: the tokenizer has neither a padding nor an end token.
    """
    name = str(name_or_dir)
    if re.match(r"[./~]", name) and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(f"model should be a directory or a hub id, found no directory at {name!r}.")
    tokenizer = AutoTokenizer.from_pretrained(name)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"tokenizer of {name!r} has neither a padding nor an end token. Set one of them.")
        tokenizer.pad_token = tokenizer.eos_token
    if (Path(name) / "adapter_config.json").is_file():
        base_name = PeftConfig.from_pretrained(name).base_model_name_or_path
        if base_name is None:
            raise ValueError(f"adapter {name!r} names no base model. Add base_model_name_or_path to its config.")
        return PeftModel.from_pretrained(_load_weights(base_name, dtype), name), tokenizer
    return _load_weights(name, dtype), tokenizer


def _load_weights(name: str, dtype: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(name, dtype=getattr(torch, dtype))
    if model.config.model_type == "gemma2":
        # sdpa cannot apply Gemma2's attention soft-cap.
        model.set_attn_implementation("eager")
    return model


def fingerprint(name_or_dir: str | Path) -> str:
    """What a run id says about its starting weights: a hash of the directory's files, or a hub id's commit."""
    path = Path(name_or_dir)
    if not path.is_dir():
        commit = AutoModelForCausalLM.from_pretrained(str(name_or_dir), device_map="meta").config._commit_hash
        return f"{name_or_dir}@{commit}"
    total = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file() and f.name not in NOT_IN_FINGERPRINT):
        total.update(f"{file.relative_to(path)}\n".encode())
        with file.open("rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


@dataclass(frozen=True)
class AdapterWeights:
    """A LoRA adapter taken out of its model.

    Attributes:
        config: The adapter's PEFT configuration as a dict.
        factors: Module name in the base model -> (A [r, in], B [out, r] with its scaling folded in): update = B A.
    """

    config: dict[str, Any]
    factors: dict[str, tuple[Tensor, Tensor]]


def prepare(model: Any, peft_config: LoraConfig | None) -> tuple[Any, AdapterWeights | None]:
    """The model to train, and the adapter it started from (None if it started from plain weights).

    A starting adapter that has been trained is merged into the weights in memory (in place), so that the frozen
    reference is the model one started from and not its raw base; a fresh adapter is trained on top, with `peft_config`
    or else the starting adapter's own configuration. Draw seeds before: the fresh adapter is random.
    """
    if not isinstance(model, PeftModel):
        return (model if peft_config is None else _with_adapter(model, peft_config)), None
    if not any(bool(p.any()) for name, p in model.named_parameters() if ".lora_B." in name):
        return (model if peft_config is None else _with_adapter(model.unload(), peft_config)), None
    start = _extract(model)
    config = copy.deepcopy(peft_config or _config(model))
    config.inference_mode, config.base_model_name_or_path = False, None
    return _with_adapter(model.merge_and_unload(), config), start


def _with_adapter(model: Any, config: LoraConfig) -> PeftModel:
    if config.bias != "none":
        raise ValueError(
            f"lora.bias should be 'none', found {config.bias!r}. Trained biases stay on when the adapter is off, "
            "so the reference would drift with them."
        )
    return get_peft_model(model, copy.deepcopy(config))


def _config(model: PeftModel) -> LoraConfig:
    return cast(LoraConfig, model.peft_config[str(model.active_adapter)])


def _extract(model: PeftModel) -> AdapterWeights:
    factors = {}
    for name, layer in lora_layers(model):
        key = layer.active_adapters[0]
        a, b = layer.lora_A[key].weight, layer.lora_B[key].weight * layer.scaling[key]
        factors[name] = (a.detach().cpu().clone(), b.detach().cpu().clone())
    return AdapterWeights(_config(model).to_dict(), factors)


def save(model: Any, tokenizer: Any, directory: str | Path, start: AdapterWeights | None = None) -> None:
    """Write a directory that opens in plain transformers (full) or PEFT (adapter).

    With `start` the two adapters are concatenated into one of summed rank, which opens on the raw base model.
    """
    if start is None:
        model.save_pretrained(str(directory))
    else:
        _write_adapter(_concatenate(start, _extract(model)), Path(directory))
    if tokenizer is not None:
        tokenizer.save_pretrained(str(directory))


def _concatenate(first: AdapterWeights, second: AdapterWeights) -> AdapterWeights:
    """One adapter whose update is the sum of both: A stacked, B side by side."""
    factors = {}
    for name in sorted({*first.factors, *second.factors}):
        parts = [adapter.factors[name] for adapter in (first, second) if name in adapter.factors]
        factors[name] = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    ranks = {name: a.shape[0] for name, (a, _) in factors.items()}
    # lora_alpha equal to the rank makes the scaling 1: it is already folded into B.
    same = {"r": max(ranks.values()), "lora_alpha": max(ranks.values()), "rank_pattern": ranks, "alpha_pattern": ranks}
    plain = {"target_modules": sorted(ranks), "use_rslora": False, "inference_mode": True}
    return AdapterWeights(first.config | same | plain, factors)


def _write_adapter(adapter: AdapterWeights, directory: Path) -> None:
    weights = {}
    for name, (a, b) in adapter.factors.items():
        weights[f"base_model.model.{name}.lora_A.weight"] = a.contiguous()
        weights[f"base_model.model.{name}.lora_B.weight"] = b.contiguous()
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig.from_peft_type(**adapter.config).save_pretrained(str(directory))


def lora_layers(model: PeftModel) -> list[tuple[str, Any]]:
    """(module name in the base model, LoRA layer) of every adapted module, in model order."""
    return [(name, m) for name, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)]


def update_norm(model: Any, before: dict[str, torch.Tensor]) -> float:
    """L2 norm of the change of the effective weights: of B A with its scaling for an adapter, else of theta - theta_0.

    Args:
        before: The trainable parameters before step 0, for full fine-tuning; ignored for an adapter (B A was 0).
    """
    if isinstance(model, PeftModel):
        deltas = (layer.get_delta_weight(layer.active_adapters[0]) for _, layer in lora_layers(model))
    else:
        deltas = (p.detach().cpu() - before[name] for name, p in model.named_parameters() if name in before)
    return float(sum(d.detach().double().square().sum() for d in deltas)) ** 0.5
