"""The real trainer on a tiny model, for tests of methods."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig

from selgen import tiny
from selgen.core import Method
from selgen.train import SelectiveConfig, SelectiveTrainer

QUIET = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1, "save_strategy": "no"}


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | changes)


def trainer_for(
    directory: Any,
    method: Method,
    peft_config: LoraConfig | None = None,
    align: Any = None,
    callbacks: Any = (),
    model: Any = None,
    **config,
) -> SelectiveTrainer:
    """Ten task rows in micro-batches of four, three epochs; nothing is trained yet."""
    training = {"per_device_train_batch_size": 4, "num_train_epochs": 3, "learning_rate": 1e-2}
    return SelectiveTrainer(
        tiny.model() if model is None else model,
        SelectiveConfig(output_dir=str(directory), **QUIET | training | config),
        tiny.task_data(),
        tiny.align_data() if align is None else align,
        method=method,
        peft_config=peft_config,
        processing_class=tiny.tokenizer(),
        callbacks=list(callbacks),
    )


def same_weights(a: SelectiveTrainer, b: SelectiveTrainer) -> bool:
    """Bit for bit, under the same names."""
    one, other = dict(a.model.named_parameters()), dict(b.model.named_parameters())
    return one.keys() == other.keys() and all(torch.equal(p, other[name]) for name, p in one.items())
