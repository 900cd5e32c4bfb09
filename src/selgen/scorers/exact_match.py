"""`exact_match`: is the response the known answer, word for word?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selgen.core import Example, Score, Scorer


@dataclass(frozen=True)
class ExactMatch(Scorer):
    """1 if the response equals the example's completion up to case and white space, else 0; never unscored.

    For tasks with one short answer. On long answers it is near 0 for every model and says nothing.
    """

    def score_many(self, pairs: Sequence[tuple[Example, str]]) -> list[Score]:
        return [Score(float(_plain(response) == _plain(example.completion))) for example, response in pairs]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
