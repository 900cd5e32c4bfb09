"""What a point says, from the means of a split: columns, axes, score_y and remarks. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from selgen.averages import axes, is_mostly_unread
from selgen.core import Axis, Eval, Metric
from selgen.record import Measured, Point

Y_AXES: tuple[Axis, ...] = ("task", "capability")
"""What `score_y` is the mean of."""


def point_values(
    evals: Sequence[Eval], metrics: Mapping[str, Metric], proxy_domains: frozenset[str], covered: Iterable[str] = ()
) -> dict[str, Any]:
    """The measured fields of a `Point`: `axes`, `score_y` and `metrics`.

    Args:
        metrics: Column -> mean, for every eval.
        proxy_domains: Domains that the alignment data covers.
        covered: Domains that some alignment data of the sweep covers: left out of the alignment axis too.
    """
    left_in = [e for e in evals if e.axis != "alignment" or e.domain in proxy_domains or e.domain not in set(covered)]
    values = {name: _measured(m) for name, m in axes(left_in, metrics, proxy_domains).items()}
    return {
        "axes": values,
        "score_y": _score_y(evals, values),
        "metrics": {column: _measured(m) for column, m in metrics.items()},
    }


def remarks(points: Sequence[Point], judged: Sequence[Eval] = ()) -> list[str]:
    """Evals of which more than a tenth of the responses could not be scored.

    Args:
        judged: Of a run with a judge, its evals: of those with judge prompts the remark says how to ask again.
    """
    found = []
    asked = {e.column for e in judged if e.judge}
    asked |= {e.column for e in judged if asked & set(e.of)}
    for point in points:
        for column, m in point.metrics.items():
            if is_mostly_unread(Metric(m.value, m.n, m.unscored, m.stderr)):
                where = point.split if point.step is None else f"step {point.step}, {point.split}"
                remedy = "; selgen judge OUT asks the judge again" if column in asked else ""
                found.append(f"{where}, {column}: {m.unscored} answers could not be scored{remedy}")
    return found


def _measured(metric: Metric) -> Measured:
    return Measured(
        value=metric.value, n=metric.n, unscored=metric.unscored, stderr=metric.stderr, raw=dict(metric.raw)
    )


def _score_y(evals: Sequence[Eval], values: Mapping[str, Measured]) -> float | None:
    """Mean of those of task and capability that the setting has; None if one of them could not be measured."""
    had = {e.axis for e in evals}
    parts = [values[axis].value for axis in Y_AXES if axis in had]
    known = [value for value in parts if value is not None]
    return sum(known) / len(known) if known and len(known) == len(parts) else None
