"""The second stage of a two-stage miniature: an assistant, and some of the first stage's documents."""

from __future__ import annotations

import random
from collections.abc import Callable

from selgen.core import Example, ask

KEPT = 0.4
"""Share of the second stage that stays documents of the first."""
DOCUMENTS_AFTER = 10_000_000
"""Index from which the second stage takes its documents, so that they are new ones."""


def second_stage(
    index: int, document: Callable[[int], str], turn: Callable[[random.Random], tuple[str, str]]
) -> Example | str:
    """A chat with the assistant, or a document; a pure function of the index.

    Args:
        document: Index -> document of the first stage.
        turn: What is asked and what the assistant answers.
    """
    rng = random.Random(f"second stage {index}")
    if rng.random() < KEPT:
        return document(DOCUMENTS_AFTER + index)
    return ask(*turn(rng))
