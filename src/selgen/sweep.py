"""Carry out a sweep: expand, skip what is finished, dispatch the rest. Killed at any moment, the same call resumes.

<out>/sweep.yaml      the sweep, so that a resume needs no retyping
      <run_id>/       one directory per run (`record`)
      worker-<i>.log  what libraries printed in local worker processes
      slurm/          the same of Slurm's jobs, and what was handed to them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import yaml

from selgen import executors, record, starting, storage
from selgen.blocks import ExecutorSpec
from selgen.config import ConfigError
from selgen.core import REFERENCE
from selgen.executors import schedule
from selgen.grid import SweepSpec
from selgen.plan import Job
from selgen.record import RunRecord

SWEEP = "sweep.yaml"


class Watcher(Protocol):
    """Is told how a sweep goes on."""

    def building(self, done: int, total: int) -> None:
        """The miniature is being trained: so many steps of all are done."""
        ...

    def begin(self, jobs: Sequence[Job], finished: Sequence[Job]) -> None:
        """All runs, and those among them that were finished before."""
        ...

    def progress(self, units: int) -> None:
        """So many units of work (`Job.work`) were just done."""
        ...

    def finished(self, job: Job) -> None:
        """A run has its record."""
        ...


def refuse_another(spec: SweepSpec, out_dir: Path) -> None:
    """Make sure that an output directory is new, or this sweep's.

    Raises:
        ConfigError: another sweep, or something else, is in it.
    """
    path = out_dir / SWEEP
    ours = as_data(spec)
    if not path.is_file():
        if out_dir.is_dir() and any(out_dir.glob(f"*/{record.RECORD}")):
            raise ConfigError([f"{out_dir} holds runs of no sweep. Choose another --out."])
        return
    theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    with suppress(ConfigError):  # then it is compared as it stands
        theirs = as_data(SweepSpec.parse(theirs))  # an earlier version's lacks keys that have defaults
    for data in (theirs, ours):
        data.pop("executor", None)  # where runs are carried out may change
    if theirs != ours:
        differences = "; ".join(_differences(theirs, ours))
        raise ConfigError(
            [f"{out_dir} holds another sweep ({differences}). Choose another --out, or go on with {path} as config."]
        )


def as_data(spec: SweepSpec) -> dict[str, Any]:
    """A sweep as it is written to `sweep.yaml`; `SweepSpec.parse` reads it back."""
    data = spec.model_dump(mode="json", exclude={"training": {"seed"}})
    if tuple(spec.reference) == REFERENCE:  # left out, so that sweeps begun before there was the field can go on
        del data["reference"]
    if spec.executor == ExecutorSpec():  # likewise
        del data["executor"]
    return data


def _differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        keys = [*theirs, *(key for key in ours if key not in theirs)]
        inner = (_differences(theirs.get(k), ours.get(k), f"{path}.{k}" if path else str(k)) for k in keys)
        return [difference for part in inner for difference in part]
    return [] if theirs == ours else [f"{path}: there {theirs!r}, here {ours!r}"]


def sweep(
    spec: SweepSpec,
    out_dir: Path,
    *,
    num_workers: int | None = None,
    retry: int = 0,
    watcher: Watcher | None = None,
) -> list[RunRecord]:
    """Carry out every run of a sweep that has no record yet.

    Args:
        spec: The sweep.
        out_dir: Its directory, new or its own.
        num_workers: Runs at a time; None: with local processes one per core, else as many as the cluster takes.
        retry: How often a run is tried again whose worker died or that failed for a reason other than its numbers.
        watcher: Is told how it goes.

    Returns:
        The records of all runs, failed ones included.

    Raises:
        ConfigError: the directory is another sweep's, or holds runs of another starting model or data version.
        Busy: another process is at it.
        WorkerDied: some run has no record because its worker died.
        CannotGoOn: a machine, a path or a disk cannot be used until the user has mended it.
        StorageError: the same of the directory, seen from here.
    """
    watcher = watcher or _Silent()
    executor = executors.make(spec.executor, out_dir, num_workers)
    with storage.watched(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    with storage.watched(out_dir), record.locked(out_dir):
        refuse_another(spec, out_dir)
        runs = spec.expand()
        if spec.executor.name == "local":
            starting.check_machine(spec)
        jobs = starting.jobs(runs, watcher.building)
        # Written when nothing can be refused any more, so that a corrected config finds no trace of the wrong one.
        if not (out_dir / SWEEP).is_file():
            record.write_atomic(out_dir / SWEEP, yaml.safe_dump(as_data(spec), sort_keys=False))
        _refuse_strangers(jobs, out_dir)
        if retry:
            _forget_failures(jobs, out_dir)
        done = [job for job in jobs if record.is_finished(out_dir / job.run_id)]
        watcher.begin(jobs, done)
        schedule.run_all(
            [job for job in jobs if not record.is_finished(out_dir / job.run_id)],
            out_dir,
            executor,
            retry=retry,
            progress=watcher.progress,
            finished=watcher.finished,
        )
    return [record.read(out_dir / job.run_id) for job in jobs]


def _refuse_strangers(jobs: Sequence[Job], out_dir: Path) -> None:
    """The same config can mean other runs: the starting weights or the setting's data may have changed since."""
    expected = {job.run_id for job in jobs}
    found = sorted(path.parent.name for path in out_dir.glob(f"*/{record.RECORD}"))
    strangers = [name for name in found if name not in expected]
    if strangers:
        raise ConfigError(
            [
                f"{out_dir} holds {len(strangers)} runs of the same config with other starting weights or data "
                f"({', '.join(strangers[:3])}{', ...' if len(strangers) > 3 else ''}). Choose another --out: "
                "one report must not mix them."
            ]
        )


def _forget_failures(jobs: Sequence[Job], out_dir: Path) -> None:
    for job in jobs:
        run_dir = out_dir / job.run_id
        if record.is_finished(run_dir):
            failure = record.read(run_dir).error
            if failure and failure.type != schedule.DETERMINISTIC:
                (run_dir / record.RECORD).unlink()


class _Silent:
    def building(self, done: int, total: int) -> None: ...

    def begin(self, jobs: Sequence[Job], finished: Sequence[Job]) -> None: ...

    def progress(self, units: int) -> None: ...

    def finished(self, job: Job) -> None: ...
