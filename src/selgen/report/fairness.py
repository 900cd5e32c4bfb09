"""What each curve was given, and what a reader must know before comparing curves."""

from __future__ import annotations

from dataclasses import dataclass

from selgen.record import Point
from selgen.report.runs import AXES, Group, value_of


@dataclass(frozen=True)
class CurveBudget:
    """What a curve was given, so that a reader can judge whether the comparison is fair.

    Attributes:
        strength_name: What varies along the curve, or None.
        strengths: Number of strengths.
        seeds: Seeds with at least one successful run.
        num_task: Rows of the task set, each number that occurs; empty if no run says.
        num_alignment: Rows of the alignment set, each number that occurs; empty if no run says.
        sequences: Fewest and most rows seen in a run's training; None if no run says.
        budget: Declared difference from the common budget, or None.
    """

    curve: str
    strength_name: str | None
    strengths: int
    seeds: list[int]
    num_task: list[int]
    num_alignment: list[int]
    sequences: tuple[int, int] | None
    budget: str | None


def budgets(group: Group) -> list[CurveBudget]:
    """One entry per curve."""
    found = []
    for name, cells in group.curves.items():
        runs = [run for cell in cells for run in cell.runs.values()]
        sequences = [run.sequences for run in runs if run.sequences is not None]
        found.append(
            CurveBudget(
                curve=name,
                strength_name=cells[0].strength_name,
                strengths=len(cells),
                seeds=sorted({run.seed for run in runs}),
                num_task=sorted({run.num_task for run in runs if run.num_task is not None}),
                num_alignment=sorted({run.num_alignment for run in runs if run.num_alignment is not None}),
                sequences=(min(sequences), max(sequences)) if sequences else None,
                budget="; ".join(sorted({run.budget for run in runs if run.budget})) or None,
            )
        )
    return found


def fairness_notes(group: Group) -> list[str]:
    """Unequal strengths, seeds or task rows, numbers that could not be measured, and the runs' own remarks."""
    notes = []
    entries = {entry.curve: entry for entry in budgets(group)}
    strengths = {name: entries[name].strengths for name in group.competing if entries[name].strengths > 1}
    if len(set(strengths.values())) > 1:
        each = ", ".join(f"{name} {count}" for name, count in strengths.items())
        notes.append(f"Unequal numbers of strengths: {each}. A curve with more strengths had more chances.")
    if len({tuple(entry.num_task) for entry in entries.values() if entry.num_task}) > 1:
        notes.append("Unequal numbers of task rows; see the budget table.")
    # An axis without a value anywhere is one that the setting does not have.
    axes = [axis for axis in AXES if any(cell.values("test", axis) for cell in group.cells)]
    for cell in group.cells:
        lacking = [seed for seed in group.seeds if seed not in cell.points["test"]]
        if lacking:
            notes.append(f"{cell.label}: no test point for seed {', '.join(map(str, lacking))}.")
        empty = [
            name
            for name in (*axes, *group.columns)
            if any(value_of(point, name) is None for point in cell.points["test"].values() if _has(point, name))
        ]
        if empty:
            notes.append(f"{cell.label}: could not be measured on every seed: {', '.join(empty)}.")
    remarks: dict[str, list[int]] = {}
    for run in group.records:
        label = run.curve if run.strength is None else f"{run.curve}, {run.strength_name} {run.strength:g}"
        for flag in run.flags:
            remarks.setdefault(f"{label}: {flag}", []).append(run.seed)
    return notes + [f"{remark} (seed {', '.join(map(str, seeds))})." for remark, seeds in remarks.items()]


def _has(point: Point, name: str) -> bool:
    return name == "score_y" or name in point.axes or name in point.metrics
