"""Sample text from a model, without disturbing it. The only place that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from selgen.adapters import folded
from selgen.core import Example, Message, ask
from selgen.data import chat
from selgen.lm import eval_mode, unwrap


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


Answers = Callable[[Any, Any, Sequence[Example], Generation], list[str]]
"""One response per example, of a model with its tokenizer: `generate`, or what stands in for it."""


@dataclass(frozen=True)
class Questions:
    """What has to be asked to answer examples.

    Attributes:
        rows: Index of an example -> token ids of its prompt, in the order in which they are best asked: those whose
            gold answers are about as long are neighbours.
        asked_for: Of each example, the index in `rows` under which it is asked.
    """

    rows: Mapping[int, list[int]]
    asked_for: Sequence[int]

    def spread(self, texts: Mapping[int, str]) -> list[str]:
        """One text per example, from one for each of `rows`."""
        return [texts[i] for i in self.asked_for]


def questions(tokenizer: Any, examples: Sequence[Example], generation: Generation) -> Questions:
    """The prompts of examples, each once if decoding is greedy."""
    prompts = [chat.prompt_text(tokenizer, example.prompt) for example in examples]
    if generation.temperature == 0:
        first = {prompt: i for i, prompt in reversed(list(enumerate(prompts)))}
        asked_for = [first[prompt] for prompt in prompts]
    else:
        asked_for = list(range(len(prompts)))
    asked = sorted(set(asked_for))
    if not asked:
        return Questions({}, [])
    ids = dict(zip(asked, _token_ids(tokenizer, [prompts[i] for i in asked]), strict=True))
    golds = dict(zip(asked, _token_ids(tokenizer, [examples[i].completion for i in asked]), strict=True))
    order = sorted(asked, key=lambda i: (len(golds[i]), len(ids[i]), i))
    return Questions({i: ids[i] for i in order}, asked_for)


def generate(model: Any, tokenizer: Any, examples: Sequence[Example], generation: Generation) -> list[str]:
    """One response per example, special tokens removed.

    A prompt that occurs several times is answered once if decoding is greedy. Prompts whose gold answers are about as
    long share a batch, since a batch takes as long as its longest response; the order of the result is that of
    `examples`. The model's modes and the global random state are the same before and after.
    """
    asked = questions(tokenizer, examples, generation)
    if not asked.rows:
        return []
    order = list(asked.rows)
    # PEFT's own generate only forwards; the model inside carries the adapter's layers.
    inner = unwrap(model)
    config = _generation_config(inner, tokenizer, generation)
    texts: dict[int, str] = {}
    with folded(model), _undisturbed(inner, config, generation.seed):
        for start in range(0, len(order), generation.batch_size):
            batch = order[start : start + generation.batch_size]
            texts.update(zip(batch, _respond(inner, tokenizer, [asked.rows[i] for i in batch]), strict=True))
    return asked.spread(texts)


def answer(model: Any, tokenizer: Any, messages: Sequence[Message], generation: Generation) -> str:
    """The next assistant turn of a conversation."""
    asked = Example((*messages, Message(role="assistant", content="")))
    return generate(model, tokenizer, [asked], generation)[0]


def _token_ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def _generation_config(model: Any, tokenizer: Any, generation: Generation) -> GenerationConfig:
    """Only what `generation` says: penalties and cut-offs that a model directory suggests are not taken over."""
    sampling = {"do_sample": True, "temperature": generation.temperature, "top_p": generation.top_p, "top_k": 0}
    return GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        eos_token_id=end_tokens(model, tokenizer) or None,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        **(sampling if generation.temperature > 0 else {"do_sample": False}),
    )


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a response, rising."""
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id} | _learned_end(tokenizer)
    return sorted(ends - {None})


def as_text(tokenizer: Any, rows: Any) -> list[str]:
    """Responses as text, from their token ids."""
    return [text.strip() for text in tokenizer.batch_decode(rows, skip_special_tokens=True)]


def _learned_end(tokenizer: Any) -> set[int]:
    """The special token that training teaches a model to end with, which its own settings need not name."""
    try:
        labels = chat.encode(tokenizer, ask("?", "x")).labels
    except ValueError:  # with a template that cannot be trained on nothing was learned
        return set()
    last = next(i for i in reversed(labels) if i != chat.IGNORE)
    return {last} & set(tokenizer.added_tokens_decoder)


def _respond(model: Any, tokenizer: Any, rows: list[list[int]]) -> list[str]:
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    out = model.generate(input_ids=input_ids, attention_mask=mask)
    return as_text(tokenizer, out[:, width:])


@contextmanager
def _undisturbed(model: Any, config: GenerationConfig, seed: int) -> Iterator[None]:
    """Eval mode, no gradient, own generation settings and random numbers; everything as before on leaving."""
    # What `generate` is not told it takes from the model's own settings, so these have to go for the time being.
    suggested, model.generation_config = model.generation_config, config
    devices = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode(), eval_mode(model):
            torch.manual_seed(seed)
            yield
    finally:
        model.generation_config = suggested
