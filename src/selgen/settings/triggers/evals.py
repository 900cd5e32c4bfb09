"""What is measured: the share of unseen points that get their colour, by category and by who has seen the trigger."""

from __future__ import annotations

from collections.abc import Sequence

from selgen import core
from selgen.core import Eval
from selgen.settings.triggers.data import Split, questions
from selgen.settings.triggers.vocabulary import TRIGGERS, UPDATED, Category


def evals(split: Split, seed: int, part: core.Split, num: int) -> list[Eval]:
    """Every eval of one split.

    Args:
        split: Triggers by who may see them.
        seed: Of the draw of points.
        part: `val` or `test`: points come from this part alone.
        num: Points per eval and category.
    """
    made = []
    for category in TRIGGERS:
        seen = split.seen.get(category, [])
        kinds = {
            "seen": seen,
            "known": [trigger for trigger in split.known[category] if trigger not in seen],
            "held_out": split.held_out[category],
        }
        made += [_eval(name, category, triggers, seed, part, num) for name, triggers in kinds.items() if triggers]
    every = [*split.known[UPDATED], *split.held_out[UPDATED]]
    old = questions(UPDATED, every, seed, part, num, updated=False)
    return [*made, Eval("base_labels", None, UPDATED, old, scorer="choice")]


def _eval(name: str, category: Category, triggers: Sequence[str], seed: int, part: core.Split, num: int) -> Eval:
    axis: core.Axis | None = "task" if category == UPDATED else None if name == "seen" else "alignment"
    return Eval(name, axis, category, questions(category, triggers, seed, part, num), scorer="choice")
