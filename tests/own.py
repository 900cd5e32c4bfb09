"""A user's own files in the words of `selgen.tiny`, and what another program makes of a saved model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from selgen import record, tiny

MAX_NEW_TOKENS = 6
FAST = [
    "training.num_train_epochs=2",
    "training.warmup_steps=0",
    "training.learning_rate=0.05",
    "training.logging_steps=1",
    f"evaluation.max_new_tokens={MAX_NEW_TOKENS}",
    "setting.val_share=0.2",
    "setting.test_share=0.2",
]
LORA = ["lora.r=2", "lora.lora_alpha=4"]
TASK = [{"prompt": e.prompt[0]["content"], "completion": e.completion} for e in tiny.task_data(20)]
ALIGNMENT = [
    {"prompt": e.prompt[0]["content"], "completion": e.completion, "rejected": e.rejected} for e in tiny.align_data(4)
]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def save_model(path: Path, architecture: str = "qwen3", tokenizer: Any = None, **changes: Any) -> Path:
    tiny.model(architecture, **changes).save_pretrained(path)
    (tokenizer or tiny.tokenizer()).save_pretrained(path)
    return path


def the_run(out_dir: Path) -> Path:
    """The only run in a directory."""
    [found] = [path.parent for path in out_dir.glob("*/record.json")]
    return found


def untouched(out_dir: Path) -> bool:
    """Whether nothing was written into a directory."""
    return not out_dir.exists() or not any(out_dir.iterdir())


def greedy_answer(directory: Path, messages: list[dict[str, str]]) -> str:
    """What a saved model says in plain transformers or PEFT."""
    is_adapter = (directory / "adapter_config.json").is_file()
    model: Any = (AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM).from_pretrained(directory)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    asked = tokenizer(text, add_special_tokens=False, return_tensors="pt", return_token_type_ids=False)
    said = model.generate(**asked, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def responses(run_dir: Path) -> list[tuple[list[dict[str, str]], str]]:
    """Prompt and response of every generated sample on test."""
    rows = record.read_jsonl(record.samples_path(run_dir, "test"))
    return [(row["prompt"], row["response"]) for row in rows if row["response"] is not None]
