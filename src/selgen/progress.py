"""One progress bar for a whole sweep, with the time left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from selgen.plan import Job


class Bar:
    """Shows how far a sweep is, in units of work (`Job.work`); a context manager, and a `sweep.Watcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            # The first minutes say little about the rest: runs differ in length.
            speed_estimate_period=300,
        )
        self._task: TaskID | None = None
        self._num_runs = 0
        self._num_finished = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def building(self, done: int, total: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task("miniature", total=total)
        self._progress.update(self._task, completed=done)

    def begin(self, jobs: Sequence[Job], finished: Sequence[Job]) -> None:
        self._num_runs, self._num_finished = len(jobs), len(finished)
        if finished:
            self._console.print(f"{len(finished)} of {len(jobs)} runs are finished already.", markup=False)
        if self._task is not None:
            self._progress.remove_task(self._task)
        done = sum(job.work for job in finished)
        self._task = self._progress.add_task(self._text(), total=sum(job.work for job in jobs), completed=done)

    def progress(self, units: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, units)

    def finished(self, job: Job) -> None:
        self._num_finished += 1
        if self._task is not None:
            self._progress.update(self._task, description=self._text())

    def _text(self) -> str:
        return f"{self._num_finished}/{self._num_runs} runs"
