"""Ask, score, aggregate: what a model says to an eval's prompts, how probable it finds known answers, and what that
comes to. Which scorer reads an eval is looked up by name when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selgen import registry
from selgen.core import Eval, Example, Metric, Reference, Score
from selgen.generate import Generation, generate
from selgen.likelihood import score_likelihoods

MIN_CONDITIONING = 30
"""A conditional rate over fewer items than this is None."""
MAX_UNSCORED = 0.1
"""A larger share of unreadable responses than this is flagged."""


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
    model: Any, tokenizer: Any, evals: Sequence[Eval], generation: Generation, reference: Reference | None = None
) -> Evaluation:
    """Ask, score and average all evals of one split.

    An eval with `given` counts only items whose pair id passed (every item of that pair scored 1) in the eval named.

    Args:
        reference: What likelihood evals measure closeness to; None if the model is the starting model itself.

    Raises:
        ValueError: two evals share a column, an eval names no scorer or quantity, `given` names no eval here, or an
            item of a conditioned eval has no pair id that was asked there.
    """
    _check(evals)
    asked = [e for e in evals if e.kind == "generate"]
    scores = score_likelihoods(model, tokenizer, [e for e in evals if e.kind == "likelihood"], reference)
    responses = iter(generate(model, tokenizer, [example for e in asked for example in e.examples], generation))
    said: dict[str, list[str | None]] = {e.column: [None] * len(e.examples) for e in evals}
    for e in asked:
        answers = [next(responses) for _ in e.examples]
        said[e.column] = list(answers)
        scores[e.column] = registry.load("scorers", e.scorer)().score_many(list(zip(e.examples, answers, strict=True)))
    passed = {e.column: _passed(e, scores[e.column]) for e in evals}

    found = Evaluation({}, [])
    for e in evals:
        counted = [e.given is None or passed[e.given][example.meta["pair"]] for example in e.examples]
        rows = zip(e.examples, said[e.column], scores[e.column], counted, strict=True)
        found.samples.extend(_sample(e, *row) for row in rows)
        kept = [score for score, counts in zip(scores[e.column], counted, strict=True) if counts]
        found.metrics[e.column] = aggregate(kept, conditioned=e.given is not None)
    return found


def aggregate(scores: Sequence[Score], conditioned: bool = False) -> Metric:
    """The mean of the scored ones. None if there is none, or if fewer than 30 items passed the condition."""
    values = [score.value for score in scores if score.value is not None]
    n, unscored = len(values), len(scores) - len(values)
    if n == 0 or (conditioned and len(scores) < MIN_CONDITIONING):
        return Metric(None, n, unscored, None)
    mean = sum(values) / n
    variance = max(sum(v * v for v in values) / n - mean * mean, 0.0)  # of a rate: mean (1 - mean)
    return Metric(
        mean, n, unscored, math.sqrt(variance / n), _raw_means([s.raw for s in scores if s.value is not None])
    )


def _raw_means(raws: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    names = [name for name, value in raws[0].items() if isinstance(value, int | float)]
    shared = [name for name in names if all(isinstance(raw.get(name), int | float) for raw in raws)]
    return {name: sum(raw[name] for raw in raws) / len(raws) for name in shared}


def is_mostly_unread(metric: Metric) -> bool:
    """Whether more than a tenth of the responses could not be scored, which a reader of the mean must know."""
    return metric.unscored > MAX_UNSCORED * (metric.n + metric.unscored)


def axes(evals: Sequence[Eval], metrics: Mapping[str, Metric], proxy_domains: frozenset[str]) -> dict[str, Metric]:
    """Task, capability, alignment and proxy: each the mean over its domains, which weigh the same.

    Args:
        metrics: Column -> mean, for every eval that has an axis.
        proxy_domains: Alignment domains that the alignment data covers: averaged into `proxy` instead.

    Returns:
        Per axis the mean (None if the axis has no domain here or a domain's mean is None), the total n and unscored,
        and the standard error of the mean of independent domains.
    """
    members: dict[str, dict[str, list[Metric]]] = {name: {} for name in ("task", "capability", "alignment", "proxy")}
    for e in evals:
        if e.axis is not None:
            axis = "proxy" if e.axis == "alignment" and e.domain in proxy_domains else e.axis
            members[axis].setdefault(e.domain, []).append(metrics[e.column])
    return {axis: _mean([_mean(m) for m in domains.values()]) for axis, domains in members.items()}


def _check(evals: Sequence[Eval]) -> None:
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


def _passed(e: Eval, scores: Sequence[Score]) -> dict[str, bool]:
    """Pair id -> whether every item of that pair scored 1."""
    passed: dict[str, bool] = {}
    for example, score in zip(e.examples, scores, strict=True):
        if "pair" in example.meta:
            pair = example.meta["pair"]
            passed[pair] = passed.get(pair, True) and score.value == 1
    return passed


def _sample(e: Eval, example: Example, response: str | None, score: Score, counted: bool) -> dict[str, Any]:
    return {
        "eval": e.name,
        "domain": e.domain,
        "pair": example.meta.get("pair"),
        "prompt": [dict(message) for message in example.prompt],
        "gold": example.completion,
        "response": response,
        "value": score.value,
        "answer": score.answer,
        "reason": score.reason,
        "raw": dict(score.raw),
        "counted": counted,
    }


def _mean(parts: Sequence[Metric]) -> Metric:
    n, unscored = sum(m.n for m in parts), sum(m.unscored for m in parts)
    values = [m.value for m in parts if m.value is not None]
    errors = [m.stderr for m in parts if m.stderr is not None]
    if not parts or len(values) < len(parts):
        return Metric(None, n, unscored, None)
    stderr = math.sqrt(sum(e * e for e in errors)) / len(parts) if len(errors) == len(parts) else None
    return Metric(sum(values) / len(parts), n, unscored, stderr)
