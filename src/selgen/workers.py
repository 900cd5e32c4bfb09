"""Local worker processes: each imports once, then carries out many runs, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, cast

from selgen import record

if TYPE_CHECKING:
    from selgen.plan import Job

# Spawned, not forked: a fork of a process that has used torch can hang in its thread pools.
_CONTEXT = multiprocessing.get_context("spawn")
DETERMINISTIC = "NonFiniteError"
"""The failure that comes back however often a run is repeated."""
OF_PARENT = "ParentFailed"
"""The failure that comes back until the run that it starts from or acts on is repeated."""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class WorkerDied(RuntimeError):
    """Worker processes were lost and their runs have no record."""


def run_all(
    jobs: Sequence[Job],
    out_dir: Path,
    *,
    workers: int,
    retry: int,
    progress: Callable[[int], None],
    finished: Callable[[Job], None],
) -> None:
    """Carry out every job once, after its first run and its parent; the longest first, so that no long one starts last.

    Args:
        jobs: Runs without a record.
        out_dir: Where their directories go.
        workers: Processes at a time.
        retry: How often a run is tried again whose worker died or that failed for a reason other than its numbers.
        progress: Told the units of work just done.
        finished: Told each job that has its record.

    Raises:
        WorkerDied: after all others were carried out, if some run lost its worker more than `retry` times; runs that
            waited for it are lost with it.
    """
    waiting = sorted(jobs, key=lambda job: -job.work)
    unsettled = {job.run_id for job in jobs}
    tries: Counter[str] = Counter()
    lost: list[str] = []
    pool: list[_Worker] = []

    def again(job: Job) -> bool:
        tries[job.run_id] += 1
        if tries[job.run_id] > retry:
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

    with _single_threaded():
        try:
            while waiting or any(worker.job for worker in pool):
                busy = sum(worker.job is not None for worker in pool)
                while len(pool) < min(workers, busy + len(ready())):
                    pool.append(_start(out_dir, len(pool)))
                idle = (worker for worker in pool if worker.job is None)
                for worker, job in zip(idle, ready(), strict=False):
                    waiting.remove(job)
                    worker.job = job
                    worker.pipe.send(job)
                for worker in _reporting(pool):
                    job = worker.job
                    assert job is not None
                    try:
                        message = worker.pipe.recv()
                    except (EOFError, ConnectionResetError):
                        pool.remove(worker)
                        worker.process.join()
                        if not again(job):
                            give_up(job, f"exit code {worker.process.exitcode}")
                        continue
                    if isinstance(message, int):
                        progress(message)
                        continue
                    worker.job = None
                    failure = record.read(out_dir / job.run_id).error
                    if failure and failure.type not in (DETERMINISTIC, OF_PARENT) and again(job):
                        (out_dir / job.run_id / record.RECORD).unlink()
                    else:
                        unsettled.discard(job.run_id)
                        finished(job)
        finally:
            for worker in pool:
                worker.process.kill() if worker.job else worker.pipe.close()
            for worker in pool:
                worker.process.join()
    if lost:
        raise WorkerDied(
            f"The worker processes of {len(lost)} runs died: {', '.join(lost)}. Exit code -9 usually means that the "
            "machine ran out of memory: use fewer --workers. The same command tries these runs again."
        )


def _reporting(pool: Sequence[_Worker]) -> Iterator[_Worker]:
    """Workers that have something to say; waits for the first."""
    ready = wait([worker.pipe for worker in pool if worker.job])
    return (worker for worker in list(pool) if worker.pipe in ready)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Let processes started inside compute with one thread: torch reads this when it is first imported."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _start(out_dir: Path, number: int) -> _Worker:
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_work, args=(theirs, out_dir, number), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, cast(Connection, ours))


def _work(pipe: Connection, out_dir: Path, number: int) -> None:
    """Carry out jobs as they come, until the pipe closes or the parent is gone."""
    # Ctrl-C reaches the whole process group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = os.open(out_dir / f"worker-{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)

    import torch
    from tqdm import tqdm

    from selgen.run import execute

    torch.set_num_threads(1)
    # Its default lock spans processes, and Python complains about it when this one is killed.
    tqdm.set_lock(threading.RLock())
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        execute(job, out_dir, pipe.send)
        pipe.send(job.run_id)


def _die_with_parent() -> None:
    """However the parent ends, kill -9 included: nobody would read what this process writes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
