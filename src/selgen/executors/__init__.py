"""Where the runs of a sweep are carried out: local processes, Ray, Slurm, behind one small protocol (`schedule`)."""

from __future__ import annotations

from pathlib import Path

from selgen.blocks import ExecutorSpec
from selgen.executors.local import Local, default_workers
from selgen.executors.schedule import Executor


def make(spec: ExecutorSpec, out_dir: Path, workers: int | None) -> Executor:
    """The executor that a sweep names.

    Args:
        out_dir: Where the runs' directories go.
        workers: Most runs at a time; None: with local processes one per core, else as many as the cluster takes.

    Raises:
        ConfigError: its package is not installed, or it cannot be had here.
    """
    return Local(out_dir, workers or default_workers())
