"""Slurm, through submitit: runs that are ready are handed over as job arrays."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from selgen.blocks import ExecutorSpec
from selgen.config import ConfigError
from selgen.executors import remote
from selgen.executors.schedule import CannotGoOn, Done, Event, Executor, Lost, Progress

if TYPE_CHECKING:
    from selgen.plan import Job

CLUSTER = "slurm"
"""The kind of cluster, as submitit calls it."""
JOBS = "slurm"
"""Directory, in the sweep's, of what jobs were handed and what they printed."""
LARGEST_ARRAY = 1000
"""Slurm's own limit, unless it is configured otherwise."""
_POLL_SECONDS = 1.0
_TAKEN_AWAY = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REQUEUED", "REVOKED")


class Slurm(Executor):
    """A Slurm cluster whose machines share the sweep's directory and this Python environment.

    Args:
        spec: What each run gets.
        out_dir: Where the runs' directories go.
        workers: Most runs of one array at a time; None leaves it to Slurm.

    Raises:
        ConfigError: submitit is not installed, or there is no Slurm here.
    """

    advice = "What they printed lies in OUT/slurm. If memory ran out, give each more of it, e.g. executor.memory_gb=16."

    def __init__(self, spec: ExecutorSpec, out_dir: Path, workers: int | None) -> None:
        try:
            submitit: Any = import_module("submitit")
        except ImportError as error:
            raise ConfigError(
                [
                    f"executor.name slurm needs the package submitit, found: {error}. Install it: "
                    "pip install -c constraints.txt '.[slurm]'."
                ]
            ) from error
        if CLUSTER == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                [
                    "executor.name slurm needs Slurm's sbatch, which is not on the PATH of this machine. Start the "
                    "sweep on a login node, or choose --executor local or ray."
                ]
            )
        self._out_dir, self._spec = out_dir.resolve(), spec
        self._submitit = submitit
        given: dict[str, Any] = {
            "name": "selgen",
            "cpus_per_task": spec.num_cpus,
            "timeout_min": spec.minutes,
            "gpus_per_node": None if spec.num_gpus is None else int(spec.num_gpus),
            "mem_gb": spec.memory_gb,
            "slurm_array_parallelism": workers,
            "slurm_additional_parameters": {k.replace("-", "_"): v for k, v in spec.options.items()} or None,
        }
        self._given = {name: value for name, value in given.items() if value is not None}
        self._out: dict[str, tuple[Job, Any]] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._executor = self._submitit.AutoExecutor(folder=self._out_dir / JOBS / "%j", cluster=CLUSTER)
        self._executor.update_parameters(**self._given)
        self._probe = self._open.enter_context(remote.probe(self._out_dir))
        return self

    def __exit__(self, *error: Any) -> None:
        for _, handle in self._out.values():
            handle.cancel(check=False)
        self._open.close()

    @property
    def free(self) -> float:
        return float("inf")

    def submit(self, jobs: Sequence[Job]) -> None:
        for start in range(0, len(jobs), LARGEST_ARRAY):
            part = jobs[start : start + LARGEST_ARRAY]
            errands = [
                remote.Errand(job, self._out_dir, self._probe, must_share=True, threads=self._spec.num_cpus).packed()
                for job in part
            ]
            handles = self._executor.map_array(remote.entry(), errands)
            self._out |= {job.run_id: (job, handle) for job, handle in zip(part, handles, strict=True)}

    def events(self) -> Iterator[Event]:
        failures = self._submitit.core.utils
        ended = [(job, handle) for job, handle in self._out.values() if handle.done()]
        if not ended:
            time.sleep(_POLL_SECONDS)
        for job, handle in ended:
            del self._out[job.run_id]
            try:
                reply: remote.Reply = handle.result()
            except (failures.UncompletedJobError, failures.FailedJobError) as error:
                state = handle.state
                yield Lost(job, f"{state}: {_last_line(str(error))}", machine=state.startswith(_TAKEN_AWAY))
                continue
            if "refused" in reply:
                raise CannotGoOn(reply["refused"])
            remote.wait_for(self._out_dir / job.run_id)
            yield Progress(job.work)
            yield Done(job)


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no message"])[-1]
