"""The KL term with large vocabularies over the naive one: time (median of interleaved repeats) and peak memory.

    python bench/kl_vocabulary.py [--repeats 3] [--tokens 800] [--hidden 256]

Forward and backward pass from last hidden states to their gradients, the heads frozen, as with an adapter: ours in
chunks, the naive one with all logits at once, and TRL's kernel (on a CPU its PyTorch form, without Triton). Prints
ratios; the absolute times of a shared machine are noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from selgen.maths.chunks import chunk_tokens
from selgen.maths.divergence import kl_from_logits, total_kl
from selgen.peak import peak_bytes

VOCABULARIES = (32_000, 152_000)
REVERSE = 1.0
"""What TRL calls KL(policy || reference)."""


def losses(vocabulary: int, num_tokens: int, width: int) -> dict[str, Callable[[], Tensor]]:
    """By name: a function from nothing to the gradient of the same hidden states."""
    torch.manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
    hidden = torch.randn(num_tokens, width)
    ref_hidden = hidden + 0.1 * torch.randn(num_tokens, width)
    chunk = chunk_tokens(vocabulary, hidden.device)

    def gradient(loss: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def compute() -> Tensor:
            leaf = hidden.clone().requires_grad_()
            return torch.autograd.grad(loss(leaf), leaf)[0]

        return compute

    def trl(leaf: Tensor) -> Tensor:
        weight = head.weight
        return ChunkedDivergenceFunction.apply(leaf, weight, None, ref_hidden, weight, None, REVERSE)[0].sum()

    return {
        "naive": gradient(lambda leaf: kl_from_logits(head(leaf), head(ref_hidden)).sum()),
        "ours": gradient(lambda leaf: total_kl(leaf, ref_hidden, head, head, chunk)),
        "trl": gradient(trl),
    }


def seconds(compute: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    compute()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=800)
    parser.add_argument("--hidden", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("vocabulary", "", "time / naive", "lowest", "highest", "memory / naive", "MB")
    for vocabulary in VOCABULARIES:
        computed = losses(vocabulary, options.tokens, options.hidden)
        naive = computed["naive"]()
        for name, compute in computed.items():
            found = compute()  # warm-up too
            assert (found - naive).norm() <= 1e-4 * naive.norm(), f"{name} should give the naive gradient"
        memory = {name: peak_bytes(compute) for name, compute in computed.items()}
        times: dict[str, list[float]] = {name: [] for name in computed}
        for _ in range(options.repeats):
            for name, compute in computed.items():
                times[name].append(seconds(compute))
        for name in computed:
            ratios = [s / n for s, n in zip(times[name], times["naive"], strict=True)]
            numbers = (f"{f(ratios):.2f}" for f in (statistics.median, min, max))
            share = f"{memory[name] / memory['naive']:.3f}"
            table.add_row(str(vocabulary), name, *numbers, share, f"{memory[name] / 1e6:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
