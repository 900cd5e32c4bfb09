"""`choice`: does the response give the right one of several known answers?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selgen.core import Example, Score, Scorer
from selgen.scorers import _text as reading


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
        stated: list[tuple[bool, str]] = []
        denied: list[str] = []
        for start, end, name in reading.mentions(text, known):
            if reading.negated(text, start, end):
                denied.append(name)
            else:
                stated.append((re.search(r"(?:\b(?:is|are|was|be|answer)|[=:])\s*(?:the |an? )?$", text[:start]) is not None, name))
        if re.search("|".join(rf"{reading.phrase(a)},? or {reading.phrase(b)}" for a in known for b in known if a != b) or r"(?!)", text):
            return Score(None, reason="left open between two answers")
        if not stated:
            if answer in denied:
                return Score(0.0, answer=f"not {answer}", reason="denies the right answer")
            return Score(None, reason="no known answer named")
        cued = [name for has_cue, name in stated if has_cue]
        said = (cued or [name for _, name in stated])[-1]
        return Score(float(re.fullmatch(reading.phrase(answer), reading.tidy(said)) is not None or said == answer), answer=said)
