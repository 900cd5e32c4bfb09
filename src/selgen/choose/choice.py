"""The chosen point as data, and as text for a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from selgen.choose.constraints import Constraint, percent
from selgen.choose.rule import left_out_text, mean_of
from selgen.maths.stats import LEVEL, Estimate
from selgen.record import Point
from selgen.report import text
from selgen.report.runs import Cell, value_of

Z95 = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Half-width of a 95 % normal interval, in standard errors."""


@dataclass(frozen=True)
class Number:
    """One axis or column of the chosen point, in shares.

    Attributes:
        val: Over seeds; what the choice was made by.
        test: Over seeds; None if it was not measured.
        run_val: Of the copied run alone.
        run_test: Of the copied run alone; None if it was not measured.
        run_stderr: Standard error of `run_test` over the run's prompts; None where it has none.
    """

    name: str
    val: Estimate | None
    test: Estimate | None
    run_val: float | None
    run_test: float | None
    run_stderr: float | None


@dataclass(frozen=True)
class Kept:
    """A constraint and whether it also holds where it was not chosen by.

    Attributes:
        text: In words.
        val_bound: What the mean on val had to reach.
        test_bound: The same on test; differs from it for bounds relative to the base. None if the base lacks it.
        holds_on_test: Whether the mean over seeds on test meets it; None if that was not measured.
        run_meets: Whether the copied run alone meets it on val.
    """

    text: str
    val_bound: float
    test_bound: float | None
    holds_on_test: bool | None
    run_meets: bool


@dataclass(frozen=True)
class Choice:
    """The chosen point and the run of it that is copied.

    Attributes:
        comparison: Setting, proxy and model.
        label: The chosen cell, e.g. `kl, beta 1`.
        rule: How it was chosen, in words.
        candidates: Number of cells it was chosen from.
        left_out: Cells that could not be chosen, by reason.
        seeds: Seeds that the means are over.
        numbers: Every axis and every constrained column.
        kept: One entry per constraint.
        run_id: The run whose adapter is copied.
        seed: Its seed.
        run_note: Why this seed.
        home: Directory of the run.
        adapter: Directory of the run's adapter at that point.
        copied: Where `copy_adapter` put it; None before.
    """

    comparison: str
    label: str
    rule: str
    candidates: int
    left_out: dict[str, list[str]]
    seeds: list[int]
    numbers: list[Number]
    kept: list[Kept]
    run_id: str
    seed: int
    run_note: str
    home: Path
    adapter: Path
    copied: Path | None = None


def number_of(cell: Cell, seed: int, name: str) -> Number:
    val, test = cell.points["val"][seed], cell.points["test"].get(seed)
    return Number(
        name=name,
        val=cell.estimate("val", name),
        test=cell.estimate("test", name),
        run_val=value_of(val, name),
        run_test=None if test is None else value_of(test, name),
        run_stderr=None if test is None else _stderr(test, name),
    )


def _stderr(point: Point, name: str) -> float | None:
    """Over the prompts of one run. That of score_y follows from its parts, whose prompts are different ones."""
    names = ("task", "capability") if name == "score_y" else (name,)
    parts = [point.axes.get(n) or point.metrics.get(n) for n in names]
    errors = [part.stderr for part in parts if part is not None and part.value is not None]
    known = [error for error in errors if error is not None]
    return math.hypot(*known) / len(known) if known and len(known) == len(errors) else None


def kept_of(constraint: Constraint, val_bound: float, cell: Cell, seed: int, base: Cell | None) -> Kept:
    test = mean_of(cell, "test", constraint.name)
    test_bound = constraint.bound(mean_of(base, "test", constraint.name))
    return Kept(
        text=str(constraint),
        val_bound=val_bound,
        test_bound=test_bound,
        holds_on_test=None if test is None or test_bound is None else constraint.met(test, test_bound),
        run_meets=constraint.met(cell.values("val", constraint.name)[seed], val_bound),
    )


def render(choice: Choice) -> RenderableType:
    """The choice for a terminal: rule, numbers, whether the constraints hold on test, and where the adapter is."""
    parts: list[RenderableType] = [
        Text(f"Chosen: {choice.label} ({choice.comparison})", style="bold"),
        Text(f"Rule: {choice.rule}; {choice.candidates} points to choose from. Val chose, test only reports."),
        _numbers_table(choice),
        *(_kept_line(kept) for kept in choice.kept),
        Text(f"Run {choice.run_id}, seed {choice.seed}: {choice.run_note}."),
    ]
    if choice.left_out:
        parts.append(Text(left_out_text(choice.left_out), style="dim"))
    parts.append(
        Text(
            "Numbers: %. Over seeds: mean ± half-width of a 95 % t interval. One seed: "
            f"± {Z95:.2f} standard errors over its prompts.",
            style="dim",
        )
    )
    if choice.copied is not None:
        parts.append(Text(f"Adapter: {choice.copied}", style="bold"))
    return Lines(*parts)


def _numbers_table(choice: Choice) -> Table:
    table = Table(box=None, padding=(0, 1))
    num = len(choice.seeds)
    table.add_column("")
    for where in (f"{num} seeds", f"seed {choice.seed}"):
        table.add_column(f"val, {where}", justify="right")
        table.add_column(f"test, {where}", justify="right")
    for n in choice.numbers:
        of_run = (_share(n.run_val, None), _share(n.run_test, n.run_stderr))
        table.add_row(*map(Text, (n.name, text.percent(n.val, num), text.percent(n.test, num), *of_run)))
    return table


def _share(value: float | None, stderr: float | None) -> str:
    if value is None:
        return text.MISSING
    return f"{100 * value:.1f}" if stderr is None else f"{100 * value:.1f} ± {100 * Z95 * stderr:.1f}"


def _kept_line(kept: Kept) -> Text:
    bound = text.MISSING if kept.test_bound is None else f"{percent(kept.test_bound)} %"
    if kept.holds_on_test is None:
        return Text(f"On test, {kept.text} could not be judged.", style="yellow")
    verdict, style = ("also holds", "green") if kept.holds_on_test else ("does NOT hold", "bold red")
    return Text(f"On test, {kept.text} (mean over seeds against {bound}) {verdict}.", style=style)
