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
    if spec.name == "ray":
        from selgen.executors.ray import Ray

        return Ray(spec, out_dir, workers)
    if spec.name == "slurm":
        from selgen.executors.slurm import Slurm

        return Slurm(spec, out_dir, workers)
    return Local(out_dir, workers or default_workers())
