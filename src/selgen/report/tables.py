"""Means over seeds, the strength of each curve that is chosen on val, hypervolumes, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selgen.core import REFERENCE, Split
from selgen.maths.pareto import dominated, hypervolume
from selgen.maths.stats import Estimate, estimate
from selgen.record import RunRecord
from selgen.report.runs import AXES, Cell, Group

KEEP = 0.9
"""Share of task_only's score_y gain that a chosen strength should reach."""
RULE = (
    "Each method's strength is chosen on val: the best mean alignment among strengths that reach at least "
    f"{KEEP:.0%} of task_only's gain in score_y over the base; if none does, the one that reaches most. All numbers "
    "shown are from test."
)

Role = Literal["base", "baseline", "chosen"]


@dataclass(frozen=True)
class Selection:
    """The strength of a curve, chosen on val.

    Attributes:
        curve: Name of the curve.
        strength: The chosen strength; None if the curve has none.
        reached: Whether it reaches the required share of task_only's gain in score_y on val.
        share: The share that it reaches, over the seeds that it has in common with base and task_only.
        candidates: Number of strengths it was chosen from.
    """

    curve: str
    strength: float | None
    reached: bool
    share: float
    candidates: int


@dataclass(frozen=True)
class Row:
    """One line of the main table: a curve at one strength.

    Attributes:
        role: `base`, `baseline` (the end of task-only training), `chosen` on val, or None.
        dominated: Whether another row's test means are as good on both axes and better on one; None without means.
        seeds: Seeds with a test point.
        missing_seeds: Seeds of the comparison without one.
        val: Estimate by axis (`task`, `capability`, `alignment`, `score_y`, `proxy`); None if not measured.
        test: The same on the test split.
        metrics: Test estimate by `<eval>.<domain>`.
        unscored: Items of the test points that the scorer could not read.
        items: Items of the test points.
        train_seconds: Wall-clock seconds of training a run (of the whole run, for checkpoints of one run).
        run_seconds: Wall-clock seconds of a whole run: its training and the evaluation of all its points, both splits.
        eval_seconds: Wall-clock seconds of the test evaluation.
        budget: Declared difference from the common budget, or None.
        flags: Remarks of its runs.
    """

    method: str
    curve: str
    strength_name: str | None
    strength: float | None
    role: Role | None
    dominated: bool | None
    seeds: list[int]
    missing_seeds: list[int]
    val: dict[str, Estimate | None]
    test: dict[str, Estimate | None]
    metrics: dict[str, Estimate | None]
    unscored: int
    items: int
    train_seconds: Estimate | None
    run_seconds: Estimate | None
    eval_seconds: Estimate | None
    budget: str | None
    flags: list[str]

    @property
    def label(self) -> str:
        """E.g. `kl, beta 0.1`."""
        return self.curve if self.strength is None else f"{self.curve}, {self.strength_name} {self.strength:g}"


@dataclass(frozen=True)
class Hypervolume:
    """Area that a curve dominates in (alignment, score_y) above the reference point, on test.

    Attributes:
        area: Over the seeds that have every strength of the curve; None if no seed has.
        strengths: Number of strengths; areas of curves with different numbers do not compare fairly.
        missing_seeds: Seeds that were left out.
    """

    curve: str
    area: Estimate | None
    strengths: int
    missing_seeds: list[int]


def gain_share(cell: Cell, base: Cell, task_only: Cell, split: Split) -> float | None:
    """Share of task_only's gain in score_y over the base that a cell reaches, over their common seeds.

    Returns:
        E.g. 0.8; None without a common seed, or if task_only gains nothing.
    """
    own, start, end = (c.values(split, "score_y") for c in (cell, base, task_only))
    seeds = own.keys() & start.keys() & end.keys()
    full = sum(end[s] - start[s] for s in seeds)
    return sum(own[s] - start[s] for s in seeds) / full if full > 0 else None


def choose(cells: Sequence[Cell], base: Cell, task_only: Cell) -> tuple[Cell, Selection] | None:
    """Apply the rule to one curve, on val.

    Returns:
        The chosen cell and how it was chosen; None if no cell can be judged.
    """
    judged = []
    for cell in cells:
        share, alignment = gain_share(cell, base, task_only, "val"), cell.estimate("val", "alignment")
        if share is not None and alignment is not None:
            judged.append((cell, share, alignment.mean))
    if not judged:
        return None
    good = [entry for entry in judged if entry[1] >= KEEP]
    cell, share, _ = max(good, key=lambda e: e[2]) if good else max(judged, key=lambda e: e[1])
    return cell, Selection(cell.curve, cell.strength, bool(good), share, len(cells))


def choose_all(group: Group) -> dict[str, tuple[Cell, Selection]]:
    """The chosen cell of every competing curve; curves that cannot be judged are absent."""
    base, task_only = group.base, group.task_only
    if base is None or task_only is None:
        return {}
    found = {name: choose(cells, base, task_only) for name, cells in group.competing.items()}
    return {name: chosen for name, chosen in found.items() if chosen is not None}


def dominated_cells(group: Group) -> dict[int, bool]:
    """By position in `group.cells`: whether another cell's test means dominate it. Cells without means are absent."""
    xy = [(cell.estimate("test", "alignment"), cell.estimate("test", "score_y")) for cell in group.cells]
    known = {i: (x.mean, y.mean) for i, (x, y) in enumerate(xy) if x is not None and y is not None}
    return dict(zip(known, dominated(list(known.values())), strict=True))


def main_table(group: Group) -> list[Row]:
    """One row per cell, in the order of the cells."""
    chosen = {id(cell) for cell, _ in choose_all(group).values()}
    behind = dominated_cells(group)
    return [_row(group, i, cell, id(cell) in chosen, behind.get(i)) for i, cell in enumerate(group.cells)]


def _row(group: Group, index: int, cell: Cell, is_chosen: bool, behind: bool | None) -> Row:
    test = cell.points["test"]
    role: Role | None = "chosen" if is_chosen else None
    if cell is group.base:
        role = "base"
    elif cell is group.task_only:
        role = "baseline"
    budgets = {run.budget for run in cell.runs.values() if run.budget}
    train_seconds = {seed: run.train_seconds for seed, run in cell.runs.items() if run.train_seconds is not None}
    metrics = [metric for point in test.values() for metric in point.metrics.values()]
    return Row(
        method=cell.method,
        curve=cell.curve,
        strength_name=cell.strength_name,
        strength=cell.strength,
        role=role,
        dominated=behind,
        seeds=sorted(test),
        missing_seeds=[seed for seed in group.seeds if seed not in test],
        val={axis: cell.estimate("val", axis) for axis in AXES},
        test={axis: cell.estimate("test", axis) for axis in AXES},
        metrics={column: cell.estimate("test", column) for column in group.columns},
        unscored=sum(metric.unscored for metric in metrics),
        items=sum(metric.n + metric.unscored for metric in metrics),
        train_seconds=estimate(list(train_seconds.values())),
        run_seconds=estimate([train_seconds[seed] + evaluation_seconds(cell.runs[seed]) for seed in train_seconds]),
        eval_seconds=estimate([p.eval_seconds for p in test.values() if p.eval_seconds is not None]),
        budget="; ".join(sorted(budgets)) or None,
        flags=sorted({flag for run in cell.runs.values() for flag in run.flags}),
    )


def evaluation_seconds(run: RunRecord) -> float:
    """Wall-clock seconds of all evaluations of a run: every checkpoint, val and test, those that are known."""
    return sum(point.eval_seconds or 0.0 for point in run.points)


def hypervolumes(group: Group, reference: tuple[float, float] = REFERENCE) -> list[Hypervolume]:
    """One area per curve: computed per seed from all strengths of the curve, then averaged over seeds."""
    found = []
    for name, cells in group.curves.items():
        areas = areas_by_seed(group, cells, reference)
        missing = [seed for seed in group.seeds if seed not in areas]
        found.append(Hypervolume(name, estimate(list(areas.values())), len(cells), missing))
    return found


def areas_by_seed(group: Group, cells: Sequence[Cell], reference: tuple[float, float] = REFERENCE) -> dict[int, float]:
    """A curve's hypervolume on each seed that has every strength of it."""
    return {seed: hypervolume(points, reference) for seed, points in complete_points(group, cells).items()}


def complete_points(group: Group, cells: Sequence[Cell]) -> dict[int, list[tuple[float, float]]]:
    """A curve's (alignment, score_y) on test at all strengths, for the seeds that have every one of them."""
    x = [cell.values("test", "alignment") for cell in cells]
    y = [cell.values("test", "score_y") for cell in cells]
    complete = [seed for seed in group.seeds if all(seed in values for values in (*x, *y))]
    return {seed: [(a[seed], b[seed]) for a, b in zip(x, y, strict=True)] for seed in complete}
