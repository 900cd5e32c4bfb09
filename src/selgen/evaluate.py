"""Ask, score, aggregate: what a model says to an eval's prompts, how probable it finds known answers, and what that
comes to. Which scorer reads an eval is looked up by name when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selgen import registry, texts
from selgen.averages import average, samples
from selgen.core import Eval, Judge, Metric, Reference
from selgen.generate import Answers, Generation, generate
from selgen.judging import judge_answers
from selgen.likelihood import answer_nlls, score_likelihoods

NLL = "nll"
"""Raw number that evals may put conditions on: of the answer under the starting model, in nats per token."""


@dataclass(frozen=True)
class Evaluation:
    """What a set of evals came to.

    Attributes:
        metrics: `<eval>.<domain>` -> its mean.
        samples: One JSON-ready dict per prompt, in the order of the evals: `eval, domain, pair, prompt, gold, response,
            value, answer, reason, raw, counted`. `response` is None where nothing was generated, `counted` False where
            the condition (`Eval.given`) did not hold.
    """

    metrics: dict[str, Metric]
    samples: list[dict[str, Any]]


def evaluate(
    model: Any,
    tokenizer: Any,
    evals: Sequence[Eval],
    generation: Generation,
    reference: Reference | None = None,
    judge: Judge | None = None,
    answers: Answers | None = None,
) -> Evaluation:
    """Ask, score and average all evals of one split.

    An eval with `given` counts only items whose pair id passed (every item of that pair scored 1) in the eval named.

    Args:
        reference: What likelihood evals measure closeness to; None if the model is the starting model itself.
        judge: Scores the evals that have judge prompts; None leaves them to their scorers.
        answers: Gives the responses; None generates them. What else is asked of a model is asked of `model` itself.

    Raises:
        ValueError: two evals share a column, an eval names no scorer or quantity, `given` names no eval here, or an
            item of a conditioned eval has no pair id that was asked there.
    """
    check_columns(evals)
    asked = [e for e in evals if e.kind == "generate" and not e.of]
    scores = score_likelihoods(model, tokenizer, [e for e in evals if e.kind == "likelihood"], reference)
    responses = iter(
        (answers or generate)(model, tokenizer, [example for e in asked for example in e.examples], generation)
    )
    said: dict[str, list[str | None]] = {e.column: [None] * len(e.examples) for e in evals}
    judged: list[Eval] = []
    for e in asked:
        given = [next(responses) for _ in e.examples]
        said[e.column] = list(given)
        if judge is not None and e.judge:
            judged.append(e)
        else:
            pairs = list(zip(e.examples, given, strict=True))
            scores[e.column] = registry.load("scorers", e.scorer)().score_many(pairs)
    if judge is not None:
        scores |= judge_answers(judge, judged, said)
    for column, numbers in _own_numbers(model, tokenizer, evals, asked, said, reference).items():
        scores[column] = [replace(s, raw={**s.raw, **own}) for s, own in zip(scores[column], numbers, strict=True)]
    found = average(evals, scores)
    return Evaluation(found.metrics, list(samples(evals, said, found)))


def _own_numbers(
    model: Any,
    tokenizer: Any,
    evals: Sequence[Eval],
    asked: Sequence[Eval],
    said: Mapping[str, Sequence[str | None]],
    reference: Reference | None,
) -> dict[str, list[dict[str, float]]]:
    """For evals on whose answers some rate sets such conditions: what the text itself and the starting model say."""
    wanted: dict[str, set[str]] = {e.column: set() for e in asked}
    for e in evals:
        for column in e.of or (e.column,):
            if column in wanted:
                wanted[column] |= {condition.name for condition in e.rate}
    numbers: dict[str, list[dict[str, float]]] = {}
    for e in asked:
        measures = {name: texts.MEASURES[name] for name in texts.MEASURES if name in wanted[e.column]}
        if measures:
            answers = [str(answer) for answer in said[e.column]]
            numbers[e.column] = [{name: measure(a) for name, measure in measures.items()} for a in answers]
    with_nll = [e for e in asked if NLL in wanted[e.column]]
    answered = [x.with_completion(str(a)) for e in with_nll for x, a in zip(e.examples, said[e.column], strict=True)]
    nlls = iter(answer_nlls(model, tokenizer, answered, reference))
    for e in with_nll:
        rows = numbers.setdefault(e.column, [{} for _ in e.examples])
        for row in rows:
            nll = next(nlls)
            if nll is not None:
                row[NLL] = nll
    return numbers


def check_columns(evals: Sequence[Eval]) -> None:
    """Everything that can be wrong with the evals, before anything is generated."""
    columns = [e.column for e in evals]
    pairs = {e.column: {example.meta.get("pair") for example in e.examples} - {None} for e in evals}
    for e in evals:
        if columns.count(e.column) > 1:
            raise ValueError(f"evals should have different columns, found {e.column!r} twice. Rename one of them.")
        if e.given is None:
            continue
        if e.given not in pairs:
            raise ValueError(
                f"eval {e.column!r} is given {e.given!r}, which is not among the evals {columns}. Add that eval."
            )
        lost = [example.meta.get("pair") for example in e.examples if example.meta.get("pair") not in pairs[e.given]]
        if lost:
            raise ValueError(
                f"eval {e.column!r} is given {e.given!r}, which asks nothing about pair {lost[0]!r} (and "
                f"{len(lost) - 1} others). Give the examples of both evals the same meta.pair."
            )
