"""`choice`: does the response give the right one of several known answers?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selgen.core import Example, Score, Scorer
from selgen.scorers import _text as reading

_CUED = re.compile(r"(?:\b(?:is|are|was|were|be|answer)|[=:])\s*(?:the |an? )?$")


@dataclass(frozen=True)
class Choice(Scorer):
    """1 if the response states `meta["answer"]` as its answer, 0 if it states another known choice or denies it.

    Known choices are `meta["answer"]`, `meta["proposed"]` and `meta["choices"]`, the latter two if present; they are
    found as whole words, whatever their case, article or plural. A choice that is denied ("not Lyon") is not stated.
    Of several stated choices the last one after "is", "=" or "answer" counts, else the last one. Unscored if no known
    choice is named or two are left open ("Lyon or Paris").
    """

    def score_many(self, pairs: Sequence[tuple[Example, str]]) -> list[Score]:
        """One score per pair.

        Raises:
            ValueError: An example has no `meta["answer"]`.
        """
        return [self.score(example, response) for example, response in pairs]

    def score(self, example: Example, response: str) -> Score:
        if "answer" not in example.meta:
            raise ValueError(
                f"meta should hold `answer` for scorer 'choice', found the keys {sorted(example.meta)}. Add the answer."
            )
        answer = str(example.meta["answer"])
        others = [example.meta["proposed"]] if "proposed" in example.meta else []
        known = [answer, *map(str, [*others, *example.meta.get("choices", ())])]
        text = reading.tidy(response)
        reason = reading.unreadable(text)
        if reason is not None:
            return Score(None, reason=reason)
        text = reading.without_questions(text)
        prompt = reading.tidy(example.prompt[-1]["content"]) if example.prompt else ""
        stated: list[tuple[bool, str]] = []
        denied: list[str] = []
        end_before = 0
        for start, end, name in reading.mentions(text, known):
            if stated and name != stated[-1][1] and re.fullmatch(r",? or (?:the |an? )?", text[end_before:start]):
                return Score(None, reason="left open between two answers")
            if reading.negated(text, start, end, prompt):
                denied.append(name)
            else:
                stated.append((_CUED.search(text[:start]) is not None, name))
            end_before = end
        if not stated:
            if answer in denied:
                return Score(0.0, answer=f"not {answer}", reason="denies the right answer")
            return Score(None, reason="no known answer named")
        said = ([name for cued, name in stated if cued] or [name for _, name in stated])[-1]
        return Score(float(reading.phrase(said) == reading.phrase(answer)), answer=said)
