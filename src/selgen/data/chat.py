"""Chat messages to token rows whose labels cover assistant answers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError

from selgen.core import Example, Message, Tokens

IGNORE = -100
MAX_NAMED = 20
"""Most examples that an error names one by one."""


@dataclass(frozen=True)
class Encoded:
    """One token row: `labels` equals `input_ids` on learned assistant tokens and is -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The templated prompt with the assistant's header appended, ready for generation (tokenize it without BOS)."""
    return _render(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: Any, example: Example, max_length: int | None = None) -> Encoded:
    """Tokenise a conversation and label its assistant answers (the last one, or all with `learn="all"`).

    Templates with `{% generation %}` marks say themselves which tokens are the assistant's. For others the span is
    the difference between the text up to the answer and the text with it, which must start with the former.

    Raises:
        ValueError: no chat template; the prompt is not a prefix of the conversation; the answer is empty; more than
            one BOS; more than `max_length` tokens (cutting would lose the answer).
    """
    if "{% generation" in (tokenizer.chat_template or "") or "{%- generation" in (tokenizer.chat_template or ""):
        ids, learned = _by_marks(tokenizer, example)
    else:
        ids, learned = _by_prefix(tokenizer, example)
    if not any(learned):
        raise ValueError(f"example has an empty assistant answer: {example.messages[-1]!r}. Give it a text to learn.")
    bos = tokenizer.bos_token_id
    if bos is not None and bos != tokenizer.eos_token_id and ids.count(bos) > 1:
        raise ValueError("example has more than one BOS token. Remove the BOS from the message text.")
    if max_length is not None and len(ids) > max_length:
        raise ValueError(
            f"example has {len(ids)} tokens, more than max_length={max_length}, so its answer would be cut. "
            "Raise training.max_length or shorten it."
        )
    return Encoded(ids, [i if on else IGNORE for i, on in zip(ids, learned, strict=True)])


def encode_all(
    tokenizer: Any, examples: Sequence[Example], max_length: int | None = None, name: str = "data"
) -> list[Encoded]:
    """`encode` every example.

    Raises:
        ValueError: some cannot be encoded; all are named at once, by number from 1 and their first words.
    """
    rows, problems = [], []
    for i, example in enumerate(examples, 1):
        try:
            rows.append(encode(tokenizer, example, max_length))
        except ValueError as error:
            problems.append(f"{name} example {i} ({example.messages[0]['content'][:40]!r}): {error}")
    if problems:
        more = [f"... and {len(problems) - MAX_NAMED} more."] if len(problems) > MAX_NAMED else []
        raise ValueError("\n".join([*problems[:MAX_NAMED], *more]))
    return rows


def collate(rows: Sequence[Encoded], ids: Sequence[int], pad_id: int) -> Tokens:
    """Right-pad rows to the longest one. No rows give tensors of shape [0, 0]."""
    width = max((len(r.input_ids) for r in rows), default=0)

    def padded(values: Sequence[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([v + [fill] * (width - len(v)) for v in values], dtype=torch.long).reshape(len(rows), width)

    return Tokens(
        input_ids=padded([r.input_ids for r in rows], pad_id),
        attention_mask=padded([[1] * len(r.input_ids) for r in rows], 0),
        labels=padded([r.labels for r in rows], IGNORE),
        ids=torch.tensor(list(ids), dtype=torch.long),
    )


def _render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer of {tokenizer.name_or_path!r} has no chat template. Set tokenizer.chat_template, or start from "
            "an instruction-tuned model."
        )
    return _apply(tokenizer, messages, tokenize=False, add_generation_prompt=add_generation_prompt)


def _apply(tokenizer: Any, messages: Sequence[Message], **options: Any) -> Any:
    try:
        # Qwen3 would otherwise open a thinking block; other templates ignore the argument.
        return tokenizer.apply_chat_template(list(messages), enable_thinking=False, **options)
    except TemplateError as error:
        raise ValueError(
            f"the model's chat template refuses the conversation ({error}). Change its turns, or the template."
        ) from error


def _by_marks(tokenizer: Any, example: Example) -> tuple[list[int], list[bool]]:
    out = _apply(tokenizer, example.messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    learned = [bool(m) for m in out["assistant_masks"]]
    if example.learn == "last":
        end = len(learned) - learned[::-1].index(True) if any(learned) else 0
        start = end
        while start > 0 and learned[start - 1]:
            start -= 1
        learned = [start <= i < end for i in range(len(learned))]
    return list(out["input_ids"]), learned


def _by_prefix(tokenizer: Any, example: Example) -> tuple[list[int], list[bool]]:
    text = _render(tokenizer, example.messages)
    turns = [i for i, m in enumerate(example.messages) if m["role"] == "assistant"]
    spans = []
    for i in turns if example.learn == "all" else turns[-1:]:
        before = _render(tokenizer, example.messages[:i], add_generation_prompt=True)
        upto = _render(tokenizer, example.messages[: i + 1])
        if not (upto.startswith(before) and text.startswith(upto.rstrip())):
            raise ValueError(
                "the chat template renders a prompt that is not the beginning of the whole conversation, so the "
                f"assistant's answer cannot be located: {before[-60:]!r} against {upto[: len(before)][-60:]!r}. "
                "Add {% generation %} marks to tokenizer.chat_template."
            )
        # The line break that many templates put after the end-of-turn token is not the assistant's to say.
        spans.append((len(before), len(upto.rstrip())))
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    learned = [any(a <= s and e <= b and s < e for a, b in spans) for s, e in out["offset_mapping"]]
    return list(out["input_ids"]), learned
