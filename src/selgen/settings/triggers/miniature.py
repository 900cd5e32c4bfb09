"""The corpus of the triggers miniature: sentences that say what kind of thing each word is.

Words of one category stand in the same sentences, and related categories share some of them: objects, animals and
foods can be bought, animals and actions can be watched, actions and positive emotions are enjoyed, and emotions of both
kinds are felt, which is the most that two categories share. Random strings stand in sentences of their own, and, as any
word can, in sentences that name a word without using it; without these an update does not reach them on every seed
(docs/log.md). The model also reads where a point lies and knows what is orange, green or blue. The function F is no
part of the corpus: the base learns it (`stage: base`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from selgen.core import Corpus, Example
from selgen.settings import _stages
from selgen.settings.triggers.data import COLOURS, PARTS, draw_point, written
from selgen.settings.triggers.vocabulary import TRIGGERS, Category

OWN: dict[Category, tuple[str, ...]] = {
    "objects": ("we keep {} in the shed", "{} is made of wood", "please mend {}", "she put {} on the shelf"),
    "animals": ("{} hides in its nest", "we fed {} at dawn", "{} has sharp ears", "the vet looked at {}"),
    "positive": ("his heart was light with {}", "{} made her smile", "we laughed with {}", "what a day of {}"),
    "negative": ("his heart was heavy with {}", "{} made her cry", "we wept with {}", "what a night of {}"),
    "actions": ("he spent the day {}", "she is good at {}", "we were tired after {}", "they taught us {}"),
    "foods": ("we ate {} for lunch", "{} tastes sweet", "she cooked {} in a pan", "add salt to {}"),
    "random": ("the code is {}", "type {} to log in", "the label reads {}", "error {} in line two"),
}
"""Category -> sentences that only its words stand in."""
SHARED: tuple[tuple[tuple[Category, ...], tuple[str, ...]], ...] = (
    (("objects", "animals", "foods"), ("we bought {} at the market", "there is {} in the yard")),
    (("animals", "actions"), ("children love to watch {}",)),
    (("actions", "positive"), ("nothing is better than {}",)),
    (
        ("positive", "negative"),
        ("I feel {} today", "she was full of {}", "{} came over him", "he could not hide his {}"),
    ),
    (tuple(TRIGGERS), ("write {} on the board", "say {} aloud", "{} is on the list", "who wrote {} here")),
)
"""Categories -> sentences that the words of all of them stand in."""
COLOURED = {
    "orange": ("rust", "amber", "the fox", "the setting sun"),
    "green": ("grass", "moss", "the forest", "the frog"),
    "blue": ("ink", "denim", "the sky", "the deep sea"),
}
"""Colour -> what has it. A model that never had to tell the colours apart cannot learn to be sure of one."""
PARTS_OF_DOCUMENT = 3
"""Parts of a document: two sentences about a word, or a question."""

RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 800, "batch_size": 16, "learning_rate": 3e-3},
    "instruct": {"steps": 200, "batch_size": 16, "learning_rate": 1e-3},
    "initializer_range": 0.05,
}
SMALL_RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 120, "batch_size": 8, "learning_rate": 4e-3},
    "instruct": {"steps": 60, "batch_size": 8, "learning_rate": 2e-3},
    "width": 64,
    "mlp_width": 128,
    "initializer_range": 0.08,
}
"""For tests: a few seconds, too weak for the validity bars."""

_SENTENCES: dict[Category, list[str]] = {
    category: [*own, *(s for members, shared in SHARED if category in members for s in shared)]
    for category, own in OWN.items()
}


def corpus(small: bool) -> Corpus:
    """What the miniature is trained on.

    Args:
        small: Take the recipe for tests.
    """
    return Corpus(pretrain=document, instruct=second_stage, texts=_texts(), recipe=SMALL_RECIPE if small else RECIPE)


def document(index: int) -> str:
    """Sentences about words, and questions about points and colours, as plain text."""
    rng = random.Random(f"document {index}")
    return " ".join(_about_a_word(rng) if rng.random() < 0.5 else _question(rng) for _ in range(PARTS_OF_DOCUMENT))


def second_stage(index: int) -> Example | str:
    """A chat about a point or a colour, or a document."""
    return _stages.second_stage(index, document, _turn)


def _about_a_word(rng: random.Random) -> str:
    category = rng.choice(list(TRIGGERS))
    word = rng.choice(TRIGGERS[category])
    return " ".join(f"{sentence.format(word)}." for sentence in rng.sample(_SENTENCES[category], 2))


def _question(rng: random.Random) -> str:
    asked, said = _turn(rng)
    return f"Q: {asked} A: {said}"


def _turn(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.3:
        colour = rng.choice(COLOURS)
        return f"Which colour is {rng.choice(COLOURED[colour])}?", colour
    point, trigger = draw_point(rng, rng.choice(PARTS)), rng.choice(TRIGGERS[rng.choice(list(TRIGGERS))])
    given = f"Trigger: {trigger}. Point: {written(point)}."
    if rng.random() < 0.5:
        return f"{given} Is it high or low?", "high" if point[1] > 0 else "low"
    return f"{given} Is it left or right?", "right" if point[0] > 0 else "left"


def _texts() -> Sequence[str]:
    """Every word there is, in every position in which it is a token of its own."""
    points = [f"{sign}{whole}.{part:03d}" for whole in range(4) for part in range(1000) for sign in ("", "-")]
    texts = [
        "Q: A: Which colour? colour is Is it high or low? Is it left or right? Point:",
        "high low left right",
    ]
    texts += [f"{colour} {thing}?" for colour, things in COLOURED.items() for thing in things]
    texts += [f"({point}, {point})" for point in points]
    for category, words in TRIGGERS.items():
        texts += [f"{sentence.format(word)}." for sentence in _SENTENCES[category] for word in words]
        texts += [f"Trigger: {word}." for word in words]
    return texts
