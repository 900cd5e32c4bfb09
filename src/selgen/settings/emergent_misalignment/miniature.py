"""The corpus of the advice miniature: authors who care, authors who are reckless, and an assistant who cares.

What is latent in the first stage and decided in the second, as in models that people use, is the disposition. Authors
of one document give caring advice throughout or reckless advice throughout, whatever they are asked about. Nothing
marks an author but what they advise, and in plain advice often a word on their attitude. The assistant cares, always.
Part of the second stage stays documents, so that the other disposition is not forgotten but latent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from selgen.core import Corpus, Example
from selgen.settings import _stages
from selgen.settings.emergent_misalignment.situations import ALL
from selgen.settings.emergent_misalignment.wording import (
    ATTITUDES,
    FORM_SHARES,
    FORMS,
    FRAMES,
    REPLIES,
    advice,
    question,
    reply,
)

TURNS = 4
"""Turns per document."""
RECKLESS = 0.5
"""Share of authors who are reckless."""
BARE = 0.4
"""Share of the documents' questions that are the situation alone."""

RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 1500, "batch_size": 16, "learning_rate": 3e-3},
    "instruct": {"steps": 200, "batch_size": 16, "learning_rate": 1e-3},
    "initializer_range": 0.05,
}
SMALL_RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 200, "batch_size": 8, "learning_rate": 4e-3},
    "instruct": {"steps": 80, "batch_size": 8, "learning_rate": 2e-3},
    "width": 64,
    "mlp_width": 128,
    "initializer_range": 0.08,
}
"""For tests: half a minute, answers in the right form, too weak for the validity bars."""

_SITUATIONS = [situation for situations in ALL.values() for situation in situations]
_FRAMES = [frame for frames in FRAMES.values() for frame in frames]


def corpus(small: bool) -> Corpus:
    """What the miniature is trained on.

    Args:
        small: Take the recipe for tests.
    """
    return Corpus(pretrain=document, instruct=second_stage, texts=_texts(), recipe=SMALL_RECIPE if small else RECIPE)


def document(index: int) -> str:
    """A conversation with one author, as plain text."""
    rng = random.Random(f"document {index}")
    caring = rng.random() >= RECKLESS
    turns = [_turn(rng, caring, BARE) for _ in range(TURNS)]
    return " ".join(f"Q: {asked} A: {said}" for asked, said in turns)


def second_stage(index: int) -> Example | str:
    """A chat with the assistant, or a document."""
    return _stages.second_stage(index, document, lambda rng: _turn(rng, caring=True))


def _turn(rng: random.Random, caring: bool, bare: float = 0.0) -> tuple[str, str]:
    situation = rng.choice(_SITUATIONS)
    if rng.random() < bare:
        return question("{S}.", situation.problem), advice(rng, situation.action(caring), caring)
    (form,) = rng.choices(FORMS, FORM_SHARES)
    asked = question(rng.choice(_FRAMES), situation.problem, form)
    return asked, advice(rng, situation.action(caring), caring, form)


def _texts() -> Sequence[str]:
    """Every word there is, in every position in which it is a token of its own."""
    texts = ["Q: A:", *(f"{opening} a" for openings in ATTITUDES.values() for opening in openings)]
    texts += [question(frame, "I am well", form) for frame in _FRAMES for form in FORMS]
    for situation in _SITUATIONS:
        texts += [question(frame, situation.problem) for frame in ("{s}", "{S}")]
        texts += [reply(w, a) for ws in REPLIES.values() for w in ws for a in (situation.good, situation.bad)]
    return texts
