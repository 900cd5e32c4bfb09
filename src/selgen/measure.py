"""Measure a model as it is on one split of a setting; and how far its alignment data lie from what is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import torch

from selgen.core import Eval, Example, Judge, Reference, Split
from selgen.data.chat import Encoded, prompt_text
from selgen.evaluate import evaluate
from selgen.generate import Answers, Generation
from selgen.lm import mean_hidden
from selgen.maths.hidden import centred_cosine_distances
from selgen.points import point_values
from selgen.record import Point
from selgen.spec import EPOCHS, RunSpec, make_setting

MAX_PROMPTS = 64
"""Most prompts that stand for a domain, or for the alignment data: enough for a mean, and a matter of seconds."""


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
    answers: Answers | None = None,
) -> tuple[Point, list[dict[str, Any]]]:
    """Evaluate a model on a split of the run's setting.

    Args:
        step: Optimizer steps taken so far.
        epoch: Passes over the task set so far.
        reference: What closeness is measured to; None if the model is the starting model itself.
        judge: Of the evals that have judge prompts; None leaves them to their scorers.
        answers: Gives the responses that are scored; None generates them.

    Returns:
        The point, and its samples (lines of `samples.<split>.jsonl`).
    """
    setting, seed = make_setting(spec.setting), spec.training.seed
    evals = setting.evals(seed, split)
    sampling = Generation(**spec.evaluation.model_dump(exclude={"splits", "endpoint"}), seed=seed)
    started = time.perf_counter()
    found = evaluate(model, tokenizer, evals, sampling, reference, judge, answers)
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


def semantic_distances(model: Any, tokenizer: Any, align: Sequence[Example], evals: Sequence[Eval]) -> dict[str, float]:
    """How far the prompts of the alignment data lie from those of each evaluated domain, in a model's own terms.

    A set of prompts is the mean of the model's last hidden states, over the tokens of each prompt (with the header of
    the answer to come) and then over prompts; the distance is that of `maths.hidden.centred_cosine_distances`.

    Args:
        model: The starting model.
        align: Rows of A.
        evals: Of one split. A domain's prompts are those of evals that measure alignment there, or elsewhere under the
            same name (which has a domain too whose own alignment data are not in use); else of its task or capability.

    Returns:
        Domain -> distance in [0, 2]. Empty without alignment rows, or with fewer than two domains that answer prompts.
    """
    domains = _domain_prompts(evals)
    if not align or len(domains) < 2:
        return {}
    own_D, *others = (_mean_of(model, tokenizer, prompts) for prompts in (list(align), *domains.values()))
    found = centred_cosine_distances(own_D, torch.stack(others))
    return {domain: d for domain, d in zip(domains, found, strict=True) if d is not None}


def _domain_prompts(evals: Sequence[Eval]) -> dict[str, list[Example]]:
    asked = [e for e in evals if e.kind == "generate" and not e.of and e.examples]
    names = {e.name for e in asked if e.axis == "alignment"}
    covered = {e.domain for e in asked if e.name in names}
    found: dict[str, list[Example]] = {}
    for e in asked:
        if e.name in names or (e.axis is not None and e.domain not in covered):
            found.setdefault(e.domain, []).extend(e.examples)
    return found


def _mean_of(model: Any, tokenizer: Any, examples: Sequence[Example]) -> torch.Tensor:
    """[D] what a set of prompts is to the model: at most `MAX_PROMPTS` different ones, spread over the set."""
    prompts = list({json.dumps(e.prompt, sort_keys=True): e.prompt for e in examples}.values())
    num = min(len(prompts), MAX_PROMPTS)
    texts = [prompt_text(tokenizer, prompts[i * len(prompts) // num]) for i in range(num)]
    rows = [Encoded(ids, ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    return mean_hidden(model, rows, tokenizer.pad_token_id)
