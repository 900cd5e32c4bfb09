"""Records, arranged for comparison: groups of comparable runs, cells of one curve at one strength, and points.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selgen.core import BASE, FIRST, TASK_ONLY, Split
from selgen.maths.stats import Estimate, estimate
from selgen.record import Measured, Point, RecordError, RunRecord

AXES = ("task", "capability", "alignment", "score_y", "proxy")

# fmt: off
LEADING_COLUMNS = (
    "setting", "proxy", "model", "method", "curve", "strength_name", "strength", "seed", "split", "step",
    "task", "capability", "alignment", "score_y", "n_task", "n_capability", "n_alignment", "unscored", "flags",
    "num_task", "num_alignment", "sequences", "train_seconds", "eval_seconds", "update_norm", "parent", "run_id",
)
# fmt: on
"""Columns of points.csv that every setting has, in order; other programs rely on them."""


class ReportError(RecordError):
    """The records cannot be put into one report."""


class Clash(ReportError):
    """Two runs claim the same curve, strength and seed.

    Attributes:
        runs: The two that are in each other's way.
    """

    def __init__(self, message: str, runs: tuple[RunRecord, RunRecord]) -> None:
        super().__init__(message)
        self.runs = runs


def value_of(point: Point, name: str) -> float | None:
    """An axis, `score_y`, or a metric column of a point; None if it was not measured."""
    if name == "score_y":
        return point.score_y
    measured = point.axes.get(name) or point.metrics.get(name)
    return None if measured is None else measured.value


@dataclass(frozen=True)
class Cell:
    """One curve at one strength: what its seeds measured.

    Attributes:
        method: File name of the method.
        curve: The line that it belongs to.
        strength_name: What varies along the curve, or None.
        strength: Its value, or None.
        runs: Successful runs by seed.
        points: By split, then by seed.
    """

    method: str
    curve: str
    strength_name: str | None
    strength: float | None
    runs: dict[int, RunRecord] = field(default_factory=dict)
    points: dict[Split, dict[int, Point]] = field(default_factory=lambda: {"val": {}, "test": {}})

    @property
    def label(self) -> str:
        """E.g. `kl, beta 0.1`."""
        return self.curve if self.strength is None else f"{self.curve}, {self.strength_name} {self.strength:g}"

    @property
    def setting(self) -> dict[str, Any] | None:
        """Name and options of the setting that its runs have in common."""
        return next((run.spec.get("setting") for run in self.runs.values()), None)

    @property
    def num_epochs(self) -> float | None:
        """For how many epochs its runs train."""
        specs = (run.spec.get("training", {}) for run in self.runs.values())
        return next((training.get("num_train_epochs") for training in specs), None)

    @property
    def is_control(self) -> bool:
        """Whether its method knows nothing of what should stay."""
        return any(run.control for run in self.runs.values())

    def values(self, split: Split, name: str) -> dict[int, float]:
        """Value by seed of an axis, `score_y` or a metric column; seeds where it is None are left out."""
        found = {seed: value_of(point, name) for seed, point in self.points[split].items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def estimate(self, split: Split, name: str) -> Estimate | None:
        """Mean over the seeds that have a value, with its interval; None if none has."""
        return estimate(list(self.values(split, name).values()))


@dataclass(frozen=True)
class Group:
    """Runs that may be compared with one another: the same setting, proxy and model.

    Attributes:
        records: All of them, failed ones too.
        cells: One per (curve, strength): base first, then task_only, then by curve and strength.
        seeds: Every seed that any of its runs has.
    """

    setting: str
    proxy: str | None
    model: str
    records: tuple[RunRecord, ...]
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]

    @property
    def base(self) -> Cell | None:
        return next((cell for cell in self.cells if cell.method == BASE), None)

    @property
    def task_only(self) -> Cell | None:
        """The end of task-only training as long as the sweep says, on the base's data if there are others."""
        base = self.base

        def rank(cell: Cell) -> tuple[bool, bool, float]:
            same = (cell.setting, cell.num_epochs) if base is None else (base.setting, base.num_epochs)
            # Without checkpoints there is no strength, and the point is the end.
            end = cell.num_epochs if cell.strength is None else cell.strength
            return cell.setting == same[0], cell.num_epochs == same[1], end or 0.0

        return max((cell for cell in self.cells if cell.method == TASK_ONLY), key=rank, default=None)

    @property
    def curves(self) -> dict[str, list[Cell]]:
        """Cells by curve in order of strength, the base left out."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if cell.method != BASE:
                found.setdefault(cell.curve, []).append(cell)
        return found

    @property
    def competing(self) -> dict[str, list[Cell]]:
        """All curves but base's and task_only's: of methods, and of baselines and controls."""
        return {name: cells for name, cells in self.curves.items() if cells[0].method != TASK_ONLY}

    @property
    def preserving(self) -> dict[str, list[Cell]]:
        """The curves of methods that know something of what should stay."""
        return {name: cells for name, cells in self.competing.items() if not cells[0].is_control}

    @property
    def can_trade(self) -> bool:
        """Whether there is a trade-off to judge: the start, task-only training and a method that preserves."""
        return self.base is not None and self.task_only is not None and bool(self.competing)

    @property
    def columns(self) -> list[str]:
        """Metric columns in the order in which the setting measures them."""
        return metric_columns(self.records)

    def domains(self, eval_name: str) -> list[str]:
        """Domains in which an eval was measured, in the setting's order."""
        prefix = f"{eval_name}."
        return [column.removeprefix(prefix) for column in self.columns if column.startswith(prefix)]


def metric_columns(records: Iterable[RunRecord]) -> list[str]:
    """Every `<eval>.<domain>` of the records, first seen first."""
    return list(dict.fromkeys(column for r in records for point in r.points for column in point.metrics))


def group_runs(records: Sequence[RunRecord]) -> list[Group]:
    """Sort records into groups of comparable runs; those that only made a starting model belong to none.

    Raises:
        Clash: two runs of a group claim the same curve, strength and seed.
    """
    by_key: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in (r for r in records if r.curve != FIRST):
        by_key.setdefault((record.setting, record.model, record.proxy or ""), []).append(record)
    return [_group(found) for _, found in sorted(by_key.items())]


def _group(records: Sequence[RunRecord]) -> Group:
    cells: dict[tuple[str, float | None], Cell] = {}
    for record in records:
        if record.status == "failed":
            continue
        for point in record.points:
            key = (record.curve, point.strength)
            cell = cells.setdefault(key, Cell(record.method, record.curve, record.strength_name, point.strength))
            earlier = cell.points[point.split].get(record.seed)
            if earlier is not None and cell.runs[record.seed].run_id != record.run_id:
                raise Clash(
                    f"runs {cell.runs[record.seed].run_id} and {record.run_id} are both '{cell.label}' with seed "
                    f"{record.seed} of setting '{record.setting}'. Name the curve of one of them, or remove one.",
                    (cell.runs[record.seed], record),
                )
            if earlier is None or earlier.order <= point.order:
                cell.points[point.split][record.seed] = point
            cell.runs[record.seed] = record
    rank = {BASE: 0, TASK_ONLY: 1}
    ordered = sorted(cells.values(), key=lambda c: (rank.get(c.method, 2), c.curve, c.strength or 0.0))
    first = records[0]
    return Group(
        first.setting,
        first.proxy,
        first.model,
        tuple(records),
        tuple(ordered),
        tuple(sorted({r.seed for r in records})),
    )


def _measured(measured: Measured | None, attribute: str) -> float | None:
    if measured is None:
        return None
    return measured.value if attribute == "value" else measured.n


def point_rows(records: Sequence[RunRecord]) -> Iterator[dict[str, object]]:
    """Rows of points.csv: one per (run, step, split). None where something was not measured."""
    for record in records:
        for point in record.points:
            axes: Mapping[str, Measured] = point.axes
            yield {
                **{name: getattr(record, name) for name in ("setting", "proxy", "model", "method", "curve")},
                "strength_name": record.strength_name,
                "strength": point.strength,
                "seed": record.seed,
                "split": point.split,
                "step": point.step,
                **{axis: _measured(axes.get(axis), "value") for axis in ("task", "capability", "alignment")},
                "score_y": point.score_y,
                **{f"n_{axis}": _measured(axes.get(axis), "n") for axis in ("task", "capability", "alignment")},
                "unscored": sum(metric.unscored for metric in point.metrics.values()),
                "flags": "; ".join(record.flags),
                "num_task": record.num_task,
                "num_alignment": record.num_alignment,
                "sequences": record.sequences,
                "train_seconds": record.train_seconds,
                "eval_seconds": point.eval_seconds,
                "update_norm": record.update_norm,
                "parent": record.parent,
                "run_id": record.run_id,
                **{column: metric.value for column, metric in point.metrics.items()},
            }


def write_points(path: Path, records: Sequence[RunRecord]) -> None:
    """Write points.csv; an empty field is a value that was not measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = [*LEADING_COLUMNS, *metric_columns(records)]
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(point_rows(records))
