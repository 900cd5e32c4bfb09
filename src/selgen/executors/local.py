"""Local worker processes: each imports once, then carries out many runs, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from selgen.executors.schedule import CannotGoOn, Done, Event, Executor, Lost, Progress
from selgen.storage import Unusable

if TYPE_CHECKING:
    from selgen.plan import Job

# Spawned, not forked: a fork of a process that has used torch can hang in its thread pools.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class Local(Executor):
    """Processes of this machine.

    Args:
        out_dir: Where the runs' directories and the workers' logs go.
        workers: Processes at a time.
    """

    advice = "Exit code -9 usually means that the machine ran out of memory: use fewer --workers."

    def __init__(self, out_dir: Path, workers: int) -> None:
        self._out_dir, self._workers = out_dir, workers
        self._pool: list[_Worker] = []
        self._environment = ExitStack()

    def __enter__(self) -> Self:
        self._environment.enter_context(_single_threaded())
        return self

    def __exit__(self, *error: Any) -> None:
        for worker in self._pool:
            worker.process.kill() if worker.job else worker.pipe.close()
        for worker in self._pool:
            worker.process.join()
        self._environment.close()

    @property
    def free(self) -> int:
        return self._workers - sum(worker.job is not None for worker in self._pool)

    def submit(self, jobs: Sequence[Job]) -> None:
        idle = [worker for worker in self._pool if worker.job is None]
        while len(idle) < len(jobs):
            idle.append(_start(self._out_dir, len(self._pool)))
            self._pool.append(idle[-1])
        for worker, job in zip(idle, jobs, strict=False):
            worker.job = job
            worker.pipe.send(job)

    def events(self) -> Iterator[Event]:
        for worker in self._reporting():
            job = worker.job
            assert job is not None
            try:
                message = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._pool.remove(worker)
                worker.process.join()
                yield Lost(job, f"exit code {worker.process.exitcode}")
                continue
            if isinstance(message, int):
                yield Progress(message)
            elif isinstance(message, Unusable):
                raise CannotGoOn(str(message))
            else:
                worker.job = None
                yield Done(job)

    def _reporting(self) -> list[_Worker]:
        """Workers that have something to say; waits for the first."""
        ready = wait([worker.pipe for worker in self._pool if worker.job])
        return [worker for worker in self._pool if worker.pipe in ready]


def default_workers() -> int:
    """One process per core that this process may use; one alone if there is a GPU, which they would share."""
    import torch

    if torch.cuda.is_available():
        return 1
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


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
        try:
            execute(job, out_dir, pipe.send)
            pipe.send(job.run_id)
        except Unusable as error:
            pipe.send(error)


def _die_with_parent() -> None:
    """However the parent ends, kill -9 included: nobody would read what this process writes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
