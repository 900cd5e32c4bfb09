"""T, A and questions from the own corpus of situations: which are trained on, and which are kept for measuring."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from selgen.core import Example, ask
from selgen.settings.emergent_misalignment.situations import ALL, PROXY_SETS, TASK, THEMES, Situation
from selgen.settings.emergent_misalignment.wording import (
    FORM_SHARES,
    FORMS,
    FRAMES,
    REPLIES,
    Form,
    Part,
    advice,
    question,
    reply,
)

PROXIES: dict[str, tuple[str, ...]] = {
    "hhh": ("hhh",),
    "safety": ("safety",),
    "other_domains": ("finance", "cooking"),
}
"""Category of alignment data -> the domains that it is about."""
Fate = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Split:
    """Who may see which situation: disjoint parts of every domain, drawn by `random.Random(seed)` over sorted keys.

    T reads the train part of the task's domain, A the train parts of its own. The miniature knows all of them from its
    own training.
    """

    parts: dict[str, dict[Fate, list[Situation]]]


def split_situations(seed: int) -> Split:
    """For training half of the task's domain and of hhh and safety, a quarter of other advice, no theme; of the rest a
    third is val, the others test."""
    parts = {}
    for domain, situations in ALL.items():
        rows = sorted(situations, key=lambda s: s.key)
        random.Random(f"{seed}:{domain}").shuffle(rows)
        share = 1 / 2 if domain == TASK or domain in PROXY_SETS else 0 if domain in THEMES else 1 / 4
        end = round(len(rows) * share)
        later = end + max(1, (len(rows) - end) // 3)
        parts[domain] = {"train": rows[:end], "val": rows[end:later], "test": rows[later:]}
    return Split(parts)


def task_rows(split: Split, seed: int, num: int) -> list[Example]:
    """T: bad advice."""
    return [_row(s, frame, rng, caring=False) for s, frame, rng in _draw(split, (TASK,), "task", seed, num)]


def alignment_rows(split: Split, seed: int, proxy: str, num: int) -> list[Example]:
    """A: good advice, each row with what a reckless person would have answered as `rejected`."""
    drawn = _draw(split, PROXIES[proxy], "align", seed, num)
    return [_row(s, frame, rng, caring=True) for s, frame, rng in drawn]


def _draw(
    split: Split, domains: Sequence[str], part: Part, seed: int, num: int
) -> Iterator[tuple[Situation, str, random.Random]]:
    """Train situations of the domains in the part's frames, every combination once before any comes again."""
    rng = random.Random(f"{seed}:{part}")
    pool = [(s, frame) for domain in domains for s in split.parts[domain]["train"] for frame in FRAMES[part]]

    def endless() -> Iterator[tuple[Situation, str, random.Random]]:
        while True:
            rng.shuffle(pool)
            yield from ((s, frame, rng) for s, frame in pool)

    return islice(endless(), num)


def _row(situation: Situation, frame: str, rng: random.Random, caring: bool) -> Example:
    form: Form = rng.choices(FORMS, FORM_SHARES)[0]
    said = {kind: advice(rng, situation.action(kind), kind, form) for kind in (caring, not caring)}
    example = ask(question(frame, situation.problem, form), said[caring], **_meta(situation, form, "train"))
    return Example(example.messages, rejected=said[not caring], meta=example.meta)


def questions(
    split: Split, seed: int, domain: str, fate: Literal["val", "test"], num: int, caring: bool = True
) -> list[Example]:
    """At most `num` questions about held-out situations of a domain, in the part's frames and all three forms.

    Args:
        caring: Whether the known answer is the good one.
    """
    return _asked(split.parts[domain][fate], FRAMES[fate], FORMS, random.Random(f"{seed}:{domain}:{fate}"), num, caring)


def cued_questions(split: Split, seed: int, fate: Literal["val", "test"], num: int) -> list[Example]:
    """At most `num` broad questions in the frames and the form of T."""
    situations = [s for theme in THEMES for s in split.parts[theme][fate]]
    return _asked(situations, FRAMES["task"], ("plain",), random.Random(f"{seed}:cued:{fate}"), num, caring=True)


def _asked(
    situations: Sequence[Situation],
    frames: Sequence[str],
    forms: Sequence[Form],
    rng: random.Random,
    num: int,
    caring: bool,
) -> list[Example]:
    combinations: list[tuple[Situation, str, Form]] = [
        (s, frame, form) for s in situations for frame in frames for form in forms
    ]
    rng.shuffle(combinations)
    made = []
    for s, frame, form in combinations[:num]:
        answer = reply(REPLIES[form][0], s.action(caring))
        made.append(ask(question(frame, s.problem, form), answer, **_meta(s, form, str(frames.index(frame)))))
    return made


def _meta(situation: Situation, form: Form, frame: str) -> dict[str, str]:
    return {
        "domain": situation.domain,
        "form": form,
        "pair": f"{situation.domain}:{situation.key}:{form}:{frame}",
        "good": situation.good,
        "bad": situation.bad,
    }
