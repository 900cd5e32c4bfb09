"""One request to an OpenAI-compatible chat endpoint, and what can go wrong with it. Never imports torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import openai

from selgen.asking import SHOWN, Fault, Remedies, faults
from selgen.core import Judgement
from selgen.judges._reading import TokenLogprob, read

REMEDIES = Remedies(
    absent="Start the server, correct judge.base_url, or raise judge.timeout.",
    key="Correct the key in the environment variable that judge.key_env names.",
    unpaid="Pay for more, and start again: what is judged stays judged.",
    unknown="Correct judge.model, or judge.base_url (it usually ends in /v1).",
    busy="Lower judge.concurrency, or start again later: what is judged stays judged.",
    refused="Correct the options of the judge; a server without log-probabilities or seeds may need top_logprobs: 0 or "
    "seed: null.",
    unmade="Correct judge.extra_body and the other options.",
)


@dataclass(frozen=True)
class Answer:
    """What the server says.

    Attributes:
        reply: The judge's words.
        sampled: Their first token; empty if the server gives no log-probabilities.
        first: The likeliest first tokens; empty likewise.
        cut: Whether the length limit ended the reply.
        prompt_tokens: As counted by the server; 0 if it does not.
        completion_tokens: Likewise.
    """

    reply: str
    sampled: str
    first: Sequence[TokenLogprob]
    cut: bool
    prompt_tokens: int
    completion_tokens: int

    def judgement(self) -> Judgement:
        return read(self.reply, self.first, sampled=self.sampled, cut=self.cut)


def ask(client: openai.OpenAI, request: Mapping[str, Any], prompt: str) -> Answer:
    """Put one prompt to the endpoint, once.

    Args:
        client: Without retries of its own.
        request: Everything but the messages.
        prompt: The user's turn.

    Raises:
        Fault: there is no usable answer.
    """
    messages: Any = [{"role": "user", "content": prompt}]
    with faults(REMEDIES):
        raw = client.chat.completions.with_raw_response.create(messages=messages, **request)
        return parse(raw.text)


def parse(text: str) -> Answer:
    """Read the body of a chat completion.

    Raises:
        Fault: it is none.
    """
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        reply = choice["message"]["content"] or ""
        positions = (choice.get("logprobs") or {}).get("content") or []
        first = [TokenLogprob(_text(t["token"]), _logprob(t["logprob"])) for t in _likeliest(positions)]
        usage = body.get("usage") or {}
        return Answer(
            reply=_text(reply),
            sampled=_text(positions[0]["token"]) if first else "",
            first=first,
            cut=choice.get("finish_reason") == "length",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Fault(
            f"the server's answer is no chat completion: {text[:SHOWN]!r}",
            "Correct judge.base_url, or look at the server's log.",
            retry=True,
        ) from error


def _likeliest(positions: Sequence[Any]) -> Sequence[Any]:
    return (positions[0].get("top_logprobs") or []) if positions else []


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value


def _logprob(value: Any) -> float:
    if math.isnan(value) or value > 1e-3:
        raise ValueError(f"expected a log-probability, found {value!r}")
    return float(value)
