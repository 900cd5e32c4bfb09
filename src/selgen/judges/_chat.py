"""One request to an OpenAI-compatible chat endpoint, and what can go wrong with it. Never imports torch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import openai

from selgen.core import Judgement
from selgen.judges._reading import TokenLogprob, read

SHOWN = 200
"""Most characters of a server's words in an error."""
RETRIED = {408, 409, 429}
"""Statuses below 500 that may pass."""
STOPPED = {
    401: "Correct the key in the environment variable that judge.key_env names.",
    402: "Pay for more, and start again: what is judged stays judged.",
    404: "Correct judge.model, or judge.base_url (it usually ends in /v1).",
}
"""Statuses that every other request would get too, and the remedy."""


class Fault(Exception):
    """A request without a usable answer.

    Attributes:
        reason: What happened.
        remedy: What the user can do about it.
        retry: Whether it may pass.
        stop: Whether every other request would meet it too.
        absent: Whether nobody answered at all.
        wait: Seconds to wait before the next try, if the server says so.
    """

    def __init__(
        self,
        reason: str,
        remedy: str,
        *,
        retry: bool = False,
        stop: bool = False,
        absent: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
        self.retry, self.stop, self.absent, self.wait = retry, stop, absent, wait


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
    try:
        raw = client.chat.completions.with_raw_response.create(messages=messages, **request)
        return parse(raw.text)
    except Fault:
        raise
    except openai.APIConnectionError as error:
        what = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
        detail = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
        remedy = "Start the server, correct judge.base_url, or raise judge.timeout."
        raise Fault(f"{what}{detail}", remedy, retry=True, absent=True) from error
    except openai.APIStatusError as error:
        raise _status(error) from error
    except Exception as error:  # such as a prompt that is no valid Unicode: that prompt's, not the run's, end
        reason = f"the request could not be made: {type(error).__name__}: {str(error)[:SHOWN]}"
        raise Fault(reason, "Correct judge.extra_body and the other options.") from error


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


def _status(error: openai.APIStatusError) -> Fault:
    """What an HTTP status means for this request and the others."""
    status, reason = error.status_code, str(error)[:SHOWN]
    if status in STOPPED:
        return Fault(reason, STOPPED[status], stop=True)
    if status == 429 and error.code == "insufficient_quota":
        return Fault(reason, STOPPED[402], stop=True)
    if status in RETRIED or status >= 500:
        remedy = "Lower judge.concurrency, or start again later: what is judged stays judged."
        return Fault(reason, remedy, retry=True, wait=retry_after(error.response.headers.get("retry-after")))
    return Fault(
        reason,
        "Correct the options of the judge; a server without log-probabilities or seeds may need top_logprobs: 0 or "
        "seed: null.",
    )


def retry_after(header: str | None) -> float | None:
    """Seconds from the header `Retry-After`, which holds seconds or a date; None if it says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
