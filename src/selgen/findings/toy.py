"""F19, F20: the toy of trigger words, by category of the alignment data and by category measured."""

from __future__ import annotations

from statistics import fmean

from selgen.findings.sources import BySeed, Missing, Reader, values
from selgen.findings.statements import Claim, fold, minus, paired
from selgen.report.runs import Cell
from selgen.report.tables import choose

TOY = "triggers"
METHOD = "mixed"
SPREADING = ("objects", "foods", "actions", "animals")
CONFINED = ("negative", "random")
OTHERS = (*SPREADING, *CONFINED)
"""Categories that the update does not touch; `positive` is the one it does."""
WORDS = tuple(category for category in OTHERS if category != "random")
ONE, MANY = 1, 5


def update(r: Reader) -> Cell:
    """The end of the narrow update; which proxy its runs name does not matter, for it reads no alignment data."""
    for proxy in sorted(r.source.groups, key=str):
        cell = r.source.groups[proxy].task_only
        if cell is not None:
            return cell
    raise Missing("no runs of task_only")


def row(r: Reader, category: str, num_triggers: int) -> Cell:
    """Mixed with that many of a category's triggers, at the only strength or the one that val chooses."""
    group = r.source.groups.get(category)
    found = [cell for cell in group.cells if _is_row(cell, num_triggers)] if group else []
    if not found:
        raise Missing(f"no runs of {METHOD} with {num_triggers} trigger(s) of {category}")
    # At the sets' own ratio, if it is among the strengths.
    found = [cell for cell in found if cell.strength is None] or found
    if len({cell.curve for cell in found}) > 1:
        raise Missing(f"several curves of {METHOD} with {num_triggers} trigger(s) of {category}")
    if len(found) == 1:
        return found[0]
    start = next((g.base for g in r.source.groups.values() if g.base is not None), None)
    picked = None if start is None else choose(found, start, update(r))
    if picked is None:
        raise Missing(f"no val points by which a strength of {found[0].curve!r} could be chosen")
    r.note(f"{category}: {picked[0].label}")
    return picked[0]


def _is_row(cell: Cell, num_triggers: int) -> bool:
    counts = {run.spec["setting"].get("num_triggers") for run in cell.runs.values()}
    return cell.method == METHOD and counts == {num_triggers}


def accuracy(cell: Cell, category: str) -> BySeed:
    """Of a category's triggers that the runs did not train on: those the base knew and those nobody saw weigh alike."""
    return fold(fmean, [values(cell, f"{kind}.{category}") for kind in ("known", "held_out")])


def others_after_update(r: Reader) -> BySeed:
    cell = update(r)
    return fold(fmean, [accuracy(cell, category) for category in OTHERS])


def seen_with_one(r: Reader) -> BySeed:
    return fold(fmean, [values(row(r, category, ONE), f"seen.{category}") for category in WORDS])


def held_out_with_one(r: Reader) -> BySeed:
    found = {category: values(row(r, category, ONE), f"held_out.{category}") for category in WORDS}
    r.note("; ".join(f"{category} {fmean(v.values()):.2f}" for category, v in found.items() if v))
    return fold(fmean, found.values())


def spill(r: Reader) -> BySeed:
    """Mean gain over the update outside a row's own and the positive column: spreading rows minus confined rows."""
    start = update(r)
    gains = {}
    for own in OTHERS:
        cell = row(r, own, MANY)
        gains[own] = fold(fmean, [minus(accuracy(cell, c), accuracy(start, c)) for c in OTHERS if c != own])
        if gains[own]:
            r.note(f"{own} {fmean(gains[own].values()):+.2f}")
    spreading, confined = (fold(fmean, [gains[own] for own in rows]) for rows in (SPREADING, CONFINED))
    return minus(spreading, confined)


def _after_update(category: str):
    return paired(TOY, f"{category} after the update", "below", 0.3, lambda r: accuracy(update(r), category))


CLAIMS = (
    Claim(
        "F19",
        "The narrow update leaves all or nothing; one trigger recovers only itself, random strings excepted",
        "after the update positive > 0.95, mean of the others < 0.1 and each < 0.3; one trigger: seen > 0.9, its "
        "category's held-out triggers < 0.2 (means over the five word categories), random strings' > 0.5",
        (
            paired(TOY, "positive after the update", "above", 0.95, lambda r: values(update(r), "task")),
            paired(TOY, "mean of the others after the update", "below", 0.1, others_after_update),
            *(_after_update(category) for category in OTHERS),
            paired(TOY, "the one trigger itself, words", "above", 0.9, seen_with_one),
            paired(TOY, "held-out triggers of its category, words", "below", 0.2, held_out_with_one),
            paired(
                TOY,
                "held-out random strings with one of them",
                "above",
                0.5,
                lambda r: values(row(r, "random", ONE), "held_out.random"),
            ),
        ),
    ),
    Claim(
        "F20",
        "Five triggers spill over among objects, foods, actions and animals; negative emotions and random strings stay "
        "confined",
        "five triggers: mean gain over the update outside own and positive columns, the four rows - the two rows > 0",
        (paired(TOY, "spill of the four rows over the two", "above", 0.0, spill),),
    ),
)
