"""Is a model directory whole and usable? Answered from headers and configs, before any weights are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from selgen import hub, loading, models

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
ORIGIN = "selgen.json"
"""Beside an adapter of ours: the fingerprint of the base weights that it was trained on."""
MAX_NAMED = 3
"""Most weights that an error names."""


class ModelError(ValueError):
    """A model or adapter directory that cannot be used; the message says what is wrong with it and what to do."""


def check_model(name_or_dir: str, trust_remote_code: bool = False) -> None:
    """Make sure that a local model or adapter directory is whole, fits its base, and has a chat template.

    A hub id is left to the hub's client.

    Args:
        trust_remote_code: Whether code beside the weights may be run; without it, nothing that has any is whole.

    Raises:
        ModelError: a file is missing or cut short, the adapter is another base's, or there is no chat template.
    """
    path = Path(name_or_dir)
    if path.is_dir():
        if (path / models.ADAPTER_CONFIG).is_file():
            _check_adapter(path, trust_remote_code)
        else:
            _check_weights(path, trust_remote_code)
        _check_template(name_or_dir, trust_remote_code)
    elif path.exists():
        raise ModelError(f"model.name should be a directory, found the file {name_or_dir!r}. Name its directory.")


def _check_weights(path: Path, trusted: bool) -> None:
    config = _json(path / "config.json", "Save the model with save_pretrained.")
    if (path / WEIGHTS).is_file() or (path / INDEX).is_file():
        for file in _weight_files(path):
            _shapes(path / file)
    elif not list(path.glob("pytorch_model*.bin")):  # an older format, which has no header to read
        raise ModelError(f"{path} is no whole model directory: {WEIGHTS} is missing. Save or download it again.")
    if "quantization_config" not in config:  # its weights have other names than the model's until they are loaded
        _check_complete(path, trusted)


def _weight_files(path: Path) -> list[str]:
    if (path / WEIGHTS).is_file():
        return [WEIGHTS]
    shards = _json(path / INDEX, "Copy or download the model again.").get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(file, str) for file in shards.values()):
        raise ModelError(f"{path / INDEX} should map weights to files in weight_map. Copy or download the model again.")
    return sorted(set(shards.values()))


def _check_complete(path: Path, trusted: bool) -> None:
    """transformers draws weights at random that are missing, and says so in a log message alone."""
    try:
        with _quiet(), _untrusted(path):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=trusted,
            )
    except ModelError:
        raise
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(
            f"{path} is no causal language model that can be loaded ({_one_line(error)}). Correct its config.json, or "
            "name another model."
        ) from error
    _, found = loaded
    wrong = [
        *(f"{key} is missing" for key in sorted(found["missing_keys"])),
        *(f"{key} has shape {list(a)}, not {list(b)}" for key, a, b in sorted(found["mismatched_keys"])),
    ]
    if wrong:
        more = f", and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
        raise ModelError(
            f"{path} does not hold the weights that its config.json describes: {', '.join(wrong[:MAX_NAMED])}{more}. "
            "Save or download the model again."
        )


@contextmanager
def _untrusted(path: Path) -> Iterator[None]:
    """Let what is said about untrusted code stand alone."""
    try:
        with loading.only_trusted(str(path)):
            yield
    except ValueError as error:
        raise (ModelError(str(error)) if "model.trust_remote_code" in str(error) else error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report of the library's own: what they say becomes an error here."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _check_adapter(path: Path, trusted: bool) -> None:
    config = _json(path / models.ADAPTER_CONFIG, "Save the adapter with save_pretrained.")
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"adapter {path} should be a LORA one, found {config.get('peft_type')!r}. Merge it into its base."
        )
    base = config.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"adapter {path} names no base model. Add base_model_name_or_path to its config.")
    shapes = _shapes(path / ADAPTER)
    if not Path(base).is_dir():
        _check_hub_base(path, base, config.get("revision"), trusted)
        return
    if (Path(base) / models.ADAPTER_CONFIG).is_file():
        raise ModelError(f"adapter {path} is for the base {base!r}, which is an adapter itself. Merge that one first.")
    _check_weights(Path(base), trusted)
    _check_fits(path, shapes, base, trusted)
    if (path / ORIGIN).is_file():
        recorded = _json(path / ORIGIN, "Run it again.").get("base_fingerprint")
        found = models.fingerprint(base)
        if recorded != found:
            raise ModelError(
                f"adapter {path} was trained on another base than the weights at {base!r} (fingerprint "
                f"{str(recorded)[:12]}, found {found[:12]}). Put that base back, or train again."
            )


def _check_hub_base(path: Path, base: str, revision: str | None, trusted: bool) -> None:
    reason = "there is no such directory"
    if hub.ID.fullmatch(base):
        try:
            AutoConfig.from_pretrained(base, revision=revision, trust_remote_code=trusted)
            return
        except OSError as error:
            reason += f", and the hub does not give it ({_one_line(error)})"
    raise ModelError(
        f"adapter {path} is for the base {base!r}: {reason}. "
        f"Put the model back, or correct base_model_name_or_path in {path / models.ADAPTER_CONFIG}."
    )


def _check_fits(path: Path, shapes: dict[str, list[int]], base: str, trusted: bool) -> None:
    empty = loading.without_numbers(base, trusted)
    weights = {
        name.removesuffix(".weight"): list(p.shape) for name, p in empty.named_parameters(remove_duplicate=False)
    }
    for key, shape in shapes.items():
        module, factor, _ = key.removeprefix("base_model.model.").rpartition(".lora_")
        if not factor or shape[1:] == []:
            continue
        side = 1 if key.endswith("lora_A.weight") else 0
        # GPT-2 and embeddings store weights as [in, out].
        if module not in weights or shape[side] not in weights[module]:
            there = f"has {weights[module]}" if module in weights else "has no such module"
            raise ModelError(
                f"adapter {path} does not fit its base {base!r}: {key} has shape {shape}, the base {there}. "
                "Name the base that it was trained on in its adapter_config.json."
            )


def _check_template(name: str, trusted: bool) -> None:
    source, revision = hub.split(models.tokenizer_source(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trusted)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model {name!r} has no tokenizer that can be loaded ({_one_line(error)}). Save its tokenizer beside it."
        ) from error
    if not tokenizer("What is this?", add_special_tokens=False)["input_ids"]:
        # What transformers makes of an architecture's name alone.
        raise ModelError(f"model {name!r} has an empty tokenizer. Save its tokenizer beside it.")
    if not tokenizer.chat_template:
        raise ModelError(
            f"tokenizer of {name!r} has no chat template. Set tokenizer.chat_template and save it, or start from an "
            "instruction-tuned model."
        )
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "What is this?"}], tokenize=False)
    except TemplateError as error:
        raise ModelError(
            f"the chat template of {name!r} cannot render a question ({_one_line(error)}). Correct it."
        ) from error


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
    """The first sentence of a message, which may go on after a colon in the next line."""
    lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".: ")
