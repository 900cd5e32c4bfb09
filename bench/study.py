"""What a study of many runs would take on GPUs: the size is planned, the work computed, the speeds are assumed.

    python bench/study.py [--config CONFIG] [--shape qwen3-8b] [--runs 10000] [--gpus 64] ...

The config's sweep is planned as `selgen sweep --dry-run` does it, which counts its rows and answers, and is repeated
(more seeds) until there are `--runs`. Nothing is trained. FLOPs and memory follow formulas that `bench/cost_model.py`
checks on small models. **Every option is an assumption**: set it to what you have measured.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import measuring
import torch
import yaml
from cost_model import Weights, flops
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from selgen import plan, reading
from selgen.core import BASE
from selgen.maths.chunks import GPU_CHUNK_ELEMENTS
from selgen.spec import RunSpec, make_method

CONFIG = files("selgen") / "configs/post/emergent_misalignment.yaml"
HOUR, DAY = 3600, 86400
TIED = ("small", "qwen3-0.6b", "qwen3-4b")
"""Shapes whose head is their embedding (their config.json)."""
LOGITS = 5 * 4 * GPU_CHUNK_ELEMENTS
"""Bytes: about five float32 tensors of a chunk's logits, as `cost_model.py` finds for `kl`."""
SLOPE = 41.5
"""Half of what `cost_model.py` finds in float32."""


def shaped(shape: str) -> Qwen3ForCausalLM:
    """A model of a released size with no numbers in it."""
    sizes = measuring.SHAPES[shape] | measuring.HEADS[shape]
    with torch.device("meta"):
        return Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=shape in TIED))


def adapter_bytes(model: Qwen3ForCausalLM, rank: int) -> int:
    """Of a saved float32 adapter of all linear layers but the head."""
    layers = [part for part in model.model.modules() if isinstance(part, nn.Linear)]
    return 4 * rank * sum(layer.in_features + layer.out_features for layer in layers)


def adapters(run: RunSpec) -> int:
    """Adapters of one rank that a run leaves: one for each time that it is measured, with those that it fitted."""
    if run.method["name"] == BASE:
        return 0
    return len(run.epochs or [None]) * (1 + len(make_method(run.method).fits))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG, help="a sweep's YAML file")
    parser.add_argument("--shape", choices=measuring.SHAPES, default="qwen3-8b")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--row-tokens", type=int, default=400, help="of a row that is trained on")
    parser.add_argument("--answer-tokens", type=int, default=300, help="of a row's or a sampled answer")
    parser.add_argument("--tflops", type=float, default=300, help="sustained in training, on one GPU")
    parser.add_argument("--sampled", type=float, default=5000, help="tokens per second that one GPU generates")
    parser.add_argument("--overhead", type=float, default=120, help="seconds to start a run and load its model")
    parser.add_argument("--rank", type=int, default=32, help="of the adapter")
    parser.add_argument("--micro-batch", type=int, default=2048, help="most tokens that are trained on at once")
    parser.add_argument("--slope", type=float, default=SLOPE, help="bytes per token, layer and hidden unit")
    parser.add_argument("--judge-tokens", type=int, default=500, help="that a judge reads per call")
    parser.add_argument("--judge-price", type=float, default=0.1, help="dollars per million of them")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    with reading.only_counting():
        runs = plan.parse_sweep(yaml.safe_load(Path(options.config).read_text())).expand()
        sizes = [reading.size(run) for run in runs]
        calls = sum(reading.judge_calls(run) for run in runs)
    times = options.runs / len(runs)
    sequences, prompts = times * sum(s.sequences for s in sizes), times * sum(s.prompts for s in sizes)
    model = shaped(options.shape)
    work = flops(Weights.of(model), sequences * options.row_tokens, sequences * options.answer_tokens)
    training = work / (options.tflops * 1e12)
    sampling = prompts * options.answer_tokens / options.sampled
    starting = options.runs * options.overhead
    whole = training + sampling + starting
    bfloat16 = 2 * sum(p.numel() for p in model.parameters())
    activations = options.slope * options.micro_batch * model.config.num_hidden_layers * model.config.hidden_size
    adapter = adapter_bytes(model, options.rank)
    # Of an adapter's weights there are four: themselves, their gradient, and Adam's two averages.
    memory = " + ".join(f"{part / 1e9:.1f}" for part in (bfloat16, 4 * adapter, activations, LOGITS))
    table = Table(
        "", "", title=f"{options.runs} runs like the {len(runs)} of {Path(options.config).name}, {options.shape}"
    )
    for name, value in (
        ("rows trained on", f"{sequences / 1e6:.1f} million"),
        ("answers sampled", f"{prompts / 1e6:.1f} million"),
        ("training, PFLOP", f"{work / 1e15:,.0f}"),
        ("GPU-hours of training", f"{training / HOUR:,.0f}"),
        ("GPU-hours of sampling", f"{sampling / HOUR:,.0f}"),
        ("GPU-hours of starting runs", f"{starting / HOUR:,.0f}"),
        ("minutes of a run, mean", f"{whole / options.runs / 60:.1f}"),
        (f"days on {options.gpus} GPUs", f"{whole / options.gpus / DAY:.1f}"),
        ("GPU memory of a run, GB: weights, adapter with its optimizer, activations, logits", memory),
        ("adapters on disk, TB", f"{times * sum(map(adapters, runs)) * adapter / 1e12:.1f}"),
        ("answers on disk, GB (4 bytes a token)", f"{prompts * options.answer_tokens * 4 / 1e9:,.0f}"),
        ("judge calls", f"{times * calls / 1e6:.1f} million"),
        ("judge, dollars", f"{times * calls * options.judge_tokens / 1e6 * options.judge_price:,.0f}"),
    ):
        table.add_row(name, value)
    console = Console(width=120)
    console.print(table)
    said = (f"{name.replace('_', '-')} {value}" for name, value in vars(options).items() if name != "config")
    console.print("assumed: " + ", ".join(said))


if __name__ == "__main__":
    main()
