"""The run directory: what a finished run leaves behind, written atomically and read back as typed records.

<out>/<run_id>/spec.yaml             resolved, written first
               metrics.jsonl         one line per logged step
               samples.<split>.jsonl one line per prompt and evaluated step
               points.jsonl          points measured so far; only while the run is unfinished
               adapter/              save_pretrained layout with a model card
               epochs/<n>/           the same, of each epoch before the last at which a run with an adapter was measured
               record.json           written last: its presence means that the run is finished
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selgen.core import Split

RECORD = "record.json"
ADAPTER = "adapter"
EPOCH_ADAPTERS = "epochs"
CHOICE = "choice.json"
"""In a copy of a run's adapter: which run it is of, and by which rule it was chosen."""
SPEC = "spec.yaml"
METRICS = "metrics.jsonl"
POINTS = "points.jsonl"


def adapter_dir(run_dir: Path, epoch: int | None = None) -> Path:
    """Where a run leaves its adapter: the one at the end, or as it was after an earlier epoch."""
    return run_dir / ADAPTER if epoch is None else run_dir / EPOCH_ADAPTERS / str(epoch)


class RecordError(ValueError):
    """A file of a run directory is missing, unfinished or not what this version of selgen writes."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Measured(_Model):
    """A mean with its evidence: `core.Metric` as it is stored, or an axis value, the mean of several.

    Attributes:
        value: In [0, 1], higher is better; None when it could not be measured.
        n: Number of items behind it.
        unscored: Items that the scorer could not read.
        stderr: Standard error of `value`; None when `value` is None.
        raw: Means of the scores' raw numbers, each in its own unit (`nll_nats`: nats per token).
    """

    value: float | None
    n: int
    unscored: int
    stderr: float | None
    raw: dict[str, float] = Field(default_factory=dict)


class Point(_Model):
    """One evaluation of one checkpoint on one split.

    Attributes:
        step: Optimizer steps taken; 0 for the untouched starting model; None if others measured it and do not say.
        epoch: Passes over the task set at that step; None as above.
        strength: Where on its curve the point lies; None if the curve has no strength.
        eval_seconds: Wall-clock seconds of the evaluation; None as above.
        axes: `task`, `capability`, `alignment`, `proxy`; n is 0 where the setting has nothing on an axis.
        score_y: Mean of those of task and capability that the setting has; None if one of them is None.
        metrics: By column, `<eval>.<domain>`.
    """

    step: int | None
    epoch: float | None
    split: Split
    strength: float | None
    eval_seconds: float | None
    axes: dict[str, Measured]
    score_y: float | None
    metrics: dict[str, Measured]

    @property
    def order(self) -> int:
        """Where it stands among the points of its run: its step, an unknown one before all others."""
        return -1 if self.step is None else self.step


class Failure(_Model):
    """Why a run failed.

    Attributes:
        type: Name of the exception's class.
        message: What happened and what to do.
        step: Optimizer step at which it happened, if known.
        term: Loss term that was not finite, if that is what happened.
    """

    type: str
    message: str
    step: int | None = None
    term: str | None = None


class RunRecord(_Model):
    """Everything that a report needs to know about one run, except its samples.

    Attributes:
        run_id: First 12 hex digits of the sha256 of what determines the run (`spec.run_id`).
        method: File name of the method; `base` is the untouched starting model.
        curve: The line that the points belong to.
        strength_name: The method's field that the curve varies, `epochs` for checkpoints of one run, or None.
        strength: Value of that field; None for `epochs` (each point has its own) and where nothing varies.
        parent: Run that a post-hoc method started from, or None.
        first: Run whose adapter it started from, or None; a post-hoc run's parent started from it too.
        num_task: Rows of the task set; None if others ran it and do not say.
        num_alignment: Rows of the alignment set; None as above.
        sequences: Rows seen in training, each counted as often as it was seen; None for a failed run, and as above.
        train_seconds: Wall-clock seconds of training without evaluation; None for a failed run, and as above.
        update_norm: L2 norm of the change of the effective weights; None for a failed run, and as above.
        budget: Declared difference of this curve from the common budget, or None.
        flags: Remarks that must accompany the numbers.
        spec: The resolved run spec.
        provenance: Versions, commit, device, start time.
        points: In the order of measurement.
        control: Whether the method knows nothing of what should stay (`core.Method.control`).
        distances: Of the starting model: domain -> semantic distance of its prompts from the alignment data's, in
            [0, 2] (`measure.semantic_distances`); empty for all other runs, and where no prompts can be compared.
    """

    run_id: str
    status: Literal["success", "failed"]
    error: Failure | None = None
    setting: str
    proxy: str | None
    model: str
    method: str
    curve: str
    strength_name: str | None
    strength: float | None
    seed: int
    parent: str | None = None
    first: str | None = None
    num_task: int | None
    num_alignment: int | None
    sequences: int | None
    train_seconds: float | None
    update_norm: float | None
    budget: str | None
    flags: list[str] = Field(default_factory=list)
    spec: dict[str, Any]
    provenance: dict[str, Any]
    points: list[Point]
    control: bool = False
    distances: dict[str, float] = Field(default_factory=dict)


class Busy(RuntimeError):
    """Another process is writing this directory."""


@contextmanager
def locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the only right to write a directory; the operating system releases it however the process ends.

    Args:
        wait: Wait for another holder instead of raising.

    Raises:
        Busy: another process holds it.
    """
    try:
        handle = _lock(directory, os.O_RDONLY, wait)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        # NFS locks only what is open for writing, which a directory cannot be. Beside it, since a run's is emptied.
        handle = _lock(directory.with_name(f".{directory.name}.lock"), os.O_RDWR | os.O_CREAT, wait)
    try:
        yield
    finally:
        os.close(handle)


def _lock(path: Path, flags: int, wait: bool) -> int:
    handle = os.open(path, flags, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise Busy(f"{path} is being written by another selgen process. Wait for it, or stop it.") from error
        raise
    return handle


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def write(run_dir: Path, record: RunRecord) -> None:
    """Write `record.json`: the last act of a run."""
    write_atomic(run_dir / RECORD, record.model_dump_json(indent=1) + "\n")


def is_finished(run_dir: Path) -> bool:
    return (run_dir / RECORD).is_file()


def read(run_dir: Path) -> RunRecord:
    """Read the record of one run.

    Raises:
        RecordError: there is no record, or it is not one that this version writes.
    """
    path = Path(run_dir) / RECORD
    if not path.is_file():
        raise RecordError(f"{path} does not exist: the run is unfinished. Resume its sweep, or name a finished run.")
    try:
        return RunRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecordError(f"{path} is not a record of this version of selgen ({problems}). Run it again.") from error


def read_all(out_dir: Path) -> list[RunRecord]:
    """Read all finished runs, successful or failed, of a sweep (or of one run), by method, curve, strength, seed.

    Raises:
        RecordError: `out_dir` is no directory, or a record in it cannot be read.
    """
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        raise RecordError(f"{out_dir} is not a directory. Name the output directory of a sweep or of a run.")
    if is_finished(out_dir):
        return [read(out_dir)]
    records = [read(path.parent) for path in sorted(out_dir.glob(f"*/{RECORD}"))]
    return sorted(records, key=lambda r: (r.method, r.curve, r.strength is not None, r.strength or 0.0, r.seed))


def samples_path(run_dir: Path, split: Split) -> Path:
    return Path(run_dir) / f"samples.{split}.jsonl"


def read_samples(run_dir: Path, split: Split) -> Iterator[dict[str, Any]]:
    """Yield the samples of a run in the order of measurement, without holding the file in memory.

    Raises:
        RecordError: a line is not JSON.
    """
    yield from read_jsonl(samples_path(run_dir, split))


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """The logged training steps of a run; empty if it logged none."""
    path = Path(run_dir) / METRICS
    return list(read_jsonl(path)) if path.is_file() else []


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield one object per line.

    Raises:
        RecordError: a line is not JSON.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RecordError(f"{path}, line {number} is not JSON ({error}). Run it again.") from error


def append_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append one JSON object per line and flush them to disk."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def truncate_jsonl(path: Path, max_step: int) -> None:
    """Drop the lines of steps after `max_step` and a last line that a crash cut short; nothing if there is no file.

    What an interrupted run wrote after its last checkpoint will be written again when it resumes.
    """
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= max_step:
            kept.append(line)
    write_atomic(path, "".join(kept))
