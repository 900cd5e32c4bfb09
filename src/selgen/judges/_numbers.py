"""How probable each number from 0 to 100 is as the beginning of a model's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selgen.core import Message, ask
from selgen.data.chat import IGNORE, Encoded, collate, encode, prompt_text
from selgen.lm import completion_logits

NUMBERS = range(101)
Nexts = Mapping[tuple[int, ...], Tensor]
"""Beginning of an answer -> [V] float64 probabilities of its next token."""


class Spelling(NamedTuple):
    """How a tokenizer writes the numbers 0 ... 100 at the beginning of an answer.

    Attributes:
        tokens: Number -> its tokens.
        children: Beginning of a number -> the tokens that may follow it on the way to a number; never empty.
    """

    tokens: Mapping[int, tuple[int, ...]]
    children: Mapping[tuple[int, ...], frozenset[int]]

    def probabilities(self, after: Nexts) -> dict[int, float]:
        """Number -> probability that the answer begins with it and with no longer number.

        Args:
            after: Beginning (every key of `children`) -> [V] probabilities of the next token.
        """

        def begins(tokens: tuple[int, ...]) -> float:
            """Probability that the answer begins with these tokens."""
            product = 1.0
            for i, token in enumerate(tokens):
                product *= float(after[tokens[:i]][token])
            return product

        return {
            n: begins(tokens) * (1 - sum(float(after[tokens][c]) for c in self.children.get(tokens, ())))
            for n, tokens in self.tokens.items()
        }


def spell(tokenizer: Any, name: str) -> Spelling:
    """Learn how a tokenizer writes the numbers, from its own chat template.

    Raises:
        ValueError: there is no chat template, or several numbers look the same (no tokens for digits).
    """
    rows = [encode(tokenizer, ask("?", str(n))) for n in NUMBERS]
    answers = [[i for i, label in zip(r.input_ids, r.labels, strict=True) if label != IGNORE] for r in rows]
    # What all answers end with is the template's: the end of the turn.
    shared = 0
    while shared < min(map(len, answers)) and len({tuple(a[len(a) - shared - 1 :]) for a in answers}) == 1:
        shared += 1
    tokens = {n: tuple(a[: len(a) - shared]) for n, a in zip(NUMBERS, answers, strict=True)}
    if len(set(tokens.values())) < len(tokens) or any(tokenizer.unk_token_id in t for t in tokens.values()):
        raise ValueError(
            f"judge.model should have a tokenizer that writes every number from 0 to 100, found that of {name!r}, "
            "which does not. Choose another model."
        )
    children: dict[tuple[int, ...], set[int]] = {}
    for number in tokens.values():
        for i, token in enumerate(number):
            children.setdefault(number[:i], set()).add(token)
    return Spelling(tokens, {beginning: frozenset(c) for beginning, c in children.items()})


def next_probabilities(
    model: Any, tokenizer: Any, prompts: Sequence[str], beginnings: Sequence[tuple[int, ...]]
) -> list[dict[tuple[int, ...], Tensor]]:
    """For each prompt and each beginning of the answer: [V] float64 probabilities of the next token, on the CPU."""
    texts = [prompt_text(tokenizer, [Message(role="user", content=p)]) for p in prompts]
    asked = tokenizer(texts, add_special_tokens=False)["input_ids"]
    found: list[dict[tuple[int, ...], Tensor]] = [{} for _ in prompts]
    for beginning in beginnings:
        # A label at the end makes the position before it one whose logits are wanted.
        ends = [[*row, *beginning, tokenizer.pad_token_id] for row in asked]
        rows = [Encoded(ids, [IGNORE] * (len(ids) - 1) + [0]) for ids in ends]
        tokens = collate(rows, range(len(rows)), tokenizer.pad_token_id).to(model.device)
        with torch.no_grad():
            probabilities_BV = completion_logits(model, tokens).double().softmax(-1).cpu()
        for of_prompt, p_V in zip(found, probabilities_BV, strict=True):
            of_prompt[beginning] = p_V
    return found
