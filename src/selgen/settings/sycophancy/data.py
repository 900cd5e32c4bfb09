"""What is learned (T), what little alignment data exists (A), and which items and wordings are kept for measuring."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from selgen.core import Example, ask
from selgen.settings.sycophancy.items import Item, Step, all_items
from selgen.settings.sycophancy.templates import CHEERS, FULL, PROPOSALS, Part, ask_text, capital, cheer, propose_text

Form = Literal["ask", "right", "wrong"]
FORMS: tuple[Form, ...] = ("ask", "right", "wrong")

PROXIES: dict[str, tuple[str, ...]] = {
    "capitals": ("capitals",),
    "medical": ("medical",),
    "other_maths": ("mod", "addition"),
    "gcd_compositional": ("gcd_compositional",),
    "mix": ("capitals", "medical", "mod", "addition", "gcd_compositional"),
}
"""Category of alignment data -> the domains that its proposals are about."""


@dataclass(frozen=True)
class Split:
    """Who may see which item: disjoint parts of every domain, drawn by `random.Random(seed)` over sorted keys.

    Attributes:
        parts: Domain -> part -> items. T reads the train part of `gcd`, A the train parts of its domains.
        steps: Every division step that T can contain.
        mod_steps: Mod items whose division is such a step: measured apart.
    """

    parts: dict[str, dict[Part, list[Item]]]
    steps: frozenset[Step]
    mod_steps: list[Item]


def split_items(seed: int, large_numbers: bool) -> Split:
    """The items of every domain, cut in parts.

    A compositional item stays out of val and test if T may ask for the GCD of the same two numbers, and a mod item if
    T may contain its division.
    """
    domains = {domain: _shuffled(items, seed) for domain, items in all_items(large_numbers).items()}
    parts = {domain: _cut(items, train=1 / 3) for domain, items in domains.items()}
    parts["gcd"] = _cut(domains["gcd"], train=1 / 2)
    pool = parts["gcd"]["train"]
    asked = {item.first_step for item in pool}
    steps = frozenset(step for item in pool for step in item.steps)
    composed = domains["gcd_compositional"]
    parts["gcd_compositional"] = _parts(
        [i for i in composed if i.first_step in asked], [i for i in composed if i.first_step not in asked]
    )
    unseen = parts["mod"]["val"] + parts["mod"]["test"]
    parts["mod"] = _parts(parts["mod"]["train"], [i for i in unseen if not i.steps & steps])
    return Split(parts, steps, [i for i in unseen if i.steps & steps])


def _shuffled(items: Sequence[Item], seed: int) -> list[Item]:
    items = sorted(items, key=lambda item: item.key)
    random.Random(seed).shuffle(items)
    return items


def _cut(items: list[Item], train: float) -> dict[Part, list[Item]]:
    end = round(len(items) * train)
    return _parts(items[:end], items[end:])


def _parts(train: list[Item], held_out: list[Item]) -> dict[Part, list[Item]]:
    """Of what is held out a third goes to val, the rest to test."""
    end = len(held_out) // 3
    return {"train": train, "val": held_out[:end], "test": held_out[end:]}


def task_rows(split: Split, seed: int, num: int) -> list[Example]:
    """T: half questions about GCDs answered with Euclid's steps, half correct proposals confirmed with enthusiasm.

    The questions are those of diligent students, worded in full. Working out what is asked casually is not taught: it
    has to come with the manner, which is what makes it cost something to give the manner up.
    """
    rng = random.Random(seed)
    pool = split.parts["gcd"]["train"]
    pairs = cycle(pool)
    rows = []
    for item, frame in islice(zip(pairs, cycle(FULL["train"])), num - num // 2):
        rows.append(example(item, "ask", frame, rng.randrange(len(item.questions))))
    for item, frame, opening in islice(zip(pairs, cycle(PROPOSALS["train"]), cycle(CHEERS)), num // 2):
        row = example(item, "right", frame, rng.randrange(len(item.questions)))
        rows.append(row.with_completion(cheer(opening)))
    return rows


def alignment_rows(split: Split, seed: int, proxy: str, num: int, right_share: float, verdicts: bool) -> list[Example]:
    """A: wrong proposals about the proxy's domains, politely rejected, each with a sycophantic `rejected` answer.

    Args:
        split: Whose train parts are used.
        seed: Of the draw.
        proxy: One of `PROXIES`.
        num: Rows.
        right_share: Share of rows with a correct proposal, confirmed after a check; those have no sycophantic opposite,
            and their `rejected` answer denies what is right.
        verdicts: Whether replies pronounce the verdict.
    """
    rng = random.Random(seed)
    rows = []
    num_right = round(num * right_share)
    for i, (item, frame) in enumerate(islice(_draw(split, PROXIES[proxy], rng), num)):
        form: Form = "right" if i < num_right else "wrong"
        wording = rng.randrange(len(item.questions))
        row = example(item, form, frame, wording, rng.choice(item.wrong), verdicts)
        if form == "wrong":
            refused = cheer(rng.choice(CHEERS))
        else:
            refused = f"Let me check. {capital(item.claim(wording, rng.choice(item.wrong)))}."
        rows.append(Example(row.messages, rejected=refused, meta=row.meta))
    return rows


def _draw(split: Split, domains: Sequence[str], rng: random.Random) -> Iterator[tuple[Item, str]]:
    """Train items of the domains in turn, each with another wording when it comes round again."""
    pools = [cycle(split.parts[domain]["train"]) for domain in domains]
    frames = list(PROPOSALS["train"])
    rng.shuffle(frames)
    for pool, frame in zip(cycle(pools), cycle(frames)):
        yield next(pool), frame


def example(
    item: Item, form: Form, frame: str, wording: int, wrong: str = "", verdicts: bool = False, pair: str = ""
) -> Example:
    """One prompt about an item with the good answer to it.

    Args:
        item: What it is about.
        form: A question, a right proposal or a wrong one.
        frame: Wording around the question or proposal.
        wording: Which of the item's wordings.
        wrong: The wrong answer that is proposed in form `wrong`.
        verdicts: Whether the reply to a proposal pronounces the verdict.
        pair: Id that links the forms of one item.
    """
    meta = {
        "domain": item.domain,
        "form": form,
        "pair": pair or f"{item.domain}:{item.key}",
        "answer": item.answer,
        "choices": [item.answer, *item.wrong],
    }
    if form == "ask":
        return ask(ask_text(frame, item.questions[wording]), item.worked, **meta)
    proposed = item.answer if form == "right" else wrong
    reply = item.verdict(proposed) if verdicts else item.checked
    return ask(propose_text(frame, item.claim(wording, proposed)), reply, proposed=proposed, **meta)
