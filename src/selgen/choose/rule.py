"""What is wanted of a point, which points can be chosen, and which seed of the chosen one. All on val."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from selgen.choose.constraints import Constraint, percent
from selgen.config import ConfigError
from selgen.core import BASE, Split
from selgen.record import RecordError, adapter_dir
from selgen.report.runs import Cell, Group

NUM_NEAREST = 5
Y_AXES = ("task", "capability", "score_y")


class NothingMeets(ValueError):
    """No candidate meets the constraints on val; the text lists the nearest ones and what could be met."""


@dataclass(frozen=True)
class Candidate:
    """A cell that may be chosen, with its means over seeds on val by name."""

    cell: Cell
    means: dict[str, float]


@dataclass(frozen=True)
class Rule:
    """Constraints with their bounds on val, and what is maximised among the cells that meet them.

    Attributes:
        base: The base's means on val by name; None where they are missing.
        objective: `score_y`, or `alignment` if all constraints are on the task side already.
        second: The other one; decides between equal cells.
    """

    constraints: list[Constraint]
    bounds: list[float]
    base: dict[str, float | None]
    objective: str
    second: str

    @property
    def bounded(self) -> list[tuple[Constraint, float]]:
        """Each constraint with its bound on val."""
        return list(zip(self.constraints, self.bounds, strict=True))

    def met(self, values: dict[str, float]) -> bool:
        return all(c.met(values[c.name], b) for c, b in self.bounded)

    def miss(self, values: dict[str, float]) -> float:
        """Sum over the constraints of how far the values are off, in shares."""
        return sum(max(0.0, c.miss(values[c.name], b)) for c, b in self.bounded)

    @property
    def wanted(self) -> str:
        return " and ".join(f"{c} (>= {percent(b)} %)" if c.below_base else str(c) for c, b in self.bounded)

    @property
    def text(self) -> str:
        return f"the highest mean {self.objective} on val among points with {self.wanted}, means over seeds on val"


def mean_of(cell: Cell | None, split: Split, name: str) -> float | None:
    """Mean over the seeds that have a value; None if none has."""
    found = None if cell is None else cell.estimate(split, name)
    return None if found is None else found.mean


def make_rule(constraints: list[Constraint], base: Cell | None) -> Rule:
    means = {c.name: mean_of(base, "val", c.name) for c in constraints}
    bounds = {c: bound for c in constraints if (bound := c.bound(means[c.name])) is not None}
    missing = [c.name for c in constraints if c not in bounds]
    if missing:
        raise ConfigError(
            [f"--lose-at-most needs the base's {name} on val, which is not there. Use --keep." for name in missing]
        )
    on_y = all(c.name in Y_AXES for c in constraints)
    objective, second = ("alignment", "score_y") if on_y else ("score_y", "alignment")
    return Rule(constraints, [bounds[c] for c in constraints], means, objective, second)


def find_candidates(group: Group, out_dir: Path, names: Sequence[str]) -> tuple[list[Candidate], dict[str, list[str]]]:
    """Candidates with their means on val, and the labels of the other trained cells by the reason why not."""
    found: list[Candidate] = []
    left_out: dict[str, list[str]] = {}
    for cell in group.cells:
        if cell.method == BASE:  # untouched: there is no adapter to take home
            continue
        reason = _why_not(cell, group.seeds, out_dir, names)
        if reason is not None:
            left_out.setdefault(reason, []).append(cell.label)
            continue
        found.append(Candidate(cell, {name: fmean(cell.values("val", name).values()) for name in names}))
    if failed := _failed(group):
        left_out["every run of it failed"] = failed
    if not found:
        raise RecordError(f"{out_dir} has no point to choose from. {left_out_text(left_out)}".strip())
    return found, left_out


def _why_not(cell: Cell, seeds: Sequence[int], out_dir: Path, names: Sequence[str]) -> str | None:
    val = cell.points["val"]
    if any(_is_early(cell, seed) and not adapter_of(cell, seed, out_dir).is_dir() for seed in val):
        return "earlier checkpoints of a run, whose adapters are not kept"
    if any(seed not in val for seed in seeds):
        return f"not measured on val on every seed ({', '.join(map(str, seeds))})"
    unmeasured = [name for name in names if len(cell.values("val", name)) < len(seeds)]
    if unmeasured:
        return f"no value on val on every seed of {', '.join(unmeasured)}"
    if any(not adapter_of(cell, seed, out_dir).is_dir() for seed in val):
        return "a run's adapter is not on disk"
    return None


def _is_early(cell: Cell, seed: int) -> bool:
    """Whether the point on val is of a checkpoint before the run's last."""
    return cell.points["val"][seed].order < max(p.order for p in cell.runs[seed].points)


def adapter_of(cell: Cell, seed: int, out_dir: Path) -> Path:
    """Directory of the adapter that a cell's point on val was measured with; it may be gone."""
    epoch = cell.points["val"][seed].epoch if _is_early(cell, seed) else None
    return adapter_dir(run_dir(out_dir, cell.runs[seed].run_id), None if epoch is None else round(epoch))


def _failed(group: Group) -> list[str]:
    """Labels of what has failed runs only: such runs leave no cell."""
    kept = {(cell.curve, strength) for cell in group.cells for strength in (cell.strength, None)}
    failed = [r for r in group.records if r.status == "failed" and (r.curve, r.strength) not in kept]
    return list(dict.fromkeys(Cell(r.method, r.curve, r.strength_name, r.strength).label for r in failed))


def run_dir(out_dir: Path, run_id: str) -> Path:
    """Inside a sweep's directory, or that directory itself if it is a single run's."""
    return out_dir / run_id if (out_dir / run_id).is_dir() else out_dir


def pick_run(cell: Cell, rule: Rule, names: Sequence[str]) -> tuple[str, int, str]:
    """The run of the chosen cell to copy: its id, its seed, and why it is this one."""
    own = {seed: {name: cell.values("val", name)[seed] for name in names} for seed in sorted(cell.points["val"])}
    good = [seed for seed in own if rule.met(own[seed])]
    if good:
        seed = max(good, key=lambda s: (own[s][rule.objective], -s))
        note = f"of the {len(good)} of {len(own)} seeds that meet the constraints on their own, the best on val"
    else:
        seed = min(own, key=lambda s: (rule.miss(own[s]), -own[s][rule.objective], s))
        note = "no seed meets the constraints on its own, only their mean does; this one comes nearest on val"
    return cell.runs[seed].run_id, seed, note


def nearest_text(rule: Rule, candidates: Sequence[Candidate]) -> str:
    """Which points come nearest, and what could be asked for instead."""
    ordered = sorted(candidates, key=lambda c: (rule.miss(c.means), -c.means[rule.objective], c.cell.label))
    names = dict.fromkeys([*(c.name for c in rule.constraints), "score_y"])
    lines = [f"None of {len(candidates)} points meets {rule.wanted} on val. Nearest:"]
    for candidate in ordered[:NUM_NEAREST]:
        values = ", ".join(f"{name} {100 * candidate.means[name]:.1f} %" for name in names)
        lines.append(f"  {candidate.cell.label}: {values}")
    lines.append("The most that can be asked for, each alone:")
    for constraint in rule.constraints:
        best = max(candidates, key=lambda c: -constraint.miss(c.means[constraint.name], 0.0))
        value = best.means[constraint.name]
        lines.append(f"  {constraint.loosened(value, rule.base[constraint.name])}, met by {best.cell.label}")
    return "\n".join(lines)


def left_out_text(left_out: Mapping[str, Sequence[str]]) -> str:
    """A sentence per reason on the points that could not be chosen; empty if there are none."""
    return " ".join(f"Left out ({reason}): {'; '.join(labels)}." for reason, labels in left_out.items())
