"""Seconds and memory of a training step predicted from parameters, tokens and method, and checked on other sizes.

    python bench/cost_model.py [--repeats 3] [--steps 4]

Two numbers are fitted on the first size: FLOPs per second, and bytes of activations per token, layer and hidden unit.
The other sizes are then predicted, and the table prints measured over predicted. `docs/scale.md` states the formulas.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import measuring
import torch
from rich.console import Console
from rich.table import Table
from step_time import UNCACHED

METHODS = ("task_only", "mixed", "kl", "kl" + UNCACHED, "projection", "dpo")
BATCH, RANK = 8, 8
SIZES: dict[str, dict[str, int]] = {
    "first": {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 768, "length": 64},
    "deeper": {"num_hidden_layers": 12, "hidden_size": 256, "intermediate_size": 768, "length": 64},
    "wider": {"num_hidden_layers": 4, "hidden_size": 512, "intermediate_size": 1536, "length": 64},
    "longer": {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 768, "length": 192},
}


def streams(method: str, task: float, align: float) -> tuple[float, float]:
    """Tokens that a method trains on and tokens that only the reference reads, per step, of so many in each stream."""
    trained = {"task_only": task, "dpo": task + 2 * align}.get(method.removesuffix(UNCACHED), task + align)
    return trained, align if method.endswith(UNCACHED) else 0.0


def flops(method: str, base: Any, length: int) -> float:
    """Of one optimizer step with an adapter: 2 per weight and token forward, 2 more back to its input.

    Half of the tokens are answers, which alone meet the head. An adapter's own weights take 2 more.
    """
    head = base.lm_head.weight.numel()
    body = sum(p.numel() for p in base.model.parameters()) - base.model.embed_tokens.weight.numel()
    trained, read = streams(method, BATCH * length, BATCH * length)
    answers = trained / 2
    kl_head = 2 * head * BATCH * length / 2 if method.startswith("kl") else 0.0
    return 4 * body * trained + 2 * body * read + 4 * head * answers + kl_head


def units(method: str, base: Any, length: int) -> float:
    """What activations grow with: tokens that are alive at once, layers, hidden units."""
    # Projection goes back through one stream before it reads the other's rows: both are read first.
    return streams(method, BATCH * length, BATCH * length)[0] * base.config.num_hidden_layers * base.config.hidden_size


def model(sizes: dict[str, int]) -> Any:
    heads = sizes["hidden_size"] // 64
    changes = {name: size for name, size in sizes.items() if name != "length"}
    return measuring.model("small", **changes, num_attention_heads=heads, num_key_value_heads=heads // 2)


def trainer(sizes: dict[str, int], name: str, steps: int) -> Any:
    length = sizes["length"]
    task, align = (measuring.rows(BATCH * 8, length, word) for word in ("right", "no"))
    cached = not name.endswith(UNCACHED)
    method = name.removesuffix(UNCACHED)
    return measuring.selective(method, model(sizes), task, align, steps, BATCH, rank=RANK, reference_cache=cached)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = {(size, name): partial(trainer, sizes, name) for size, sizes in SIZES.items() for name in METHODS}
    costs = measuring.interleaved({" ".join(k): v for k, v in made.items()}, options.repeats, options.steps)
    seconds = {key: statistics.median(c.step for c in costs[" ".join(key)]) for key in made}
    memory = {key: measuring.memory(make(2)) for key, make in made.items()}
    models = {size: model(sizes) for size, sizes in SIZES.items()}
    predicted = {(s, m): flops(m, models[s], SIZES[s]["length"]) for s, m in made}
    grown = {(s, m): units(m, models[s], SIZES[s]["length"]) for s, m in made}
    rate = statistics.median(predicted["first", m] / seconds["first", m] for m in METHODS)
    per_unit = statistics.median(memory["first", m] / grown["first", m] for m in METHODS)
    console = Console(width=140)
    console.print(f"fitted on `first`: {rate / 1e9:.1f} GFLOP/s, {per_unit:.0f} bytes per token, layer and hidden unit")
    table = Table("", "measured / predicted", *METHODS, title=f"cost model, {measuring.machine()}")
    for size in SIZES:
        times = (seconds[size, m] * rate / predicted[size, m] for m in METHODS)
        peaks = (memory[size, m] / (per_unit * grown[size, m]) for m in METHODS)
        table.add_row(size, "time", *(f"{t:.2f}" for t in times))
        table.add_row("", "memory", *(f"{p:.2f}" for p in peaks), end_section=True)
    console.print(table)


if __name__ == "__main__":
    main()
