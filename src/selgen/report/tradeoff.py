"""Is the trade-off real? One claim about the methods of a comparison, whatever the setting."""

from __future__ import annotations

from dataclasses import dataclass

from selgen.core import Check, Split
from selgen.maths.stats import Estimate, paired_difference
from selgen.report.runs import Cell, Group
from selgen.report.text import signed

MIN_ALIGNMENT_GAIN = 0.2
MIN_KEPT = 0.5
NAME = "A method buys alignment with part of the gain"
BAR = (
    f"alignment >= +{MIN_ALIGNMENT_GAIN} over task_only, at least {MIN_KEPT:.0%} of its score_y gain kept and some of "
    "it lost, each difference with a 95 % interval above 0"
)


@dataclass(frozen=True)
class _Parts:
    """Differences paired by seed, on one split.

    Attributes:
        aligned: alignment(cell) - alignment(task_only).
        kept: score_y(cell) - score_y(base).
        lost: score_y(task_only) - score_y(cell).
    """

    aligned: Estimate
    kept: Estimate
    lost: Estimate

    @property
    def share(self) -> float | None:
        """Share of task_only's gain that is kept; None if task_only gains nothing."""
        full = self.kept.mean + self.lost.mean
        return self.kept.mean / full if full > 0 else None

    @property
    def holds(self) -> bool:
        kept_enough = self.share is not None and self.share >= MIN_KEPT
        means = self.aligned.mean >= MIN_ALIGNMENT_GAIN and kept_enough and self.lost.mean > 0
        return means and all(part.above_zero for part in (self.aligned, self.kept, self.lost))

    @property
    def order(self) -> tuple[bool, float]:
        """Sorts candidates on val: those that meet the claim first, then by the worst margin to a bar."""
        half = MIN_KEPT * (self.kept.mean + self.lost.mean)
        lows = (part.mean if part.low is None else part.low for part in (self.aligned, self.kept, self.lost))
        return self.holds, min(self.aligned.mean - MIN_ALIGNMENT_GAIN, self.kept.mean - half, *lows)


def _parts(cell: Cell, base: Cell, task_only: Cell, split: Split) -> _Parts | None:
    """The differences over seeds that all three cells have; None if they have no seed in common."""
    y, y_base, y_task = (c.values(split, "score_y") for c in (cell, base, task_only))
    seeds = y.keys() & y_base.keys() & y_task.keys()
    x, x_task = ({s: v for s, v in c.values(split, "alignment").items() if s in seeds} for c in (cell, task_only))
    y = {s: y[s] for s in x.keys() & x_task.keys()}
    aligned, kept, lost = paired_difference(x, x_task), paired_difference(y, y_base), paired_difference(y_task, y)
    return None if aligned is None or kept is None or lost is None else _Parts(aligned, kept, lost)


def check_tradeoff(group: Group) -> Check:
    """Choose the most promising (method, strength) on val, and decide the claim for that one on test.

    Only one candidate is ever looked at on test, so that no correction for many candidates is needed.
    """
    base, task_only = group.base, group.task_only
    candidates = [cell for cells in group.preserving.values() for cell in cells]
    if base is None or task_only is None or not candidates:
        return Check(NAME, False, None, BAR, "needs finished runs of base, of task_only and of another method")
    on_val = [(parts, cell) for cell in candidates if (parts := _parts(cell, base, task_only, "val")) is not None]
    if not on_val:
        return Check(NAME, False, None, BAR, f"none of {len(candidates)} candidates has val points to choose it by")
    _, cell = max(on_val, key=lambda entry: entry[0].order)
    chosen = f"{cell.label}, chosen on val from {len(on_val)} candidates"
    unjudged = len(candidates) - len(on_val)
    if unjudged:
        chosen += f" ({unjudged} more could not be judged)"
    parts = _parts(cell, base, task_only, "test")
    if parts is None:
        return Check(NAME, False, None, BAR, f"{chosen}; it has no test points")
    if parts.aligned.n < 2:
        return Check(NAME, False, parts.aligned.mean, BAR, f"{chosen}; one seed gives no interval")
    share = "no gain to keep" if parts.share is None else f"{parts.share:.0%} of the gain kept"
    detail = (
        f"{chosen}; on test, paired over {parts.aligned.n} seeds: alignment {signed(parts.aligned)}, "
        f"score_y over base {signed(parts.kept)} ({share}), score_y given up {signed(parts.lost)}"
    )
    return Check(NAME, parts.holds, parts.aligned.mean, BAR, detail)
