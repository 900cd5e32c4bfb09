"""Whole curves against each other: alignment at 90 % of task_only's gain, areas, and the simplest explanation.

That explanation: a method may only make task_only's update smaller. Curves that need no training of their own because
they change task_only's finished adapter are the yardsticks for it: those that know nothing of what should stay (scaled,
an earlier checkpoint) if there are any, else others (projected).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from selgen.core import REFERENCE, TASK_ONLY
from selgen.maths.curves import value_at
from selgen.maths.pareto import Attainment, attainment
from selgen.maths.resampling import exchange_p, paired_bootstrap, smallest_exchange_p
from selgen.maths.stats import Estimate, estimate, paired_difference
from selgen.report import text
from selgen.report.pairs import points_by_seed
from selgen.report.runs import Cell, Group
from selgen.report.tables import KEEP, areas_by_seed, complete_points

AT_GAIN = (
    "Per seed, a curve's alignment is interpolated linearly over score_y through all of its test points and read at "
    f"{KEEP:.0%} of task_only's gain in score_y over the base; nothing is extrapolated. On other seeds it is "
    "impossible: all of the curve lies below that score_y or all of it above, task_only gains nothing, or something "
    "was not measured."
)
"""How the alignment at a matched task score is read, for the reader."""
TESTED = (
    "Differences are paired by seed, with 95 % t intervals. p: exact two-sided permutation test of the areas, which "
    "exchanges the two curves within seeds in all possible ways; it cannot fall below the smallest p shown, whatever "
    "the curves are. Neither is corrected for the number of curves."
)
"""How a curve is compared with a yardstick, for the reader."""


@dataclass(frozen=True)
class AtGain:
    """A curve's alignment where it keeps `KEEP` of task_only's gain in score_y, on test.

    Attributes:
        alignment: Over the seeds on which it could be read; None if there is none.
        by_seed: What was read on them.
        below: Seeds on which all of the curve lies below that score_y: it never learns as much.
        above: Seeds on which all of it lies above.
        no_gain: Seeds on which task_only gains nothing over the base.
        missing: Seeds on which the curve, base or task_only was not measured.
    """

    curve: str
    alignment: Estimate | None
    by_seed: dict[int, float]
    below: list[int]
    above: list[int]
    no_gain: list[int]
    missing: list[int]

    @property
    def impossible(self) -> int:
        """Number of seeds on which it could not be read."""
        return sum(map(len, (self.below, self.above, self.no_gain, self.missing)))


@dataclass(frozen=True)
class Against:
    """A curve against a yardstick, on test, paired by seed.

    Attributes:
        alignment: alignment of the curve - of the yardstick at `KEEP` of task_only's gain; None if no seed has both.
        impossible: Seeds of the comparison on which it could not be read for one of them.
        resampled: Bootstrap interval of the same difference; None for few seeds, see `maths.resampling`.
        area: Hypervolume of the curve - of the yardstick, over the seeds that have all strengths of both; None if they
            have different numbers of strengths, since every point enlarges an area.
        p: Two-sided p of the permutation test on the areas; None without them.
        smallest_p: The smallest p that so many seeds can give; None without a seed.
    """

    curve: str
    yardstick: str
    alignment: Estimate | None
    impossible: int
    resampled: tuple[float, float] | None
    area: Estimate | None
    p: float | None
    smallest_p: float | None


@dataclass(frozen=True)
class Attained:
    """How far out a curve's fronts reach over seeds, in (alignment, score_y) on test.

    Attributes:
        seeds: Those that have all strengths of the curve; each gives one front.
        surfaces: Best, median and worst attainment surface over them.
    """

    curve: str
    seeds: list[int]
    surfaces: Attainment


def at_gain(group: Group) -> list[AtGain]:
    """One entry per curve, task_only's only where it has several strengths; none without base and task_only."""
    return [_at_gain(group, name, cells) for name, cells in _several(group).items()]


def _several(group: Group) -> dict[str, list[Cell]]:
    """Competing curves, and task_only's if it is one."""
    if group.base is None or group.task_only is None:
        return {}
    return {name: cells for name, cells in group.curves.items() if cells[0].method != TASK_ONLY or len(cells) > 1}


def _at_gain(group: Group, name: str, cells: Sequence[Cell]) -> AtGain:
    assert group.base is not None and group.task_only is not None, "_several leaves no curve without them"
    start, end = (cell.values("test", "score_y") for cell in (group.base, group.task_only))
    lines = points_by_seed(cells)
    found: dict[int, float] = {}
    lost: dict[str, list[int]] = {"below": [], "above": [], "no_gain": [], "missing": []}
    for seed in group.seeds:
        if seed not in lines or seed not in start or seed not in end:
            lost["missing"].append(seed)
            continue
        if end[seed] <= start[seed]:
            lost["no_gain"].append(seed)
            continue
        at, alignment = lines[seed]
        target = start[seed] + KEEP * (end[seed] - start[seed])
        value = value_at(at, alignment, target)
        if value is None:
            lost["below" if max(at) < target else "above"].append(seed)
        else:
            found[seed] = value
    return AtGain(name, estimate(list(found.values())), found, **lost)


def yardsticks(group: Group) -> list[str]:
    """Curves that change task_only's finished adapter; if there is none, task_only's own over its checkpoints.

    A single point is no yardstick: it can be read at no other score_y, and has no area to speak of.
    """
    several = {name: cells for name, cells in group.curves.items() if len(cells) > 1}
    parents = {record.run_id for record in group.records if record.method == TASK_ONLY}
    derived = [
        name
        for name, cells in several.items()
        if all(run.parent in parents for cell in cells for run in cell.runs.values())
    ]
    blind = [name for name in derived if several[name][0].is_control]
    return blind or derived or [name for name, cells in several.items() if cells[0].method == TASK_ONLY]


def against(group: Group, read: Iterable[AtGain], reference: tuple[float, float] = REFERENCE) -> list[Against]:
    """Every competing curve that trains something against every yardstick, curve by curve.

    Args:
        group: What is compared.
        read: What `at_gain` found.
        reference: Of the hypervolumes.
    """
    measures = yardsticks(group)
    readings = {entry.curve: entry.by_seed for entry in read}
    areas = {name: areas_by_seed(group, cells, reference) for name, cells in group.curves.items()}
    return [
        _against(group, curve, measure, readings, areas)
        for curve in group.competing
        if curve not in measures
        for measure in measures
    ]


def _against(
    group: Group,
    curve: str,
    measure: str,
    readings: Mapping[str, Mapping[int, float]],
    areas: Mapping[str, Mapping[int, float]],
) -> Against:
    ours, theirs = readings.get(curve, {}), readings.get(measure, {})
    comparable = len(group.curves[curve]) == len(group.curves[measure])
    both = areas[curve].keys() & areas[measure].keys() if comparable else set()
    return Against(
        curve=curve,
        yardstick=measure,
        alignment=paired_difference(ours, theirs),
        impossible=len(group.seeds) - len(ours.keys() & theirs.keys()),
        resampled=paired_bootstrap(ours, theirs),
        area=paired_difference(areas[curve], areas[measure]) if comparable else None,
        p=exchange_p([areas[curve][seed] - areas[measure][seed] for seed in sorted(both)]),
        smallest_p=smallest_exchange_p(len(both)) if both else None,
    )


def attained(group: Group) -> list[Attained]:
    """One entry per curve of several strengths that some seed has in full."""
    found = []
    for name, cells in group.curves.items():
        points = complete_points(group, cells)
        if len(cells) > 1 and points:
            found.append(Attained(name, list(points), attainment(list(points.values()))))
    return found


def sentences(pairs: Sequence[Against], num_seeds: int) -> list[str]:
    """One sentence per curve: what it keeps beyond each yardstick at the same task score.

    Args:
        pairs: What `against` found.
        num_seeds: Seeds of the comparison.
    """
    by_curve: dict[str, list[str]] = {}
    for pair in pairs:
        by_curve.setdefault(pair.curve, []).append(_phrase(pair, num_seeds))
    return [f"{curve}: {'; '.join(phrases)}." for curve, phrases in by_curve.items()]


def _phrase(pair: Against, num_seeds: int) -> str:
    gap = pair.alignment
    if gap is None:
        return f"cannot be compared with {pair.yardstick} (impossible on all {num_seeds} seeds)"
    if gap.low is None:
        verdict = "no verdict from one seed, against"
    elif gap.excludes_zero:
        verdict = "more alignment than" if gap.mean > 0 else "less alignment than"
    else:
        verdict = "not told apart from"
    seeds = f"{gap.n} of {num_seeds} seeds" if pair.impossible else f"{num_seeds} seeds"
    return f"{verdict} {pair.yardstick}, {text.points(gap)} points ({seeds})"
