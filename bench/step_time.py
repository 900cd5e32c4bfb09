"""Step time of every method over transformers.Trainer on the same task batches: medians of interleaved repeats.

    python bench/step_time.py [--repeats 5] [--steps 20]

Prints ratios; the absolute times of a shared machine are noise.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments, set_seed

from selgen import registry, tiny
from selgen.core import ask
from selgen.data.chat import encode
from selgen.train import SelectiveConfig, SelectiveTrainer

BATCH = 16
TASK = [ask("what is the gcd of 3 4 ? " * 3, "it is right 5 . " * 5) for _ in range(BATCH * 10)]
ALIGN = [ask("the capital of France is Rome ?", f"no , it is Paris {i % 9 + 1}", "yes , right .") for i in range(40)]
LORA = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
PLAIN = "transformers.Trainer"


def small_model() -> Any:
    return tiny.model(hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, head_dim=24)


def arguments(steps: int, directory: str) -> dict[str, Any]:
    return {
        "output_dir": directory,
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "logging_strategy": "no",
    }


def timed(train: Any, steps: int) -> float:
    """Seconds per step, the model's construction left out."""
    start = time.perf_counter()
    train()
    return (time.perf_counter() - start) / steps


def plain(steps: int, directory: str) -> float:
    tokenizer = tiny.tokenizer()
    rows = [vars(encode(tokenizer, e)) for e in TASK]
    set_seed(0)
    trainer = Trainer(
        model=get_peft_model(small_model(), LORA),
        args=TrainingArguments(**arguments(steps, directory)),
        train_dataset=rows,  # type: ignore[arg-type]  # any sequence will do
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    return timed(trainer.train, steps)


def selective(name: str, steps: int, directory: str) -> float:
    trainer = SelectiveTrainer(
        small_model(),
        SelectiveConfig(**arguments(steps, directory)),
        TASK,
        ALIGN,
        method=registry.load("methods", name)(),
        peft_config=LORA,
        processing_class=tiny.tokenizer(),
    )
    return timed(trainer.train, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = registry.names("methods")
    times: dict[str, list[float]] = {name: [] for name in (PLAIN, *names)}
    with tempfile.TemporaryDirectory() as directory:
        plain(3, directory)  # warm-up
        for _ in range(options.repeats):
            times[PLAIN].append(plain(options.steps, directory))
            for name in names:
                times[name].append(selective(name, options.steps, directory))
    table = Table("", "step time / plain", "lowest", "highest")
    for name, seconds in times.items():
        ratios = [s / p for s, p in zip(seconds, times[PLAIN], strict=True)]
        table.add_row(name, *(f"{f(ratios):.2f}" for f in (statistics.median, min, max)))
    Console().print(table)


if __name__ == "__main__":
    main()
