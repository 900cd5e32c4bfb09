"""From scores to means: rates drawn from raw numbers, conditioned means, and the axes. Never imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selgen.core import Condition, Eval, Metric, Score

MIN_CONDITIONING = 30
"""A conditional rate over fewer items than this is None."""
MAX_UNSCORED = 0.1
"""A larger share of unreadable responses than this is flagged."""


def drawn(score: Score, rate: Sequence[Condition]) -> Score:
    """The score with the value that a rate gives its raw numbers: 0 if a condition fails, else None if one lacks its
    number, else 1. Without conditions the score as it is."""
    if not rate:
        return score
    held = [condition.holds(score.raw) for condition in rate]
    if False in held:
        return replace(score, value=0.0)
    return replace(score, value=None if None in held else 1.0)


@dataclass(frozen=True)
class Averaged:
    """What the scores of a split come to, by column.

    Attributes:
        scores: With the values that rates give them.
        counted: Whether a score joins the mean: its condition (`Eval.given`) held.
        metrics: The means.
    """

    scores: dict[str, list[Score]]
    counted: dict[str, list[bool]]
    metrics: dict[str, Metric]


def average(evals: Sequence[Eval], scores: Mapping[str, Sequence[Score]]) -> Averaged:
    """Draw every eval's rate from the raw numbers and average.

    Args:
        evals: Of one split.
        scores: Column -> one score per example, for every eval that asks something (those without `of`).
    """
    of = {e.column: [s for column in e.of or (e.column,) for s in scores[column]] for e in evals}
    values = {e.column: [drawn(score, e.rate) for score in of[e.column]] for e in evals}
    passed = {e.column: _passed(e, values[e.column]) for e in evals}
    found = Averaged(values, {}, {})
    for e in evals:
        counted = [True] * len(values[e.column])
        if e.given is not None:
            counted = [passed[e.given][example.meta["pair"]] for example in e.examples]
        kept = [score for score, counts in zip(values[e.column], counted, strict=True) if counts]
        found.counted[e.column] = counted
        found.metrics[e.column] = aggregate(kept, conditioned=e.given is not None)
    return found


def samples(
    evals: Sequence[Eval], said: Mapping[str, Sequence[str | None]], found: Averaged
) -> Iterator[dict[str, Any]]:
    """One JSON-ready dict per answer, in the order of the evals; those with `of` have none of their own.

    Args:
        said: Column -> one answer per example, None where nothing was generated.
        found: What the scores came to.
    """
    for e in evals:
        if e.of:
            continue
        rows = zip(e.examples, said[e.column], found.scores[e.column], found.counted[e.column], strict=True)
        for example, response, score, counted in rows:
            yield {
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


def _passed(e: Eval, scores: Sequence[Score]) -> dict[str, bool]:
    """Pair id -> whether every item of that pair scored 1."""
    passed: dict[str, bool] = {}
    # An eval that takes over other evals' answers asks nothing itself and conditions nothing.
    for example, score in zip(e.examples, scores if e.examples else (), strict=True):
        if "pair" in example.meta:
            pair = example.meta["pair"]
            passed[pair] = passed.get(pair, True) and score.value == 1
    return passed


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


def _mean(parts: Sequence[Metric]) -> Metric:
    n, unscored = sum(m.n for m in parts), sum(m.unscored for m in parts)
    values = [m.value for m in parts if m.value is not None]
    errors = [m.stderr for m in parts if m.stderr is not None]
    if not parts or len(values) < len(parts):
        return Metric(None, n, unscored, None)
    stderr = math.sqrt(sum(e * e for e in errors)) / len(parts) if len(errors) == len(parts) else None
    return Metric(sum(values) / len(parts), n, unscored, stderr)
