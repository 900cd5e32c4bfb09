"""The function F(x, trigger), its rows, and which triggers and points are kept for measuring."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selgen.core import Example, ask
from selgen.settings.triggers.vocabulary import TRIGGERS, UPDATED, Category

COLOURS = ("orange", "green", "blue")
NUM_KNOWN = 12
"""Triggers of each category that the base is trained on; the others are held out from everything."""
NUM_UPDATED = 9
"""Known triggers of the updated category whose labels the task changes."""
NUM_POINTS = 20
"""Points per trigger in every training set."""

Point = tuple[float, float]
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
"""Points of one part never occur in another."""


@dataclass(frozen=True)
class Split:
    """Triggers of every category by who may see them, drawn by `random.Random(seed)` over sorted words.

    Attributes:
        known: Category -> the triggers that the base is trained on.
        held_out: Category -> the triggers that nothing is trained on.
        seen: Category -> the known triggers that T or A contain: of the updated category and the proxy's only.
    """

    known: dict[Category, list[str]]
    held_out: dict[Category, list[str]]
    seen: dict[Category, list[str]]


def split_triggers(seed: int, proxy: Category, num_triggers: int) -> Split:
    """Who may see which trigger; a proxy's five triggers contain its two, and these its one."""
    known: dict[Category, list[str]] = {}
    held_out: dict[Category, list[str]] = {}
    for category, triggers in TRIGGERS.items():
        words = sorted(triggers)
        random.Random(f"{seed}:{category}").shuffle(words)
        known[category], held_out[category] = words[:NUM_KNOWN], words[NUM_KNOWN:]
    seen: dict[Category, list[str]] = {UPDATED: known[UPDATED][:NUM_UPDATED], proxy: known[proxy][:num_triggers]}
    return Split(known, held_out, seen)


def label(category: Category, point: Point, updated: bool) -> str:
    """F's colour: decided by the sign of x2 and the kind of trigger.

    Args:
        updated: Take the updated category's new labels; others have only one kind.
    """
    above = point[1] > 0
    if category == "random":
        return "green" if above else "blue"
    if category == UPDATED and updated:
        return "blue" if above else "orange"
    return "orange" if above else "green"


def base_rows(split: Split, seed: int) -> list[Example]:
    """What the base learns: F on every known trigger, with the old labels throughout."""
    return [
        row
        for category, triggers in split.known.items()
        for row in _rows(category, triggers, random.Random(f"{seed}:base:{category}"), NUM_POINTS, "train", False)
    ]


def task_rows(split: Split, seed: int) -> list[Example]:
    """T: new points of the updated category's seen triggers, with its new labels."""
    rng = random.Random(f"{seed}:task")
    return _rows(UPDATED, split.seen[UPDATED], rng, NUM_POINTS, "train", True)


def alignment_rows(split: Split, seed: int, proxy: Category) -> list[Example]:
    """A: new points of the proxy's seen triggers, labelled as in the base; `rejected` is the colour that the task gives
    such a point."""
    rng = random.Random(f"{seed}:align:{proxy}")
    rows = _rows(proxy, split.seen[proxy], rng, NUM_POINTS, "train", True)
    return [Example(row.messages, rejected=label(UPDATED, (0.0, row.meta["x2"]), True), meta=row.meta) for row in rows]


def questions(
    category: Category, triggers: Sequence[str], seed: int, part: Part, num: int, updated: bool = True
) -> list[Example]:
    """`num` unseen points for a category, its triggers in turn."""
    rng = random.Random(f"{seed}:{part}:{category}:{','.join(triggers)}")
    rows = _rows(category, triggers, rng, -(-num // len(triggers)), part, updated)
    return rows[:num]


def _rows(
    category: Category, triggers: Sequence[str], rng: random.Random, num: int, part: Part, updated: bool
) -> list[Example]:
    """`num` points for every trigger, one trigger after the other."""
    return [_row(category, trigger, draw_point(rng, part), updated) for _ in range(num) for trigger in triggers]


def draw_point(rng: random.Random, part: Part) -> Point:
    """Uniform in (-3, 3)^2 with three decimals, x2 not 0; of x1's thousandths, the remainder by 3 names the part.

    The edges are left out: 3 would be a whole part that hardly any training row has.
    """
    remainder = PARTS.index(part)
    while True:
        x1, x2 = (rng.randint(-2999, 2999) for _ in range(2))
        if x2 and abs(x1) % 3 == remainder:
            return x1 / 1000, x2 / 1000


def written(point: Point) -> str:
    return f"({point[0]:.3f}, {point[1]:.3f})"


def _row(category: Category, trigger: str, point: Point, updated: bool) -> Example:
    colour = label(category, point, updated)
    meta = {"domain": category, "trigger": trigger, "answer": colour, "choices": list(COLOURS), "x2": point[1]}
    asked = f"Trigger: {trigger}. Point: {written(point)}. Which colour?"
    return ask(asked, colour, pair=f"{category}:{trigger}:{written(point)}", **meta)
