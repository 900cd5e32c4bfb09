"""Measure a model as it is on one split of a setting: a point with its evidence."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from selgen.core import Axis, Eval, Metric, Reference, Split
from selgen.evaluate import axes, evaluate, is_mostly_unread
from selgen.generate import Generation
from selgen.record import Measured, Point
from selgen.spec import EPOCHS, RunSpec, make_setting

Y_AXES: tuple[Axis, ...] = ("task", "capability")
"""What `score_y` is the mean of."""


def measure(
    model: Any,
    tokenizer: Any,
    spec: RunSpec,
    split: Split,
    *,
    step: int = 0,
    epoch: float = 0.0,
    reference: Reference | None = None,
) -> tuple[Point, list[dict[str, Any]]]:
    """Evaluate a model on a split of the run's setting.

    Args:
        step: Optimizer steps taken so far.
        epoch: Passes over the task set so far.
        reference: What closeness is measured to; None if the model is the starting model itself.

    Returns:
        The point, and its samples (lines of `samples.<split>.jsonl`).
    """
    setting, seed = make_setting(spec.setting), spec.training.seed
    evals = setting.evals(seed, split)
    sampling = Generation(**spec.evaluation.model_dump(exclude={"splits"}), seed=seed)
    started = time.perf_counter()
    found = evaluate(model, tokenizer, evals, sampling, reference)
    seconds = time.perf_counter() - started
    values = {k: _measured(m) for k, m in axes(evals, found.metrics, setting.proxy_domains).items()}
    point = Point(
        step=step,
        epoch=epoch,
        split=split,
        strength=epoch if spec.strength_name == EPOCHS else spec.strength,
        eval_seconds=seconds,
        axes=values,
        score_y=_score_y(evals, values),
        metrics={column: _measured(m) for column, m in found.metrics.items()},
    )
    return point, [{"step": step, **sample} for sample in found.samples]


def remarks(points: Sequence[Point]) -> list[str]:
    """Evals of which more than a tenth of the responses could not be scored."""
    found = []
    for point in points:
        for column, m in point.metrics.items():
            if is_mostly_unread(Metric(m.value, m.n, m.unscored, m.stderr)):
                found.append(f"step {point.step}, {point.split}, {column}: {m.unscored} answers could not be scored")
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
