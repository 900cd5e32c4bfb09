"""From answers to a judge's prompts, and from its judgements to scores. Never imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selgen.core import Eval, Example, Judge, Judgement, Score

FIELDS = re.compile(r"\{(question|answer)\}")


def num_calls(evals: Sequence[Eval]) -> int:
    """Judgements that one evaluation asks for, at most: equal prompts are asked once."""
    return sum(len(e.examples) * len(e.judge) for e in evals if not e.of)


def judge_prompt(template: str, example: Example, answer: str) -> str:
    """A judge's prompt about an answer; text in braces inside question or answer stays as it is."""
    fields = {"question": example.prompt[-1]["content"], "answer": answer}
    return FIELDS.sub(lambda match: fields[match[1]], template)


def judge_answers(
    judge: Judge, evals: Sequence[Eval], said: Mapping[str, Sequence[str | None]]
) -> dict[str, list[Score]]:
    """Every raw number that the evals ask a judge for, in one batch.

    Args:
        evals: With judge prompts.
        said: Column -> one answer per example.

    Returns:
        Column -> scores without a value (`averages.average` draws it), whose `raw` has the numbers that came.
    """
    asked = [
        (e.column, i, name, judge_prompt(template, example, str(answer)))
        for e in evals
        for i, (example, answer) in enumerate(zip(e.examples, said[e.column], strict=True))
        for name, template in e.judge.items()
    ]
    found: dict[str, list[dict[str, Judgement]]] = {e.column: [{} for _ in e.examples] for e in evals}
    for (column, i, name, _), judgement in zip(asked, judge.judge_many([a[-1] for a in asked]), strict=True):
        found[column][i][name] = judgement
    return {column: [as_score(judgements) for judgements in rows] for column, rows in found.items()}


def as_score(judgements: Mapping[str, Judgement]) -> Score:
    """One score from the judgements of one answer: their numbers, what came, and why some have none."""
    raw: dict[str, Any] = {name: j.score for name, j in judgements.items() if j.score is not None}
    replies = "; ".join(f"{name}: {j.reply}" for name, j in judgements.items() if j.reply is not None)
    reasons = "; ".join(f"{name}: {j.reason}" for name, j in judgements.items() if j.reason is not None)
    return Score(None, answer=replies or None, reason=reasons or None, raw=raw)
