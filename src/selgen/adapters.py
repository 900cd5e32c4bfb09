"""LoRA adapters as weights: take them out, add two up, fold them in for a while, measure them."""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, LoraModel, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

MAX_FOLDED_BYTES = 256 << 20
"""Most adapted weights of which `folded` makes a copy."""


@dataclass(frozen=True)
class AdapterWeights:
    """A LoRA adapter taken out of its model.

    Attributes:
        config: The adapter's PEFT configuration as a dict.
        factors: Module name in the base model -> (A [r, in], B [out, r] with its scaling folded in): update = B A.
    """

    config: dict[str, Any]
    factors: dict[str, tuple[Tensor, Tensor]]


def config_of(model: PeftModel) -> LoraConfig:
    return cast(LoraConfig, model.peft_config[str(model.active_adapter)])


def extract(model: PeftModel) -> AdapterWeights:
    """What the active adapter does; of several, their sum."""
    return reduce(concatenate, (_extract(model, name) for name in model.active_adapters))


def _extract(model: PeftModel, adapter: str) -> AdapterWeights:
    factors = {}
    for name, layer in lora_layers(model):
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight * layer.scaling[adapter]
        factors[name] = (a.detach().cpu().clone(), b.detach().cpu().clone())
    return AdapterWeights(cast(LoraConfig, model.peft_config[adapter]).to_dict(), factors)


def concatenate(first: AdapterWeights, second: AdapterWeights) -> AdapterWeights:
    """One adapter whose update is the sum of both: A stacked, B side by side."""
    factors = {}
    for name in sorted({*first.factors, *second.factors}):
        parts = [adapter.factors[name] for adapter in (first, second) if name in adapter.factors]
        factors[name] = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    return AdapterWeights(first.config | _plain(factors), factors)


def split(whole: AdapterWeights, first: AdapterWeights) -> AdapterWeights:
    """What was concatenated to the first: the inverse of `concatenate`, bit for bit.

    Raises:
        ValueError: the whole does not begin with the first.
    """
    factors = {}
    for name, (a, b) in whole.factors.items():
        begin = first.factors.get(name, (a[:0], b[:, :0]))
        rank = begin[0].shape[0]
        if not (torch.equal(a[:rank], begin[0]) and torch.equal(b[:, :rank], begin[1])):
            raise ValueError(
                f"the adapter should contain the one that it started from, found other numbers in {name}. Train it "
                "again: its starting adapter changed since."
            )
        if rank < a.shape[0]:
            factors[name] = a[rank:], b[:, rank:]
    return AdapterWeights(whole.config | _plain(factors), factors)


def _plain(factors: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """The part of a configuration that goes with factors of these ranks, into which the scaling is folded."""
    ranks = {name: a.shape[0] for name, (a, _) in factors.items()}
    # lora_alpha equal to the rank makes the scaling 1.
    same = {"r": max(ranks.values()), "lora_alpha": max(ranks.values()), "rank_pattern": ranks, "alpha_pattern": ranks}
    everywhere = {"exclude_modules": None, "layers_to_transform": None, "layers_pattern": None}
    return same | everywhere | {"target_modules": sorted(ranks), "use_rslora": False, "inference_mode": True}


def attach(model: Any, adapter: AdapterWeights) -> PeftModel:
    """A model with that adapter, frozen."""
    made = cast(PeftModel, get_peft_model(model, cast(LoraConfig, LoraConfig.from_peft_type(**adapter.config))))
    name = str(made.active_adapter)
    with torch.no_grad():
        for module, layer in lora_layers(made):
            a, b = adapter.factors[module]
            layer.lora_A[name].weight.copy_(a)
            layer.lora_B[name].weight.copy_(b / layer.scaling[name])
    return made


def write(adapter: AdapterWeights, directory: Path) -> None:
    """A directory that opens in plain PEFT."""
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


def unmatched(model: PeftModel, config: LoraConfig) -> list[str]:
    """What of a configuration names modules or blocks that the model does not have; PEFT passes over such names.

    Args:
        model: With an adapter of that configuration.
    """
    names = [name for name, _ in lora_layers(model)]
    blocks = model.config.get_text_config().num_hidden_layers
    layers = [i for i in cast(list[int], config.layers_to_transform or []) if i >= blocks]
    problems = []
    if layers:
        problems.append(
            f"lora.layers_to_transform should hold indices below {blocks}, the number of blocks, found {layers}. "
            "Remove them."
        )
    named = {
        "lora.target_modules": [] if isinstance(config.target_modules, str) else sorted(config.target_modules or []),
        "lora.rank_pattern": list(config.rank_pattern or {}),
        "lora.alpha_pattern": list(config.alpha_pattern or {}),
    }
    for field, keys in named.items():
        nothing = [key for key in keys if not any(re.fullmatch(rf"(.*\.)?({key})", name) for name in names)]
        if nothing:
            problems.append(
                f"{field} should name adapted modules, found {', '.join(nothing)}, which no adapted module's name ends "
                f"with. Use some of {', '.join(sorted({name.rpartition('.')[2] for name in names}))}."
            )
    return problems


def check_sum(model: Any) -> None:
    """Make sure that an adapter can be trained beside others and saved as the sum of them.

    Raises:
        ValueError: there is no adapter, or it has parts that do not add up.
    """
    if not isinstance(model, PeftModel):
        raise ValueError(
            "lora should not be null for a method that fits an adapter first. Give lora.r, or choose another method."
        )
    if config_of(model).use_dora:
        raise ValueError(
            "lora.use_dora should be false for a method that fits an adapter first: the sum of both adapters is saved, "
            "which DoRA's norms do not have. Turn DoRA off."
        )
    other = [name for name, layer in lora_layers(model) if not layer.lora_A]
    if other:
        raise ValueError(
            "lora.target_modules should name linear layers only for a method that fits an adapter first, found "
            f"{', '.join(other)}. Leave them out."
        )


def add_beside(model: PeftModel, name: str, seed: int) -> None:
    """Add an untrained adapter like the active one, and make it the only one that is active and trained.

    It is drawn by (seed, name) alone, and whatever is drawn after is what would have been drawn without it.
    """
    device = model.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(random.Random(f"{seed}:{name}").getrandbits(32))
        model.add_adapter(name, copy.deepcopy(config_of(model)))
    model.set_adapter(name)


def train_beside(model: PeftModel, trained: str, frozen: Sequence[str]) -> None:
    """Make these adapters active, the first to be trained and the others frozen."""
    model.set_adapter(trained)
    cast(LoraModel, model.base_model).set_adapter([trained, *frozen])  # PeftModel's own takes one name
    model.set_requires_grad(list(frozen), requires_grad=False)


@contextmanager
def folded(model: Any) -> Iterator[None]:
    """The adapter added into the weights while text is generated, a fifth faster; then all bits as before.

    That takes a copy of the adapted weights, so models with more than `MAX_FOLDED_BYTES` of them keep the adapter
    beside, and so do half-precision weights, in which small updates would be lost, tied ones, and those of which each
    process has a part. A model that is
    merged already stays so.
    """
    layers = [layer for _, layer in lora_layers(model)] if isinstance(model, PeftModel) else []
    weights = [layer.get_base_layer().weight for layer in layers]
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    exact = all(w.dtype == torch.float32 and uses[id(w)] == 1 and not isinstance(w, DTensor) for w in weights)
    merged = any(layer.merged for layer in layers)
    if not weights or merged or not exact or sum(w.nbytes for w in weights) > MAX_FOLDED_BYTES:
        yield
        return
    before = [w.detach().clone() for w in weights]
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)


def update_norm(model: Any, before: dict[str, Tensor]) -> float:
    """L2 norm of the change of the effective weights: of the adapter's update, else of theta - theta_0.

    Args:
        before: The parameters before step 0, for full fine-tuning; ignored for an adapter (its update was 0).
    """
    if isinstance(model, PeftModel):
        # Several adapters move a weight together.
        layers = (layer for _, layer in lora_layers(model))
        deltas = (reduce(torch.add, (_update(layer, key) for key in layer.active_adapters)) for layer in layers)
    else:
        moved = ((p.detach(), before[name]) for name, p in model.named_parameters() if name in before)
        deltas = (whole(p).cpu() - start.cpu() for p, start in moved)
    return float(sum(whole(d.detach()).double().square().sum() for d in deltas)) ** 0.5


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may have a part; all of them ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _update(layer: Any, name: str) -> Tensor:
    """What an adapter adds to a layer's weight: s B A; with DoRA (Liu et al., 2024) m (W + s B A) / |W + s B A| - W."""
    delta = layer.get_delta_weight(name)
    if not layer.use_dora[name]:
        return delta
    weight, magnitude = layer.get_base_layer().weight, layer.lora_magnitude_vector[name]
    weight = weight if weight.is_floating_point() else dequantize_module_weight(layer.get_base_layer())
    moved = weight + delta
    inputs = 0 if magnitude.fan_in_fan_out else 1  # embeddings and GPT-2's weights are stored [in, out]
    return magnitude.weight.unsqueeze(inputs) * moved / moved.norm(dim=inputs, keepdim=True) - weight
