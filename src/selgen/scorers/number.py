"""`number`: is the number that the response gives as its answer the right one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from selgen.core import Example, Score, Scorer
from selgen.scorers import _text as reading


@dataclass(frozen=True)
class Number(Scorer):
    """1 if the number stated as the answer is right, 0 if it is another, unscored if there is none.

    Right is `meta["answer"]`, or else the number that the completion states. The stated number is the last one that
    follows an answer cue ("so 17 mod 5 is 2"); a response without a cue is read at its last number, unless it only
    repeats numbers of the prompt, which is no answer.
    """

    def score_many(self, pairs: Sequence[tuple[Example, str]]) -> list[Score]:
        """One score per pair.

        Raises:
            ValueError: An example has no number to compare with, in `meta["answer"]` or in its completion.
        """
        return [self.score(example, response) for example, response in pairs]

    def score(self, example: Example, response: str) -> Score:
        prompt = reading.tidy(example.prompt[-1]["content"]) if example.prompt else ""
        text = reading.tidy(response)
        reason = reading.unreadable(text)
        if reason is not None:
            return Score(None, reason=reason)
        found = read_number(text, prompt)
        if found is None:
            return Score(None, reason="no number stated")
        return Score(float(found == gold_number(example, prompt)), answer=f"{found:f}")


def gold_number(example: Example, prompt: str) -> Decimal:
    """The right number of an example; `prompt` is tidied."""
    if "answer" in example.meta:
        gold = reading.as_number(str(example.meta["answer"]))
        if gold is None:
            raise ValueError(
                f"meta.answer should be a number for scorer 'number', found {example.meta['answer']!r}. "
                "Use scorer 'choice' for answers that are words."
            )
        return gold
    gold = read_number(reading.tidy(example.completion), prompt)
    if gold is None:
        raise ValueError(
            f"an example for scorer 'number' should state a number, found completion {example.completion!r}. "
            'Give the answer in meta["answer"].'
        )
    return gold


def read_number(text: str, prompt: str) -> Decimal | None:
    """The number that `text` answers `prompt` with (both tidied), or None."""
    text = reading.without_questions(text)
    stated = reading.stated_numbers(text, prompt)
    if stated:
        return stated[-1].value
    found = reading.numbers(text)
    if not found or ("=" not in text and set(found) <= set(reading.numbers(prompt))):
        return None
    return found[-1]
