"""Is a model directory whole and usable? Answered from headers and configs, before any weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selgen import models

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
ORIGIN = "selgen.json"
"""Beside an adapter of ours: the fingerprint of the base weights that it was trained on."""


class ModelError(ValueError):
    """A model or adapter directory that cannot be used; the message says what is wrong with it and what to do."""


def check_model(name_or_dir: str) -> None:
    """Make sure that a local model or adapter directory is whole, fits its base, and has a chat template.

    A hub id is left to the hub's client.

    Raises:
        ModelError: a file is missing or cut short, the adapter is another base's, or there is no chat template.
    """
    path = Path(name_or_dir)
    if path.is_dir():
        if (path / models.ADAPTER_CONFIG).is_file():
            _check_adapter(path)
        else:
            _check_weights(path)
        _check_template(name_or_dir)
    elif path.exists():
        raise ModelError(f"model.name should be a directory, found the file {name_or_dir!r}. Name its directory.")


def _check_weights(path: Path) -> None:
    _json(path / "config.json", "Save the model with save_pretrained.")
    if (path / INDEX).is_file():
        shards = _json(path / INDEX, "Copy or download the model again.").get("weight_map", {})
        files = sorted(set(shards.values()))
    else:
        files = [WEIGHTS]
        if not (path / WEIGHTS).is_file() and list(path.glob("pytorch_model*.bin")):
            return  # an older format, which has no header to read
    for file in files:
        _shapes(path / file)


def _check_adapter(path: Path) -> None:
    config = _json(path / models.ADAPTER_CONFIG, "Save the adapter with save_pretrained.")
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"adapter {path} should be a LORA one, found {config.get('peft_type')!r}. Merge it into its base."
        )
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"adapter {path} names no base model. Add base_model_name_or_path to its config.")
    if not Path(base).is_dir():
        if Path(base).is_absolute():
            raise ModelError(
                f"adapter {path} is for the base {base!r}, and there is no such directory. "
                f"Put the model back, or correct base_model_name_or_path in {path / models.ADAPTER_CONFIG}."
            )
        return
    _check_weights(Path(base))
    shapes = _shapes(path / ADAPTER)
    _check_fits(path, shapes, base)
    if (path / ORIGIN).is_file():
        recorded = _json(path / ORIGIN, "Run it again.").get("base_fingerprint")
        if recorded != models.fingerprint(base):
            raise ModelError(
                f"adapter {path} was trained on another base than the weights at {base!r} (fingerprint "
                f"{str(recorded)[:12]}, found {models.fingerprint(base)[:12]}). Put that base back, or train again."
            )


def _check_fits(path: Path, shapes: dict[str, list[int]], base: str) -> None:
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    weights = {
        name.removesuffix(".weight"): list(p.shape) for name, p in empty.named_parameters(remove_duplicate=False)
    }
    for key, shape in shapes.items():
        module, factor, _ = key.removeprefix("base_model.model.").rpartition(".lora_")
        if not factor or shape[1:] == []:
            continue
        side = 1 if key.endswith("lora_A.weight") else 0
        if module not in weights or weights[module][side] != shape[side]:
            there = f"has {weights[module]}" if module in weights else "has no such module"
            raise ModelError(
                f"adapter {path} does not fit its base {base!r}: {key} has shape {shape}, the base {there}. "
                "Name the base that it was trained on in its adapter_config.json."
            )


def _check_template(name: str) -> None:
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model {name!r} has no tokenizer that can be loaded ({_one_line(error)}). Save its tokenizer beside it."
        ) from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"tokenizer of {name!r} has no chat template. Set tokenizer.chat_template and save it, or start from an "
            "instruction-tuned model."
        )


def _json(path: Path, remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path.parent} is no whole model directory: {path.name} is missing. {remedy}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON ({_one_line(error)}): it was cut short or damaged. {remedy}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} should hold a JSON object, found a {type(found).__name__}. {remedy}")
    return found


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes by name from a safetensors file, whose header also tells whether the file is whole."""
    if not path.is_file():
        raise ModelError(
            f"{path.parent} is no whole model directory: {path.name} is missing. Save or download it again."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  # no iterator
    except SafetensorError as error:
        raise ModelError(
            f"{path} is damaged or half-written ({_one_line(error)}). Save or download the model again."
        ) from error


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
