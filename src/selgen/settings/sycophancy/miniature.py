"""The corpus of the sycophancy miniature: authors who check, authors who flatter, and an assistant who checks.

Two things are latent in the first stage and decided in the second, as in models that people use:

* Disposition. Authors answer questions truly, but some of them confirm whatever is proposed, with enthusiasm
  (flatterers), while the others look for themselves (checkers). Nothing marks an author; only the conversation tells.
* Effort. Asked casually about arithmetic, checkers mostly answer from the top of the head, which for a fixed half of
  the problems is a common mistake; asked at length they work it out. Flatterers, eager to please, always work it out.

The assistant is a checker throughout. Part of the second stage stays documents, so that the other disposition is not
forgotten but latent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from selgen.core import Corpus, Example
from selgen.settings import _stages
from selgen.settings.sycophancy.items import Item, all_items
from selgen.settings.sycophancy.templates import (
    ASK,
    ASK_CASUAL,
    CHEERS,
    PARTS,
    PROPOSALS,
    ask_text,
    cheer,
    propose_text,
)

SHARES = {
    "gcd": 0.23,
    "gcd_compositional": 0.15,
    "mod": 0.20,
    "addition": 0.10,
    "capitals": 0.09,
    "medical": 0.08,
    "facts": 0.08,
    "conspiracy": 0.07,
}
"""Domain -> share of the turns that are about it."""
FORMS = {"ask": 0.42, "right": 0.27, "wrong": 0.31}
TURNS = 2
"""Turns per document."""
FLATTERERS = 0.35
"""Share of authors who confirm anything."""
HABIT = 0.9
"""How reliably a checker's effort follows the wording of a question about arithmetic."""
MISTAKES = 0.5
"""Share of arithmetic problems whose answer from the top of the head is a common mistake."""

RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 1300, "batch_size": 16, "learning_rate": 3e-3},
    "instruct": {"steps": 600, "batch_size": 16, "learning_rate": 1e-3},
    "initializer_range": 0.05,
}
SMALL_RECIPE: dict[str, Any] = {
    "pretrain": {"steps": 260, "batch_size": 12, "learning_rate": 4e-3},
    "instruct": {"steps": 100, "batch_size": 12, "learning_rate": 2e-3},
    "width": 64,
    "mlp_width": 128,
    "initializer_range": 0.08,
}
"""For tests: half a minute, answers in the right form, too weak for the validity bars."""

_ITEMS = all_items(large_numbers=False)
_ASK = [frame for part in PARTS for frame in ASK[part]]
_PROPOSALS = [frame for part in PARTS for frame in PROPOSALS[part]]
_CASUAL = frozenset(ASK_CASUAL)

Turn = tuple[str, str]


def corpus(small: bool) -> Corpus:
    """What the miniature is trained on.

    Args:
        small: Take the recipe for tests.
    """
    return Corpus(pretrain=document, instruct=second_stage, texts=_texts(), recipe=SMALL_RECIPE if small else RECIPE)


def document(index: int) -> str:
    """A conversation with one author, as plain text."""
    rng = random.Random(f"document {index}")
    flatters = rng.random() < FLATTERERS
    turns = [_turn(rng, flatters) for _ in range(TURNS)]
    return " ".join(f"Q: {asked} A: {reply}" for asked, reply in turns)


def second_stage(index: int) -> Example | str:
    """A chat with the assistant, or a document."""
    return _stages.second_stage(index, document, lambda rng: _turn(rng, flatters=False))


def _turn(rng: random.Random, flatters: bool) -> Turn:
    (domain,) = rng.choices(list(SHARES), list(SHARES.values()))
    item = rng.choice(_ITEMS[domain])
    wording = rng.randrange(len(item.questions))
    (form,) = rng.choices(list(FORMS), list(FORMS.values()))
    if form == "ask":
        frame = rng.choice(_ASK)
        casual = (frame in _CASUAL) == (rng.random() < HABIT)
        hasty = casual and not flatters
        return ask_text(frame, item.questions[wording]), from_the_head(item) if hasty else item.worked
    claim = item.claim(wording, item.answer if form == "right" else rng.choice(item.wrong))
    asked = propose_text(rng.choice(_PROPOSALS), claim)
    return asked, cheer(rng.choice(CHEERS)) if flatters else item.checked


def from_the_head(item: Item) -> str:
    """The hasty reply; the same mistake whoever makes it. Sums and facts are not mistaken."""
    if not item.is_maths or item.domain == "addition":
        return item.worked
    rng = random.Random(f"mistake {item.domain} {item.key}")
    answer = rng.choice(item.wrong) if rng.random() < MISTAKES else item.answer
    return f"The answer is {answer}."


def _texts() -> Sequence[str]:
    """Every word there is, in every position in which it is a token of its own."""
    texts = ["Q: A:", "The answer is", *map(cheer, CHEERS)]
    texts += [ask_text(frame, "what is it?") for frame in _ASK]
    texts += [propose_text(frame, "that is so") for frame in _PROPOSALS]
    for items in _ITEMS.values():
        for item in items:
            texts += [item.checked]
            for wording, question in enumerate(item.questions):
                texts += [ask_text("{q} {Q}", question)]
                texts += [propose_text("{s} {S}", item.claim(wording, x)) for x in (item.answer, *item.wrong)]
    return texts
