"""Which run is next, which is tried again and which is given up: the same wherever runs are carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from selgen import record

if TYPE_CHECKING:
    from selgen.plan import Job

DETERMINISTIC = "NonFiniteError"
"""The failure that comes back however often a run is repeated."""
OF_PARENT = "ParentFailed"
"""The failure that comes back until the run that it starts from or acts on is repeated."""
MACHINE_LOSSES = 3
"""Times that a run is tried again whose machine was lost, whatever `retry`: more often, it may be the run's fault."""


@dataclass(frozen=True)
class Progress:
    """Units of work (`Job.work`) were just done."""

    units: int


@dataclass(frozen=True)
class Done:
    """A run has its record in the sweep's directory."""

    job: Job


@dataclass(frozen=True)
class Lost:
    """A run has no record.

    Attributes:
        reason: What ended it, a few words.
        machine: Whether the whole machine was lost or taken away, which says nothing about the run.
    """

    job: Job
    reason: str
    machine: bool = False


Event = Progress | Done | Lost


class Executor(AbstractContextManager["Executor"], Protocol):
    """Carries out runs somewhere; leaving the context ends those that still run.

    Attributes:
        advice: What a user can do about runs that were lost, one sentence.
        free: How many more runs it takes now, without a look at how many there are.
    """

    advice: str

    @property
    def free(self) -> float: ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take runs, at most `free`: everything that they need is finished."""
        ...

    def events(self) -> Iterable[Event]:
        """Wait until something happened to the runs taken, and say what.

        Raises:
            CannotGoOn: some machine or path cannot be used, for this run and others.
        """
        ...


class WorkerDied(RuntimeError):
    """Workers were lost and their runs have no record."""


class CannotGoOn(RuntimeError):
    """Runs cannot be carried out until the user has mended something; the message says what."""


def run_all(
    jobs: Sequence[Job],
    out_dir: Path,
    executor: Executor,
    *,
    retry: int,
    progress: Callable[[int], None],
    finished: Callable[[Job], None],
) -> None:
    """Carry out every job once, after its first run and its parent; the longest first, so that no long one starts last.

    Args:
        jobs: Runs without a record.
        out_dir: Where their directories go.
        executor: Carries them out; is entered and left here.
        retry: How often a run is tried again whose worker died or that failed for a reason other than its numbers.
        progress: Told the units of work just done.
        finished: Told each job that has its record.

    Raises:
        WorkerDied: after all others were carried out, if some run lost its worker more than `retry` times; runs that
            waited for it are lost with it.
        CannotGoOn: at once; what is finished is kept.
    """
    waiting = sorted(jobs, key=lambda job: -job.work)
    unsettled = {job.run_id for job in jobs}
    out: set[str] = set()
    tries: Counter[str] = Counter()
    machines: Counter[str] = Counter()
    lost: list[str] = []

    def again(job: Job, counter: Counter[str], most: int) -> bool:
        counter[job.run_id] += 1
        if counter[job.run_id] > most:
            return False
        waiting.append(job)
        return True

    def ready() -> list[Job]:
        return [job for job in waiting if unsettled.isdisjoint((job.first, job.parent))]

    def give_up(job: Job, reason: str) -> None:
        lost.append(f"{job.run_id} ({reason})")
        unsettled.discard(job.run_id)
        for child in [other for other in waiting if job.run_id in (other.first, other.parent)]:
            if child in waiting:  # not lost already with another one that it waited for
                waiting.remove(child)
                give_up(child, f"waited for {job.run_id}")

    def settle(job: Job) -> None:
        failure = record.read(out_dir / job.run_id).error
        if failure and failure.type not in (DETERMINISTIC, OF_PARENT) and again(job, tries, retry):
            (out_dir / job.run_id / record.RECORD).unlink()
        else:
            unsettled.discard(job.run_id)
            finished(job)

    with executor:
        while waiting or out:
            given = [job for job, _ in zip(ready(), range(_at_most(executor.free, len(waiting))), strict=False)]
            for job in given:
                waiting.remove(job)
                out.add(job.run_id)
            if given:
                executor.submit(given)
            for event in executor.events():
                if isinstance(event, Progress):
                    progress(event.units)
                    continue
                out.discard(event.job.run_id)
                if isinstance(event, Done):
                    settle(event.job)
                elif not (
                    again(event.job, machines, MACHINE_LOSSES) if event.machine else again(event.job, tries, retry)
                ):
                    give_up(event.job, event.reason)
    if lost:
        raise WorkerDied(
            f"The worker processes of {len(lost)} runs died: {', '.join(lost)}. {executor.advice} "
            "The same command tries these runs again."
        )


def _at_most(free: float, waiting: int) -> int:
    return int(min(free, waiting))
