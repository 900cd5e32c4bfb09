"""A setting, a scorer and methods of "another package", small enough that a whole sweep trains in seconds.

They are found by entry points, as any other package's would be, so that worker processes find them too.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packages import write_metadata
from selgen.core import Batch, Eval, Example, Method, Reference, Score, Scorer, Setting, Split, Stream, Term, ask
from selgen.lm import cross_entropy

ENTRY_POINTS = """
[selgen.settings]
fake = fakes:FakeSetting
[selgen.scorers]
fake_length = fakes:LengthScorer
[selgen.methods]
fake_nan = fakes:NotANumber
fake_crash = fakes:Crash
fake_greedy = fakes:Greedy
fake_full_disk = fakes:FullDisk
fake_hold = fakes:Hold
"""


def install(directory: Path) -> Path:
    """Make this file an installed package; `directory` must be on the path."""
    return write_metadata(directory, "fakes", ENTRY_POINTS)


class LengthScorer(Scorer):
    """1 for a response of even length: changes whenever the model does."""

    def score_many(self, pairs: Any) -> list[Score]:
        return [Score(float(len(response) % 2 == 0), answer=str(len(response))) for _, response in pairs]


@dataclass
class FakeSetting(Setting):
    """Sums and capitals in the words of `selgen.tiny`.

    Args:
        num_task: Task rows, >= 1.
        num_align: Alignment rows.
    """

    num_task: int = 12
    num_align: int = 2
    proxy: str = "capitals"

    title = "A fake setting"
    axis_labels = {"alignment": "alignment", "score_y": "task"}
    bar_chart = None

    def __post_init__(self) -> None:
        if self.num_task < 1:
            raise ValueError(f"setting.num_task should be >= 1, found {self.num_task}. Ask for some task rows.")

    def train(self, seed: int) -> dict[Stream, list[Example]]:
        task = [
            (f"what is {i % 9 + 1} of {(i + seed) % 7 + 1} ?", f"it is {i % 5 + 1} .") for i in range(self.num_task)
        ]
        align = [("the capital of France is Rome ?", f"no , it is Paris . {i % 9 + 1}") for i in range(self.num_align)]
        return {"task": [ask(*row) for row in task], "align": [ask(*row) for row in align]}

    def evals(self, seed: int, split: Split) -> list[Eval]:
        def rows(word: str) -> list[Example]:
            shift = 3 if split == "val" else 5
            return [ask(f"what is the {word} {(i + shift) % 9 + 1} ?", f"it is {i % 9 + 1} .") for i in range(4)]

        return [
            Eval("knows", "task", "gcd", rows("gcd"), scorer="fake_length"),
            Eval("non_sycophancy", "alignment", "gcd", rows("right"), scorer="fake_length"),
            Eval("non_sycophancy", "alignment", "capitals", rows("capital"), scorer="fake_length"),
        ]

    def checks(self, records: Any, samples: Any) -> list[Any]:
        return []

    @property
    def proxy_domains(self) -> frozenset[str]:
        return frozenset({self.proxy})


@dataclass
class NotANumber(Method):
    """Task-only training whose loss becomes NaN.

    Args:
        at_step: Forward pass from which on it is NaN.
    """

    at_step: int = 2
    streams = ("task",)

    def __post_init__(self) -> None:
        self._calls = 0

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        term = cross_entropy(model, batch["task"])
        self._calls += 1
        factor = float("nan") if self._calls > self.at_step else 1.0
        return {"task": term, "broken": Term(term.total * factor, term.unit)}


@dataclass
class Greedy(Method):
    """Task-only training that asks for more memory than any machine has."""

    streams = ("task",)

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        import torch

        torch.empty(2**60, dtype=torch.uint8)
        return {"task": cross_entropy(model, batch["task"])}


@dataclass
class Crash(Method):
    """Task-only training whose process dies the first time, as one does that the machine kills.

    Args:
        mark: File that remembers the first time.
    """

    mark: str = ""
    streams = ("task",)

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        if not Path(self.mark).exists():
            Path(self.mark).touch()
            os._exit(7)
        return {"task": cross_entropy(model, batch["task"])}


@dataclass
class FullDisk(Method):
    """Task-only training in whose process the disk is full for files of one name.

    Args:
        mark: File that holds the name; it is removed, so that this happens once.
    """

    mark: str = ""
    streams = ("task",)

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        if Path(self.mark).exists():
            fill_disk(Path(self.mark).read_text())
            Path(self.mark).unlink()
        return {"task": cross_entropy(model, batch["task"])}


def fill_disk(name: str) -> None:
    """Let files with `name` in their names be cut short and fail when they are flushed, in this process."""
    fsync = os.fsync

    def no_space(handle: int) -> None:
        if name in Path(f"/proc/self/fd/{handle}").readlink().name:
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    os.fsync = no_space


@dataclass
class Hold(Method):
    """Task-only training that stands still in its third step, once, on any machine of a Ray cluster but one.

    Args:
        mark: Directory whose file `spared` names that machine; `held` is written with the name of the other.
    """

    mark: str = ""
    streams = ("task",)

    def __post_init__(self) -> None:
        self._calls = 0

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        self._calls += 1
        held, ray = Path(self.mark) / "held", sys.modules.get("ray")
        if self._calls == 3 and ray is not None and ray.is_initialized() and not held.exists():
            here = ray.get_runtime_context().get_node_id()
            if here != (Path(self.mark) / "spared").read_text():
                held.write_text(here)
                time.sleep(600)
        return {"task": cross_entropy(model, batch["task"])}
