"""Seconds and memory of a training step predicted from parameters, tokens and method, and checked on other sizes.

    python bench/cost_model.py [--repeats 2] [--steps 3]

With an adapter, one step takes `flops` / rate seconds and `slope` x tokens x layers x hidden + `logits` bytes above the
loaded model. The rate, the slope and each method's `logits` are fitted on two sizes; the table prints measured over
predicted for these and for sizes that nothing was fitted on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import measuring
import torch
from rich.console import Console
from rich.table import Table
from step_time import UNCACHED

METHODS = ("task_only", "mixed", "kl", "kl" + UNCACHED, "projection", "dpo")
BATCH, RANK = 8, 8
SMALL = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 768, "length": 64}
SIZES: dict[str, dict[str, int]] = {
    "small": SMALL,
    "12 layers": SMALL | {"num_hidden_layers": 12},
    "hidden 512": SMALL | {"hidden_size": 512, "intermediate_size": 1536},
    "192 tokens a row": SMALL | {"length": 192},
    "8 layers, hidden 512": SMALL | {"num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 1536},
}
FITTED = ("small", "12 layers")


@dataclass(frozen=True)
class Weights:
    """Parameters of a model: `body` those that every token meets, `head` those that answers alone meet."""

    body: int
    head: int

    @classmethod
    def of(cls, model: Any) -> Weights:
        embedding, head = model.model.embed_tokens.weight.numel(), model.lm_head.weight.numel()
        return cls(sum(p.numel() for p in model.model.parameters()) - embedding, head)


def flops(weights: Weights, trained: float, answers: float, read: float = 0, compared: float = 0) -> float:
    """Of steps with an adapter: per weight and token 2 forward and 2 back to its input. The adapter's are left out.

    Args:
        trained: Tokens of all rows that are trained on.
        answers: Those among them that are predicted.
        read: Tokens that only the reference reads (where it is not cached).
        compared: Tokens at which the reference's head is computed (`kl`).
    """
    return (
        4 * weights.body * trained + 4 * weights.head * answers + 2 * weights.body * read + 2 * weights.head * compared
    )


def trained_tokens(method: str, length: int) -> int:
    """Tokens per step; alignment rows are as many as task rows, and `dpo` reads half of them, twice."""
    return BATCH * length * (1 if method == "task_only" else 2)


def step_flops(method: str, weights: Weights, length: int) -> float:
    """Of the rows here, of which half are answers."""
    trained, align = trained_tokens(method, length), BATCH * length
    read = align if method.endswith(UNCACHED) else 0
    return flops(weights, trained, trained / 2, read, align / 2 if method.startswith("kl") else 0)


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


def units(method: str, sizes: dict[str, int]) -> int:
    """What activations grow with: tokens, layers and hidden units."""
    return trained_tokens(method, sizes["length"]) * sizes["num_hidden_layers"] * sizes["hidden_size"]


def spread(ratios: Iterable[float]) -> str:
    found = sorted(ratios)
    return f"{found[0]:.2f} to {found[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = {(size, name): partial(trainer, sizes, name) for size, sizes in SIZES.items() for name in METHODS}
    costs = measuring.interleaved({" ".join(k): v for k, v in made.items()}, options.repeats, options.steps)
    seconds = {key: statistics.median(c.step for c in costs[" ".join(key)]) for key in made}
    memory = {key: measuring.memory(make(2)) for key, make in made.items()}
    weights = {size: Weights.of(model(sizes)) for size, sizes in SIZES.items()}
    work = {(s, m): step_flops(m, weights[s], SIZES[s]["length"]) for s, m in made}
    grown = {(s, m): units(m, SIZES[s]) for s, m in made}
    one, other = FITTED
    rate = statistics.median(work[s, m] / seconds[s, m] for s in FITTED for m in METHODS)
    slope = statistics.median((memory[other, m] - memory[one, m]) / (grown[other, m] - grown[one, m]) for m in METHODS)
    logits = {m: memory[one, m] - slope * grown[one, m] for m in METHODS}
    console = Console(width=140)
    console.print(f"rate {rate / 1e9:.1f} GFLOP/s, slope {slope:.0f} bytes per token, layer and hidden unit")
    console.print("logits, MB: " + ", ".join(f"{m} {logits[m] / 1e6:.0f}" for m in METHODS))
    table = Table("", "measured / predicted", *METHODS, title=f"cost model, {measuring.machine()}")
    unseen: dict[str, list[float]] = {"time": [], "memory": []}
    for size in SIZES:
        found = {
            "time": [seconds[size, m] * rate / work[size, m] for m in METHODS],
            "memory": [memory[size, m] / (slope * grown[size, m] + logits[m]) for m in METHODS],
        }
        for what, ratios in found.items():
            name = f"{size}{' (fitted)' if size in FITTED else ''}" if what == "time" else ""
            table.add_row(name, what, *(f"{r:.2f}" for r in ratios), end_section=what == "memory")
            unseen[what] += [] if size in FITTED else ratios
    console.print(table)
    for what, ratios in unseen.items():
        console.print(f"{what} of the sizes that were not fitted: {spread(ratios)} of the prediction")


if __name__ == "__main__":
    main()
