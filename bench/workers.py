"""Runs per minute of a sweep against its number of worker processes, each with one thread.

    python bench/workers.py [--workers 1 2] [--rows 100]

Prints ratios over one worker; starting the workers is part of it. More workers than cores bring nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring
import yaml
from rich.console import Console
from rich.table import Table

from selgen import record, tiny

CURVES = [{"method": "task_only"}, {"method": "kl", "vary": {"beta": [0.1, 0.3, 1]}}]


def prepared(directory: Path, num_rows: int) -> Path:
    """A model, data and the config of a sweep of 16 runs, base runs not counted."""
    model = measuring.model("small", num_hidden_layers=2, vocab_size=1000)
    model.save_pretrained(directory / "model")
    tiny.tokenizer().save_pretrained(directory / "model")
    files = {}
    for name, word, number in (("task", "right", num_rows), ("alignment", "no", num_rows // 5)):
        rows = [
            {"prompt": r.prompt[0]["content"], "completion": r.completion} for r in measuring.rows(number, 48, word)
        ]
        files[name] = directory / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "setting": {"name": "files", **{name: str(path) for name, path in files.items()}},
        "model": str(directory / "model"),
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 16, "learning_rate": 1e-3},
        "lora": {"r": 4, "lora_alpha": 8},
        "evaluation": {"max_new_tokens": 8},
        "seeds": [1, 2, 3, 4],
        "curves": CURVES,
    }
    path = directory / "sweep.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def minutes(config: Path, out: Path, workers: int) -> float:
    command = [sys.executable, "-m", "selgen", "sweep", "-c", str(config), "--out", str(out), "--workers", str(workers)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return (time.perf_counter() - started) / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        config = prepared(Path(name), options.rows)
        for workers in options.workers:
            out = Path(name) / f"out-{workers}"
            spent = minutes(config, out, workers)
            rates[workers] = len(record.read_all(out)) / spent
    table = Table("workers", "runs per minute / those of the first row", title=f"{os.cpu_count()} cores")
    first = rates[options.workers[0]]
    for workers, rate in rates.items():
        table.add_row(str(workers), f"{rate / first:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
