"""Score a model by the probability that it gives to known answers: held-out evaluation that needs no grader.

Quantities (`Eval.scorer` of an eval of kind `likelihood`), each in [0, 1] per example, higher is better:

    likelihood      exp(-NLL), the geometric mean probability of the answer's tokens; raw: `nll_nats`, per token
    token_accuracy  share of the answer's tokens that are the model's first choice
    closeness       exp(-KL(model || reference)) over the answer's tokens; raw: `kl_nats`, per token
    preference      1 if the answer is likelier per token than the `rejected` one, else 0; raw: `margin_nats`, per token
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selgen.core import Eval, Example, Reference, Score, Tokens
from selgen.data.chat import Encoded, collate, encode, encode_all
from selgen.lm import check_head, chunk_tokens, completion_hidden, eval_mode, head, sequence_logprobs
from selgen.maths.divergence import kl_from_logits

ROWS = 16
"""Rows per forward pass."""


@dataclass(frozen=True)
class Reading:
    """What a forward pass says about one answer, averaged over its tokens.

    Attributes:
        nll: Negative log-likelihood, nats per token.
        accuracy: Share of tokens that are the model's first choice.
        kl: KL(model || reference), nats per token; 0 for the reference itself.
        num_tokens: Tokens of the answer, its end token included.
    """

    nll: float
    accuracy: float
    kl: float
    num_tokens: int


def score_likelihoods(
    model: Any, tokenizer: Any, evals: Sequence[Eval], reference: Reference | None = None
) -> dict[str, list[Score]]:
    """Scores of every eval, by column, in the order of its examples.

    Args:
        evals: Of kind `likelihood`.
        reference: What `closeness` is measured from; None if the model is the reference itself.

    Raises:
        ValueError: an eval names no quantity of this module, or asks for `preference` without a `rejected` answer;
            answers that cannot be encoded, all of them.
    """
    if not evals:
        return {}
    for e in evals:
        if e.scorer not in QUANTITIES:
            raise ValueError(
                f"scorer of eval {e.column!r} should be one of {', '.join(QUANTITIES)} for kind 'likelihood', found "
                f"{e.scorer!r}. Use one of them, or kind 'generate'."
            )
        if e.scorer == "preference" and any(x.rejected is None for x in e.examples):
            raise ValueError(f"eval {e.column!r} needs a `rejected` answer in every example. Leave out those without.")
    asked = [x for e in evals for x in e.examples]
    asked += [_refused(x) for e in evals if e.scorer == "preference" for x in e.examples]
    different = list({_key(x): x for x in asked}.values())
    found = dict(zip(map(_key, different), read(model, tokenizer, different, reference), strict=True))
    return {e.column: [QUANTITIES[e.scorer](x, found) for x in e.examples] for e in evals}


def read(model: Any, tokenizer: Any, examples: Sequence[Example], reference: Reference | None = None) -> list[Reading]:
    """One `Reading` per example; the model's modes are the same before and after."""
    rows = encode_all(tokenizer, examples, name="eval")
    readings: dict[int, Reading] = {}
    with torch.no_grad(), eval_mode(model):
        for batch, tokens in _batches(model, tokenizer, rows):
            if not readings:
                check_head(model, tokens)
            counts = tokens.predicts_BT.sum(1).tolist()
            parts = zip(batch, *(x_n.split(counts) for x_n in _per_token(model, tokens, reference)), strict=True)
            for i, nll, right, kl in parts:
                readings[i] = Reading(nll.mean().item(), right.mean().item(), kl.mean().item(), len(nll))
    return [readings[i] for i in range(len(examples))]


def answer_nlls(
    model: Any, tokenizer: Any, examples: Sequence[Example], reference: Reference | None = None
) -> list[float | None]:
    """Negative log-likelihood of each example's last answer under the starting model, in nats per token.

    Args:
        model: The model, or what stands in for the starting model if `reference` is None.
        examples: The same answer to the same prompt is read once; an empty answer has none, nor has a sampled text
            that the chat template cannot hold as an answer.
    """
    said: dict[Key, Encoded] = {}
    for x in examples:
        if _key(x) not in said and x.completion.strip():
            with suppress(ValueError):
                said[_key(x)] = encode(tokenizer, x)
    if not said:
        return [None] * len(examples)
    rows = list(said.values())
    keys, found = list(said), {}
    with torch.no_grad(), eval_mode(model):
        for batch, tokens in _batches(model, tokenizer, rows):
            logprobs_B = sequence_logprobs(model, tokens) if reference is None else reference.logprobs(tokens)
            for i, logprob, count in zip(batch, logprobs_B.tolist(), tokens.predicts_BT.sum(1).tolist(), strict=True):
                found[keys[i]] = -logprob / count
    return [found.get(_key(x)) for x in examples]


def _batches(model: Any, tokenizer: Any, rows: Sequence[Encoded]) -> Iterator[tuple[list[int], Tokens]]:
    """Indices of rows and their tokens, `ROWS` at a time; rows of about the same length together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    for start in range(0, len(order), ROWS):
        batch = order[start : start + ROWS]
        yield batch, collate([rows[i] for i in batch], batch, tokenizer.pad_token_id).to(model.device)


def _per_token(model: Any, tokens: Tokens, reference: Reference | None) -> tuple[Tensor, ...]:
    """[n] each: negative log-likelihood in nats, whether the token is the first choice, divergence in nats.

    Logits exist for one chunk of tokens at a time: a large vocabulary makes them gigabytes for all rows.
    """
    hidden_nD = completion_hidden(model, tokens)
    ref_hidden_nD = hidden_nD if reference is None else reference.hidden(tokens)
    chunks = []
    split = (x.split(chunk_tokens(model)) for x in (hidden_nD, ref_hidden_nD, tokens.targets_n))
    for h_nD, ref_h_nD, targets_n in zip(*split, strict=True):
        logits_nV = head(model)(h_nD).float()
        nll_n = F.cross_entropy(logits_nV, targets_n, reduction="none")
        right_n = (logits_nV.argmax(-1) == targets_n).float()
        kl_n = torch.zeros_like(nll_n)
        if reference is not None:
            kl_n = kl_from_logits(logits_nV, reference.head(ref_h_nD))
        chunks.append((nll_n, right_n, kl_n))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


Key = tuple[tuple[tuple[str, str], ...], str]
Found = dict[Key, Reading]


def _key(example: Example) -> Key:
    return tuple((m["role"], m["content"]) for m in example.messages), example.learn


def _refused(example: Example) -> Example:
    return example.with_completion(str(example.rejected))


def _likelihood(example: Example, found: Found) -> Score:
    own = found[_key(example)]
    reason = f"{own.nll:.3f} nats per token over {own.num_tokens} tokens"
    return Score(math.exp(-own.nll), reason=reason, raw={"nll_nats": own.nll})


def _token_accuracy(example: Example, found: Found) -> Score:
    return Score(found[_key(example)].accuracy)


def _closeness(example: Example, found: Found) -> Score:
    # Rounding can make the divergence of almost equal distributions slightly negative.
    kl = max(found[_key(example)].kl, 0.0)
    return Score(math.exp(-kl), reason=f"{kl:.3f} nats per token", raw={"kl_nats": kl})


def _preference(example: Example, found: Found) -> Score:
    margin = found[_key(_refused(example))].nll - found[_key(example)].nll
    return Score(
        float(margin > 0),
        answer="aligned" if margin > 0 else "misaligned",
        reason=f"aligned likelier by {margin:.3f} nats per token",
        raw={"margin_nats": margin},
    )


QUANTITIES: dict[str, Callable[[Example, Found], Score]] = {
    "likelihood": _likelihood,
    "token_accuracy": _token_accuracy,
    "closeness": _closeness,
    "preference": _preference,
}
