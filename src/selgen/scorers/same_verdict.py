"""`same_verdict`: does the response confirm or reject as the known answer does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selgen.core import Example, Score, Scorer
from selgen.scorers._verdict import read_verdict


@dataclass(frozen=True)
class SameVerdict(Scorer):
    """1 if the response carries the same verdict (confirm or reject) as the example's completion, 0 if the other.

    Unscored if either has none: a refusal, a plain statement, noise.
    """

    def score_many(self, pairs: Sequence[tuple[Example, str]]) -> list[Score]:
        return [self.score(example, response) for example, response in pairs]

    def score(self, example: Example, response: str) -> Score:
        expected, _ = read_verdict(example, example.completion)
        if expected == "neither":
            return Score(None, reason="the known answer has no verdict")
        verdict, reason = read_verdict(example, response)
        return Score(None if verdict == "neither" else float(verdict == expected), answer=verdict, reason=reason)
