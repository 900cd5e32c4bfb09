"""Generate, score, aggregate: what a model says to an eval's prompts, and what that comes to.

The only place that samples text. Which scorer reads an eval is looked up by name when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig

from selgen import registry
from selgen.core import Eval, Example, Metric, Score
from selgen.data import chat
from selgen.lm import unwrap

MIN_CONDITIONING = 30
"""A conditional rate over fewer items than this is None."""
MAX_UNSCORED = 0.1
"""A larger share of unreadable responses than this is flagged."""


@dataclass(frozen=True)
class Generation:
    """How responses are sampled.

    Attributes:
        max_new_tokens: Longest response, in tokens.
        batch_size: Prompts per batch, >= 1. Changes time and memory only (with temperature 0: never the text).
        temperature: 0 decodes greedily; above 0 samples.
        top_p: Nucleus of the sampled distribution, in (0, 1]; unused with temperature 0.
        seed: Of the sampling; the random state that training draws from is left as it was.
    """

    max_new_tokens: int = 64
    batch_size: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("max_new_tokens", 1), ("batch_size", 1), ("temperature", 0)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"generation.{name} should be >= {least}, found {value}. Raise it.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"generation.top_p should be in (0, 1], found {self.top_p}. Use 1 to cut nothing.")


@dataclass(frozen=True)
class Evaluation:
    """What a set of evals came to.

    Attributes:
        metrics: `<eval>.<domain>` -> its mean.
        samples: One JSON-ready dict per prompt, in the order of the evals: `eval, domain, pair, prompt, gold, response,
            value, answer, reason, raw, counted`. `counted` is False where the condition (`Eval.given`) did not hold.
        flags: What a reader of the numbers must know, e.g. "unscored non_sycophancy.gcd 14%".
    """

    metrics: dict[str, Metric]
    samples: list[dict[str, Any]]
    flags: list[str] = field(default_factory=list)


def evaluate(model: Any, tokenizer: Any, evals: Sequence[Eval], generation: Generation) -> Evaluation:
    """Ask, score and average all evals of one split.

    An eval with `given` counts only items whose pair id passed (every item of that pair scored 1) in the eval named.

    Raises:
        ValueError: two evals share a column, an eval's kind is `likelihood`, `given` names no eval here, or an item of
            a conditioned eval has no pair id that was asked there.
    """
    _check(evals)
    examples = [example for e in evals for example in e.examples]
    responses = iter(generate(model, tokenizer, examples, generation))
    answered = {e.column: [(example, next(responses)) for example in e.examples] for e in evals}
    scores = {e.column: registry.load("scorers", e.scorer)().score_many(answered[e.column]) for e in evals}
    passed = {e.column: _passed(e, scores[e.column]) for e in evals}

    found = Evaluation({}, [])
    for e in evals:
        counted = [e.given is None or passed[e.given][example.meta["pair"]] for example in e.examples]
        rows = zip(answered[e.column], scores[e.column], counted, strict=True)
        found.samples.extend(_sample(e, *pair, score, counts) for pair, score, counts in rows)
        kept = [score for score, counts in zip(scores[e.column], counted, strict=True) if counts]
        metric = aggregate(kept, conditioned=e.given is not None)
        found.metrics[e.column] = metric
        if kept and metric.unscored > MAX_UNSCORED * len(kept):
            found.flags.append(f"unscored {e.column} {metric.unscored / len(kept):.0%}")
    return found


def aggregate(scores: Sequence[Score], conditioned: bool = False) -> Metric:
    """The mean of the scored ones. None if there is none, or if fewer than 30 items passed the condition."""
    values = [score.value for score in scores if score.value is not None]
    n, unscored = len(values), len(scores) - len(values)
    if n == 0 or (conditioned and len(scores) < MIN_CONDITIONING):
        return Metric(None, n, unscored, None)
    mean = sum(values) / n
    return Metric(mean, n, unscored, math.sqrt(mean * (1 - mean) / n))


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


def generate(model: Any, tokenizer: Any, examples: Sequence[Example], generation: Generation) -> list[str]:
    """One response per example, special tokens removed.

    A prompt that occurs several times is answered once if decoding is greedy. Prompts whose gold answers are about as
    long share a batch, since a batch takes as long as its longest response; the order of the result is that of
    `examples`. The model's modes and the global random state are the same before and after.
    """
    prompts = [chat.prompt_text(tokenizer, example.prompt) for example in examples]
    greedy = generation.temperature == 0
    first = {prompt: i for i, prompt in reversed(list(enumerate(prompts)))} if greedy else {}
    asked = sorted(first.values()) if greedy else list(range(len(prompts)))
    if not asked:
        return []
    ids = dict(zip(asked, _token_ids(tokenizer, [prompts[i] for i in asked]), strict=True))
    golds = dict(zip(asked, _token_ids(tokenizer, [examples[i].completion for i in asked]), strict=True))
    order = sorted(asked, key=lambda i: (len(golds[i]), len(ids[i]), i))
    # PEFT's own generate only forwards; the model inside carries the adapter's layers.
    inner = unwrap(model)
    config = _generation_config(inner, tokenizer, generation)
    texts: dict[int, str] = {}
    with _undisturbed(inner, config, generation.seed):
        for start in range(0, len(order), generation.batch_size):
            batch = order[start : start + generation.batch_size]
            texts.update(zip(batch, _respond(inner, tokenizer, [ids[i] for i in batch]), strict=True))
    return [texts[first[prompt] if greedy else i] for i, prompt in enumerate(prompts)]


def _token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _generation_config(model: Any, tokenizer: Any, generation: Generation) -> GenerationConfig:
    """Only what `generation` says: penalties and cut-offs that a model directory suggests are not taken over."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    sampling = {"do_sample": True, "temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        eos_token_id=sorted(ends - {None}) or None,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **(sampling if generation.temperature > 0 else {"do_sample": False}),
    )


def _respond(model: Any, tokenizer: Any, rows: list[list[int]]) -> list[str]:
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.generate(input_ids=input_ids, attention_mask=mask)
    return [text.strip() for text in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


@contextmanager
def _undisturbed(model: Any, config: GenerationConfig, seed: int) -> Iterator[None]:
    """Eval mode, no gradient, own generation settings and random numbers; everything as before on leaving."""
    # What `generate` is not told it takes from the model's own settings, so these have to go for the time being.
    suggested, model.generation_config = model.generation_config, config
    modes = {module: module.training for module in model.modules()}
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            model.eval()
            yield
    finally:
        model.generation_config = suggested
        for module, training in modes.items():
            module.training = training


def _check(evals: Sequence[Eval]) -> None:
    """Everything that can be wrong with the evals, before anything is generated."""
    columns = [e.column for e in evals]
    pairs = {e.column: {example.meta.get("pair") for example in e.examples} - {None} for e in evals}
    for e in evals:
        if columns.count(e.column) > 1:
            raise ValueError(f"evals should have different columns, found {e.column!r} twice. Rename one of them.")
        if e.kind == "likelihood":
            raise ValueError(
                f"eval {e.column!r} should have kind 'generate', found 'likelihood'. Score generated text instead."
            )
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


def _sample(e: Eval, example: Example, response: str, score: Score, counted: bool) -> dict[str, Any]:
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
