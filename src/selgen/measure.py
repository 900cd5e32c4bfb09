"""Measure a model as it is on one split of a setting: a point with its evidence."""

from __future__ import annotations

import time
from typing import Any

from selgen.core import Judge, Reference, Split
from selgen.evaluate import evaluate
from selgen.generate import Generation
from selgen.points import point_values
from selgen.record import Point
from selgen.spec import EPOCHS, RunSpec, make_setting


def measure(
    model: Any,
    tokenizer: Any,
    spec: RunSpec,
    split: Split,
    *,
    step: int = 0,
    epoch: float = 0.0,
    reference: Reference | None = None,
    judge: Judge | None = None,
) -> tuple[Point, list[dict[str, Any]]]:
    """Evaluate a model on a split of the run's setting.

    Args:
        step: Optimizer steps taken so far.
        epoch: Passes over the task set so far.
        reference: What closeness is measured to; None if the model is the starting model itself.
        judge: Of the evals that have judge prompts; None leaves them to their scorers.

    Returns:
        The point, and its samples (lines of `samples.<split>.jsonl`).
    """
    setting, seed = make_setting(spec.setting), spec.training.seed
    evals = setting.evals(seed, split)
    sampling = Generation(**spec.evaluation.model_dump(exclude={"splits"}), seed=seed)
    started = time.perf_counter()
    found = evaluate(model, tokenizer, evals, sampling, reference, judge)
    seconds = time.perf_counter() - started
    point = Point(
        step=step,
        epoch=epoch,
        split=split,
        strength=epoch if spec.strength_name == EPOCHS else spec.strength,
        eval_seconds=seconds,
        **point_values(evals, found.metrics, setting.proxy_domains, spec.covered),
    )
    return point, [{"step": step, **sample} for sample in found.samples]
