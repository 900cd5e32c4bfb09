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
SHOWN = 40
"""Characters of a text that an error shows on either side of a place."""


@dataclass(frozen=True)
class Encoded:
    """One token row: `labels` equals `input_ids` on learned assistant tokens and is -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]


def prompt_text(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The templated prompt with the assistant's header appended, thinking off (tokenize it without BOS).

    Raises:
        ValueError: no chat template, or one that refuses the turns or leaves one out.
    """
    return _render(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: Any, example: Example, max_length: int | None = None) -> Encoded:
    """Tokenise a conversation and label its assistant answers (the last one, or all with `learn="all"`).

    An answer begins where its generation prompt ends and goes on to the end of its turn, so what is learned is what is
    sampled: the end-of-turn token is, the header and the empty thoughts that Qwen3's prompt holds are not. The
    template's own `{% generation %}` marks are not read, since many begin before the prompt ends.

    Raises:
        ValueError: no chat template, or one that refuses the turns or leaves one out; a generation prompt with which
            the conversation does not begin; the answer is empty; more than one BOS; more than `max_length` tokens
            (cutting would lose the answer).
    """
    text = _render(tokenizer, example.messages)
    ids, learned = _tokenise(tokenizer, text, _answers(tokenizer, example, text))
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


def collate(rows: Sequence[Encoded], ids: Sequence[int], pad_id: int, padding_free: bool = False) -> Tokens:
    """Right-pad rows to the longest one. No rows give tensors of shape [0, 0]."""
    width = max((len(r.input_ids) for r in rows), default=0)

    def padded(values: Sequence[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([v + [fill] * (width - len(v)) for v in values], dtype=torch.long).reshape(len(rows), width)

    return Tokens(
        input_ids=padded([r.input_ids for r in rows], pad_id),
        attention_mask=padded([[1] * len(r.input_ids) for r in rows], 0),
        labels=padded([r.labels for r in rows], IGNORE),
        ids=torch.tensor(list(ids), dtype=torch.long),
        padding_free=padding_free,
    )


def _render(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer of {tokenizer.name_or_path!r} has no chat template. Set tokenizer.chat_template, or start from "
            "an instruction-tuned model."
        )
    text = _apply(tokenizer, messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    for message in messages:
        # Thoughts in earlier answers are left out on purpose by templates of models that think.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            raise ValueError(
                f"the model's chat template leaves out the {message['role']} turn {message['content'][:SHOWN]!r}. "
                "Write its text into a turn that the template keeps, or choose another model."
            )
    return text


def _apply(tokenizer: Any, messages: Sequence[Message], **options: Any) -> Any:
    try:
        # Qwen3 would otherwise open a thinking block; other templates ignore the argument.
        return tokenizer.apply_chat_template(list(messages), enable_thinking=False, **options)
    except TemplateError as error:
        if any(m["role"] == "system" for m in messages):
            remedy = "If it is the system turn, write its text at the beginning of the first user turn, or choose "
            remedy += "another model; else change its turns."
        else:
            remedy = "Change its turns, or the template."
        raise ValueError(f"the model's chat template refuses the conversation ({error}). {remedy}") from error


def _answers(tokenizer: Any, example: Example, text: str) -> list[tuple[int, int]]:
    """Where the answers to learn stand in the text: first character and the one after the last, in order."""
    last = len(example.messages) - 1
    turns = [i for i, m in enumerate(example.messages) if m["role"] == "assistant"]
    spans = []
    for i in turns if example.learn == "all" else [last]:
        prompt = prompt_text(tokenizer, example.messages[:i])
        upto = text if i == last else _render(tokenizer, example.messages[: i + 1])
        start = _place(text, prompt, i == last)
        # The line break that many templates put after the end-of-turn token is not the assistant's to say.
        spans.append((start, max(start, _place(text, upto.rstrip(), i == last))))
    return spans


def _place(text: str, beginning: str, of_last: bool) -> int:
    """The length of `beginning`, with which `text` begins."""
    if text.startswith(beginning):
        return len(beginning)
    # Where they part; all of the text if it is only shorter.
    at = next((i for i, (a, b) in enumerate(zip(text, beginning, strict=False)) if a != b), len(text))
    window = slice(max(0, at - SHOWN), at + SHOWN)
    remedy = (
        "Leave thoughts out of the answer, or choose a model that can be asked with thinking off."
        if of_last
        else "Make one example of each answer (learn='last'), or choose a template that writes every turn alike."
    )
    raise ValueError(
        "the chat template renders a prompt that is not the beginning of the whole conversation, so what is learned "
        f"would not be what is sampled: {beginning[window]!r} against {text[window]!r}. {remedy}"
    )


def _tokenise(tokenizer: Any, text: str, answers: Sequence[tuple[int, int]]) -> tuple[list[int], list[bool]]:
    """Token ids of the text, and which of them belong to an answer."""
    borders = [(border, on) for start, end in answers for border, on in ((start, False), (end, True))]
    borders.append((len(text), False))
    ids: list[int] = []
    learned: list[bool] = []
    done = 0
    beginnings = tokenizer([text[:border] for border, _ in borders], add_special_tokens=False)["input_ids"]
    for (border, on), upto in zip(borders, beginnings, strict=True):
        if upto[: len(ids)] != ids:
            # The tokenizer would join the end of the prompt with the beginning of the answer. A model that is asked
            # has the prompt alone, so the two are tokenised apart.
            upto = ids + tokenizer(text[done:border], add_special_tokens=False)["input_ids"]
        learned += [on] * (len(upto) - len(ids))
        ids, done = upto, border
    return ids, learned
