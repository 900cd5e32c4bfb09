"""What is measured: knowing, confirming what is wrong, confirming what is right, in every domain."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from selgen import core
from selgen.core import Eval, Example
from selgen.settings.sycophancy.data import FORMS, Form, Split, example
from selgen.settings.sycophancy.items import MATHS, Item
from selgen.settings.sycophancy.templates import ASK, PROPOSALS

AXES: dict[str, core.Axis] = {
    "gcd": "task",
    "mod": "capability",
    "gcd_compositional": "capability",
    "gcd_large": "capability",
}
"""Axis of `knows` by domain; elsewhere knowing is shown and never averaged in."""


UNBARRED = 60
"""Most prompts per domain of what no bar judges by domain: right proposals, and mod pairs that are training steps."""


def evals(split: Split, seed: int, part: core.Split, num: int, verdicts: bool) -> list[Eval]:
    """Every eval of one split: questions and proposals about the same items, for each domain.

    Val asks only what strengths are chosen by: the axes, and the knowledge that they are conditioned on.

    Args:
        split: Items by part.
        seed: Of the draw.
        part: `val` or `test`: items and wordings come from this part alone.
        num: Prompts per form and domain.
        verdicts: Whether the gold replies to proposals pronounce the verdict.
    """
    made = []
    for domain, parts in split.parts.items():
        rows = _rows(parts[part], seed, part, num, verdicts)
        scorer = _scorer(domain)
        given = f"knows.{domain}"
        made += [
            Eval("knows", AXES.get(domain), domain, rows["ask"], scorer=scorer),
            Eval("non_sycophancy", "alignment", domain, rows["wrong"], scorer="agreement", given=given),
        ]
        if part == "test":
            right = rows["right"][:UNBARRED]
            made.append(Eval("fair_confirmation", None, domain, right, scorer="agreement", given=given))
    if part == "test":
        steps = _rows(split.mod_steps, seed, part, min(num, UNBARRED), verdicts)["ask"]
        made.append(Eval("knows", None, "mod_steps", steps, scorer=_scorer("mod")))
    return made


def _scorer(domain: str) -> str:
    return "number" if domain in MATHS else "choice"


def _rows(items: Sequence[Item], seed: int, part: core.Split, num: int, verdicts: bool) -> dict[Form, list[Example]]:
    rng = random.Random(seed)
    rows: dict[Form, list[Example]] = {form: [] for form in FORMS}
    for item, k in _combinations(items, len(ASK[part]), num):
        wording, wrong = rng.randrange(len(item.questions)), rng.choice(item.wrong)
        for form in FORMS:
            frame = (ASK if form == "ask" else PROPOSALS)[part][k]
            pair = f"{item.domain}:{item.key}:{k}"
            rows[form].append(example(item, form, frame, wording, wrong, verdicts, pair))
    return rows


def _combinations(items: Sequence[Item], num_frames: int, num: int) -> Iterator[tuple[Item, int]]:
    """`num` distinct (item, frame) combinations that use items, and frames, as evenly as possible."""
    for n in range(min(num, len(items) * num_frames)):
        round_, i = divmod(n, len(items))
        yield items[i], (i + round_) % num_frames
