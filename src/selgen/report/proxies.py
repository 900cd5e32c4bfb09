"""Which alignment data protects better? Curves that two proxies share, compared seed by seed on test.

A curve's difference is, per seed, the mean over all strengths that both proxies were run at. No strength is chosen, so
that nothing is selected on test. What more protection costs stands beside it: the difference in score_y, and the
difference in alignment where both reach the same score_y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from selgen.maths.stats import Estimate, detectable_difference, estimate, holm, paired_difference, paired_t_p
from selgen.record import RunRecord
from selgen.report import text
from selgen.report.lookup import SettingOf
from selgen.report.pairs import ALPHA, Pair, compare_curves, decide
from selgen.report.runs import Cell, Group

Verdict = Literal["differs", "unadjusted", "not told apart", "too few seeds"]

METHOD = (
    "Difference of the means over all strengths that both proxies were run at, paired by seed over the seeds that have "
    "all of them: 95 % t interval and two-sided paired t test, Holm-adjusted over all curves of a setting and model "
    "(the overall row: over all pairs of proxies). At matched score_y: as for pairs of methods."
)
"""How proxies are compared, for the reader."""
OVERALL = "all methods"


@dataclass(frozen=True)
class StrengthGap:
    """Proxy a minus proxy b at one strength.

    Attributes:
        seeds: Seeds on which both have a test point.
    """

    strength: float | None
    seeds: list[int]
    alignment: Estimate | None
    score_y: Estimate | None


@dataclass(frozen=True)
class Gap:
    """Proxy a minus proxy b, on one curve or over all curves.

    Attributes:
        curve: Name of the curve, or `OVERALL`.
        strength_name: What varies along the curve, or None.
        strengths: The strengths that both have; empty for the overall gap.
        num_strengths: How many (curve, strength) pairs stand behind the gap.
        seeds: Seeds on which both proxies have all of them.
        missing_seeds: Seeds of either without one of them.
        by_seed: (alignment, score_y) of a minus those of b for each of `seeds`: means over strengths (overall: over
            curves, which weigh the same).
        alignment: Mean of the first over the seeds; None without seeds.
        score_y: Mean of the second.
        matched: Difference in alignment where both reach the same score_y; None for the overall gap.
        p: Two-sided p of the paired t test on alignment; None below two seeds.
        p_holm: The same, adjusted.
        detectable: Smallest difference that a single such test at alpha 0.05 finds with 80 % power.
        verdict: As in `pairs.Pair`.
    """

    curve: str
    strength_name: str | None
    strengths: list[StrengthGap]
    num_strengths: int
    seeds: list[int]
    missing_seeds: list[int]
    by_seed: list[tuple[float, float]]
    alignment: Estimate | None
    score_y: Estimate | None
    matched: Pair | None
    p: float | None
    p_holm: float | None
    detectable: float | None
    verdict: Verdict


@dataclass(frozen=True)
class ProxyPair:
    """Two proxies of one setting and model.

    Attributes:
        obstacle: Why their alignment axes do not compare; None if they do.
        note: How their alignment data differ in size, if they do.
        curves: One gap for each curve that both have.
        overall: The gap over all of them; None without curves.
        sentences: What they come to, the overall one first.
    """

    setting: str
    model: str
    a: str
    b: str
    obstacle: str | None
    note: str | None
    curves: list[Gap]
    overall: Gap | None
    sentences: list[str]


def compare_proxies(groups: Sequence[Group], setting_of: SettingOf) -> list[ProxyPair]:
    """Every two proxies of the groups that share setting and model, in the order of their names, where they compare."""
    found: list[ProxyPair] = []
    for key in dict.fromkeys((g.setting, g.model) for g in groups):
        own = [g for g in groups if (g.setting, g.model) == key and g.proxy is not None and g.competing]
        if len(own) < 2 or not setting_of(own[0].records[0]).compares_proxies:
            continue
        found += _decide([_compare(a, b, setting_of) for a, b in combinations(own, 2)])
    return found


def _compare(a: Group, b: Group, setting_of: SettingOf) -> ProxyPair:
    """A pair before it is known how many tests there are."""
    obstacle = _obstacle(a, b, setting_of)
    shared = [] if obstacle else [name for name in a.competing if name in b.competing]
    gaps = [gap for name in shared if (gap := _curve_gap(name, a, b)) is not None]
    note = None if obstacle else _sizes(a, b)
    overall = _overall(gaps, a, b) if gaps else None
    return ProxyPair(a.setting, a.model, str(a.proxy), str(b.proxy), obstacle, note, gaps, overall, [])


def _obstacle(a: Group, b: Group, setting_of: SettingOf) -> str | None:
    """What keeps the alignment axes of two groups from being the same."""
    kept = []
    for group in (a, b):
        measured = {column.partition(".")[2] for column in group.columns}
        kept.append({frozenset(measured - _left_out(r, setting_of)) for r in group.records if r.points})
    if len(kept[0] | kept[1]) == 1:
        return None
    one, other = (frozenset.intersection(*sets) for sets in kept)
    differ = sorted(frozenset.union(*kept[0], *kept[1]) - (one & other))
    return (
        f"{a.proxy} and {b.proxy} do not compare: their alignment is not the mean over the same domains "
        f"({', '.join(differ)} not in all). Run both proxies in one sweep, which leaves out what either covers."
    )


def _left_out(record: RunRecord, setting_of: SettingOf) -> frozenset[str]:
    return frozenset(record.spec.get("covered", ())) | setting_of(record).proxy_domains


def _sizes(a: Group, b: Group) -> str | None:
    rows = [sorted({r.num_alignment for r in g.records if r.num_alignment is not None}) for g in (a, b)]
    if rows[0] == rows[1]:
        return None
    said = [", ".join(map(str, numbers)) or "an unknown number of" for numbers in rows]
    return f"They differ in size too: {a.proxy} has {said[0]} alignment rows, {b.proxy} {said[1]}."


def _curve_gap(name: str, a: Group, b: Group) -> Gap | None:
    """The gap of one curve; None if it has no strength in common."""
    cells = [{cell.strength: cell for cell in group.competing[name]} for group in (a, b)]
    strengths = [s for s in cells[0] if s in cells[1]]
    if not strengths:
        return None
    both = [(cells[0][s], cells[1][s]) for s in strengths]
    gaps = [
        StrengthGap(
            s,
            sorted(x.points["test"].keys() & y.points["test"].keys()),
            *(paired_difference(x.values("test", axis), y.values("test", axis)) for axis in ("alignment", "score_y")),
        )
        for s, (x, y) in zip(strengths, both, strict=True)
    ]
    alignment, score_y = ([_by_seed(x, y, axis) for x, y in both] for axis in ("alignment", "score_y"))
    seeds = sorted(set.intersection(*(set(values) for values in (*alignment, *score_y))))
    means = {seed: (fmean(v[seed] for v in alignment), fmean(v[seed] for v in score_y)) for seed in seeds}
    every = sorted(set(a.seeds) | set(b.seeds))
    matched = compare_curves(str(a.proxy), str(b.proxy), [x for x, _ in both], [y for _, y in both], every)
    gap = _gap(name, len(strengths), means, every)
    return replace(gap, strength_name=both[0][0].strength_name, strengths=gaps, matched=matched)


def _by_seed(a: Cell, b: Cell, axis: str) -> dict[int, float]:
    of_a, of_b = a.values("test", axis), b.values("test", axis)
    return {seed: of_a[seed] - of_b[seed] for seed in of_a.keys() & of_b.keys()}


def _overall(gaps: Sequence[Gap], a: Group, b: Group) -> Gap:
    """All curves together, on the seeds that every one of them has."""
    values = [dict(zip(gap.seeds, gap.by_seed, strict=True)) for gap in gaps]
    seeds = sorted(set.intersection(*(set(v) for v in values)))
    means = {seed: (fmean(v[seed][0] for v in values), fmean(v[seed][1] for v in values)) for seed in seeds}
    return _gap(OVERALL, sum(gap.num_strengths for gap in gaps), means, sorted(set(a.seeds) | set(b.seeds)))


def _gap(name: str, num_strengths: int, by_seed: dict[int, tuple[float, float]], seeds: Sequence[int]) -> Gap:
    difference = estimate([alignment for alignment, _ in by_seed.values()])
    return Gap(
        curve=name,
        strength_name=None,
        strengths=[],
        num_strengths=num_strengths,
        seeds=list(by_seed),
        missing_seeds=[seed for seed in seeds if seed not in by_seed],
        by_seed=list(by_seed.values()),
        alignment=difference,
        score_y=estimate([score_y for _, score_y in by_seed.values()]),
        matched=None,
        p=None if difference is None else paired_t_p(difference),
        p_holm=None,
        detectable=None if difference is None else detectable_difference(difference),
        verdict="too few seeds",
    )


def _decide(pairs: Sequence[ProxyPair]) -> list[ProxyPair]:
    """Holm's correction over all pairs of a setting and model, the verdicts, and the sentences."""
    curves = iter(_judged([gap for pair in pairs for gap in pair.curves]))
    overalls = iter(_judged([pair.overall for pair in pairs if pair.overall is not None]))
    matched = iter(decide([gap.matched for pair in pairs for gap in pair.curves if gap.matched is not None]))
    found = []
    for pair in pairs:
        gaps = [replace(next(curves), matched=next(matched)) for _ in pair.curves]
        overall = None if pair.overall is None else next(overalls)
        decided = replace(pair, curves=gaps, overall=overall)
        found.append(replace(decided, sentences=_sentences(decided)))
    return found


def _judged(gaps: Sequence[Gap]) -> list[Gap]:
    adjusted = iter(holm([gap.p for gap in gaps if gap.p is not None]))
    found = []
    for gap in gaps:
        if gap.p is None or gap.alignment is None:
            found.append(gap)
            continue
        p_holm, verdict = next(adjusted), "not told apart"
        if gap.alignment.excludes_zero:
            verdict = "differs" if p_holm < ALPHA else "unadjusted"
        found.append(replace(gap, p_holm=p_holm, verdict=verdict))
    return found


def _sentences(pair: ProxyPair) -> list[str]:
    if pair.obstacle is not None:
        return [pair.obstacle]
    if pair.overall is None:
        return [f"{pair.a} and {pair.b} share no curve and strength, so nothing can be said of which protects better."]
    # With one curve, the overall row would only say the same again.
    gaps = [pair.overall, *pair.curves] if len(pair.curves) > 1 else pair.curves
    return [_sentence(pair, gap) for gap in gaps] + ([pair.note] if pair.note else [])


def _sentence(pair: ProxyPair, gap: Gap) -> str:
    """E.g. `With mixed, safety protects better than hhh: alignment +12.1 [+9.0, +15.2] points over ...`"""
    method = "Over all methods" if gap.curve == OVERALL else f"With {gap.curve}"
    if gap.alignment is None:
        return f"{method}, {pair.a} and {pair.b} have no seed with all strengths, so nothing can be said."
    better, worse, sign = (pair.a, pair.b, 1) if gap.alignment.mean >= 0 else (pair.b, pair.a, -1)
    verdict = {
        "differs": f"{better} protects better than {worse}",
        "unadjusted": f"no difference between {better} and {worse} can be told after Holm's correction",
        "not told apart": f"no difference between {better} and {worse} can be told",
        "too few seeds": f"one seed cannot tell {better} and {worse} apart",
    }[gap.verdict]
    said = f"{method}, {verdict}: alignment {_points(gap.alignment, sign)} points ({better} - {worse}) over {_of(gap)}"
    if gap.score_y is not None:
        said += f", score_y {_points(gap.score_y, sign)}"
    if gap.matched is not None and gap.matched.difference is not None:
        said += f"; at matched score_y, alignment {_points(gap.matched.difference, sign)}"
    if gap.verdict == "not told apart" and gap.detectable is not None:
        said += f"; smallest detectable difference {100 * gap.detectable:.1f}"
    return f"{said}."


def _of(gap: Gap) -> str:
    strengths = f"{gap.num_strengths} strength{'' if gap.num_strengths == 1 else 's'}"
    return f"{strengths} and {len(gap.seeds)} seed{'' if len(gap.seeds) == 1 else 's'}"


def _points(e: Estimate, sign: int) -> str:
    """The difference in percentage points with its interval, turned around for sign -1."""
    if sign < 0:
        low, high = (None if end is None else -end for end in (e.high, e.low))
        e = replace(e, mean=-e.mean, low=low, high=high)
    return text.points(e)
