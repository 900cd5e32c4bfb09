"""Time to generate with a LoRA adapter beside the weights over the time with it folded in: median of interleaved pairs.

    python bench/generation.py [--repeats 5]

Prints a ratio; the absolute times of a shared machine are noise.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model

from selgen import adapters, tiny
from selgen.generate import Generation, generate

PROMPTS = tiny.task_data(256)
GENERATION = Generation(max_new_tokens=24)


def seconds(model, tokenizer) -> float:
    start = time.perf_counter()
    generate(model, tokenizer, PROMPTS, GENERATION)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = tiny.tokenizer()
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = get_peft_model(
        tiny.model(**sizes, head_dim=24), LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
    )
    seconds(model, tokenizer)  # warm-up
    ratios, limit = [], adapters.MAX_FOLDED_BYTES
    for _ in range(options.repeats):
        adapters.MAX_FOLDED_BYTES = limit
        folded = seconds(model, tokenizer)
        adapters.MAX_FOLDED_BYTES = 0
        ratios.append(seconds(model, tokenizer) / folded)
    print(f"adapter beside / folded in: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
