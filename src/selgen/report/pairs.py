"""Do two methods differ in alignment where they reach the same score_y? Every pair of a comparison, judged on test.

Per seed, a curve's alignment is a piecewise linear function of score_y through all of its test points: no front is
taken and no strength chosen, so that nothing is selected on test. Two curves are compared over the score_y that both
reach on that seed; the differences of the seeds are what the intervals and tests are about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median
from typing import Literal

from selgen.maths.curves import mean_gap, overlap
from selgen.maths.stats import LEVEL, Estimate, detectable_difference, estimate, holm, paired_t_p
from selgen.report.runs import Cell, Group

Verdict = Literal["differs", "unadjusted", "not told apart", "no overlap", "too few seeds"]

ALPHA = 1 - LEVEL
METHOD = (
    "Per seed, each curve's alignment is interpolated linearly over score_y through all of its test points and "
    "averaged over the score_y that both curves reach. Differences are paired by seed: 95 % t interval and "
    "two-sided paired t test, Holm-adjusted over all pairs of the comparison that could be judged. The smallest "
    "detectable difference is what a single such test at alpha 0.05 (without Holm) would find with 80 % power, by "
    "the standard error seen."
)
"""How pairs are compared, for the reader."""


@dataclass(frozen=True)
class Pair:
    """Curve `a` against curve `b` at matched score_y, on test.

    Attributes:
        difference: alignment of a - alignment of b over the seeds that could be compared; None if there is none.
        overlap: Mean width of the score_y range that both reach, over those seeds; None if there is none.
        seeds: Seeds that could be compared.
        apart: Seeds on which both were measured but reach no common score_y.
        missing_seeds: Seeds of the comparison on which a or b has no test point.
        p: Two-sided p of the paired t test; None below two seeds.
        p_holm: The same, adjusted over all pairs of the comparison that have one.
        detectable: Smallest difference that a single test at alpha 0.05 finds with 80 % power; None below two seeds.
        verdict: `differs`: the 95 % interval excludes 0 and p_holm < 0.05. `unadjusted`: the interval excludes 0 but
            p_holm does not go below 0.05. `not told apart`: the interval holds 0. With fewer than two seeds to compare:
            `no overlap` if seeds were lost because the curves reach no common score_y, otherwise `too few seeds`.
    """

    a: str
    b: str
    difference: Estimate | None
    overlap: float | None
    seeds: list[int]
    apart: list[int]
    missing_seeds: list[int]
    p: float | None
    p_holm: float | None
    detectable: float | None
    verdict: Verdict


def compare_pairs(group: Group) -> list[Pair]:
    """Every pair of competing curves, those with the smallest p first, those that could not be judged last."""
    curves = {name: points_by_seed(cells) for name, cells in group.competing.items()}
    found = decide([_compare(a, b, curves[a], curves[b], group.seeds) for a, b in combinations(curves, 2)])
    judged = [pair for pair in found if pair.p is not None]
    return sorted(judged, key=lambda pair: (pair.p, pair.a, pair.b)) + [pair for pair in found if pair.p is None]


def compare_curves(a: str, b: str, cells_a: Sequence[Cell], cells_b: Sequence[Cell], seeds: Sequence[int]) -> Pair:
    """Two curves at matched score_y, before it is known how many other pairs there are.

    Args:
        a: What the first curve is called in the result.
        b: The second.
        seeds: Seeds on which both should have test points.
    """
    return _compare(a, b, points_by_seed(cells_a), points_by_seed(cells_b), seeds)


def decide(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs with p values adjusted over all that have one, and verdicts."""
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    return [pair if pair.p is None else _decide(pair, next(adjusted)) for pair in pairs]


Line = tuple[list[float], list[float]]
"""score_y and alignment of a curve's points on one seed."""


def points_by_seed(cells: Sequence[Cell]) -> dict[int, Line]:
    """A curve's measured test points by seed."""
    lines: dict[int, Line] = {}
    for cell in cells:
        y, alignment = cell.values("test", "score_y"), cell.values("test", "alignment")
        for seed in y.keys() & alignment.keys():
            at, value = lines.setdefault(seed, ([], []))
            at.append(y[seed])
            value.append(alignment[seed])
    return lines


def _compare(a: str, b: str, lines_a: dict[int, Line], lines_b: dict[int, Line], seeds: Sequence[int]) -> Pair:
    """A pair before it is known how many others there are."""
    both = [seed for seed in seeds if seed in lines_a and seed in lines_b]
    gaps = {seed: gap for seed in both if (gap := mean_gap(*lines_a[seed], *lines_b[seed])) is not None}
    shared = [range_ for seed in gaps if (range_ := overlap(lines_a[seed][0], lines_b[seed][0])) is not None]
    difference = estimate(list(gaps.values()))
    apart = [seed for seed in both if seed not in gaps]
    return Pair(
        a=a,
        b=b,
        difference=difference,
        overlap=fmean(high - low for low, high in shared) if shared else None,
        seeds=list(gaps),
        apart=apart,
        missing_seeds=[seed for seed in seeds if seed not in both],
        p=None if difference is None else paired_t_p(difference),
        p_holm=None,
        detectable=None if difference is None else detectable_difference(difference),
        verdict="no overlap" if apart else "too few seeds",
    )


def _decide(pair: Pair, p_holm: float) -> Pair:
    verdict: Verdict = "not told apart"
    if pair.difference is not None and pair.difference.excludes_zero:
        verdict = "differs" if p_holm < ALPHA else "unadjusted"
    return replace(pair, p_holm=p_holm, verdict=verdict)


def headline(pairs: Sequence[Pair]) -> str:
    """E.g. `2 of 10 pairs differ in alignment at matched score_y (Holm); 1 more differs before correction.`"""
    if not pairs:
        return "No two methods to compare in alignment at matched score_y."
    num_differ, num_unadjusted = count(pairs, "differs"), count(pairs, "unadjusted")
    return (
        f"{num_differ} of {len(pairs)} pair{'' if len(pairs) == 1 else 's'} {_differ(num_differ)} in alignment at "
        f"matched score_y (Holm); {num_unadjusted} more {_differ(num_unadjusted)} before correction."
    )


def _differ(number: int) -> str:
    return "differs" if number == 1 else "differ"


def remainder(pairs: Sequence[Pair]) -> str | None:
    """What is to be said of the pairs that do not differ; None if all do."""
    parts = []
    sizes = [pair.detectable for pair in pairs if pair.verdict == "not told apart" and pair.detectable is not None]
    if sizes:
        parts.append(
            f"{len(sizes)} cannot be told apart; smallest detectable difference: median {100 * median(sizes):.1f}, "
            f"largest {100 * max(sizes):.1f} points (80 % power, alpha 0.05)"
        )
    if apart := count(pairs, "no overlap"):
        parts.append(f"{apart} reach no common score_y on two seeds")
    if few := count(pairs, "too few seeds"):
        parts.append(f"{few} could not be judged on two seeds")
    return f"{'; '.join(parts)}." if parts else None


def count(pairs: Sequence[Pair], verdict: Verdict) -> int:
    return sum(pair.verdict == verdict for pair in pairs)
