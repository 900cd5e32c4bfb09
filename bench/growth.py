"""How time and memory of a step grow with vocabulary, length, alignment rows and adapter, one at a time.

    python bench/growth.py [--shape small] [--repeats 2] [--steps 3] [--layers 2]

Each number is over the same method at the first row's sizes; medians of interleaved repeats. Alignment rows are per
step, beside the task rows; the rest of the sizes stands in the title.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import measuring
import torch
from rich.console import Console
from rich.table import Table
from step_time import UNCACHED

METHODS = ("task_only", "kl", "kl" + UNCACHED, "representation", "dpo")
BASE = {"vocabulary": 32_000, "length": 64, "alignment rows": 8, "rank": 8}
GROWN = {"vocabulary": (8_000, 152_000), "length": (128, 256), "alignment rows": (2, 4), "rank": (64,)}
BATCH = 8


def trainer(shape: str, layers: int, sizes: dict[str, int], name: str, steps: int) -> Any:
    task = measuring.rows(BATCH * 8, sizes["length"])
    # In proportion to the task rows, so that every step has its share.
    align = measuring.rows(sizes["alignment rows"] * 8, sizes["length"], "no")
    return measuring.selective(
        name.removesuffix(UNCACHED),
        measuring.model(shape, vocab_size=sizes["vocabulary"], num_hidden_layers=layers),
        task,
        align,
        steps,
        BATCH,
        pairing="proportional",
        rank=sizes["rank"],
        reference_cache=not name.endswith(UNCACHED),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=measuring.SHAPES, default="small")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    title = f"{options.shape}, {options.layers} layers, {BATCH} task rows, {measuring.machine()}; " + ", ".join(
        f"{name} {size}" for name, size in BASE.items()
    )
    table = Table("", "", *METHODS, title=title)
    grown = [BASE] + [BASE | {name: size} for name, sizes in GROWN.items() for size in sizes]
    made: dict[tuple[int, str], Any] = {
        (i, name): partial(trainer, options.shape, options.layers, sizes, name)
        for i, sizes in enumerate(grown)
        for name in METHODS
    }
    costs = measuring.interleaved({str(key): make for key, make in made.items()}, options.repeats, options.steps)
    memory = {key: measuring.memory(make(2)) for key, make in made.items()}
    for i, sizes in enumerate(grown):
        changed = " ".join(f"{name} {size}" for name, size in sizes.items() if size != BASE[name]) or "as above"
        times = [measuring.ratio(costs[str((i, name))], costs[str((0, name))])[0] for name in METHODS]
        table.add_row(changed, "time", *(f"{t:.2f}" for t in times))
        table.add_row("", "memory", *(f"{memory[i, name] / memory[0, name]:.2f}" for name in METHODS), end_section=True)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
