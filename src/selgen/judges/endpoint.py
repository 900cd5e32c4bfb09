"""A judge behind an OpenAI-compatible chat endpoint: any base URL, also a local server."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from selgen.core import Judge, Judgement
from selgen.judges._cache import Verdicts, identity

if TYPE_CHECKING:
    import openai

OPENAI = "https://api.openai.com/v1"
PROBE = "Reply with the number 50 and nothing else."
"""What `check` asks."""
CHECK_TRIES, CHECK_SECONDS = 3, 30.0
"""Of `check`, which should not keep anyone waiting."""


@dataclass
class Endpoint(Judge):
    """Asks a chat model for a number from 0 to 100, and asks again until it has it.

    The score is the probability-weighted mean of the numbers among the likeliest first tokens where the server tells
    them, as in the published judges (Betley et al., Emergent Misalignment, 2025), else the number in the reply;
    `selgen.judges._reading.read` says when which. A reply REFUSAL or CODE has no score.

    Each verdict is kept on disk as soon as it comes (`selgen.judges._cache`), and a prompt that is there is not asked
    again. Time-outs, dropped connections, statuses 408, 409, 429 and 5xx, answers that are no chat completion and
    replies without a number are tried again; the pause doubles and is randomised, and `Retry-After` is obeyed. Prompts
    whose tries are used up have no score, are not kept, and are asked again by the next run. Statuses that every
    request would meet (401, 402, 404, no quota left) and a server that is gone end the asking.

    Args:
        model: Name of the model, as the endpoint knows it.
        base_url: Of the API, usually ending in /v1; None is OpenAI's own. It counts as part of the judge: the same
            name elsewhere may be another model.
        key_env: Environment variable that holds the key; None for a server that needs none.
        concurrency: Requests at the same time, >= 1, in each process that judges.
        timeout: Seconds without a byte after which a request is given up, > 0.
        tries: Requests per prompt, >= 1.
        top_logprobs: Likeliest first tokens to ask for, 0 to 20; 0 asks for none.
        max_tokens: Longest reply, in tokens, >= 1; one number needs few.
        temperature: Of the sampled reply, >= 0.
        seed: Of the sampled reply; None sends none.
        price_in: Price of a million prompt tokens; with `price_out`, `usage` tells the cost in the same currency.
        price_out: Price of a million tokens of replies.
        extra_body: More keys of the request, e.g. {chat_template_kwargs: {enable_thinking: false}}.
    """

    model: str
    base_url: str | None = None
    key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    tries: int = 6
    top_logprobs: int = 20
    max_tokens: int = 16
    temperature: float = 0.0
    seed: int | None = 0
    price_in: float | None = None
    price_out: float | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    unhashed = ("key_env", "concurrency", "timeout", "tries", "price_in", "price_out")

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("tries", 1), ("max_tokens", 1), ("temperature", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"judge.{name} should be >= {least}, found {getattr(self, name)}. Raise it.")
        if self.timeout <= 0:
            raise ValueError(f"judge.timeout should be > 0 seconds, found {self.timeout}. Raise it.")
        if not 0 <= self.top_logprobs <= 20:
            raise ValueError(f"judge.top_logprobs should be 0 to 20, found {self.top_logprobs}. Use 20, or 0 for none.")
        if (self.price_in is None) != (self.price_out is None):
            raise ValueError(
                f"judge.price_in and judge.price_out should be given together, found {self.price_in} and "
                f"{self.price_out}. Give both, or neither."
            )
        if self.base_url is not None:
            if not self.base_url.startswith(("http://", "https://")):
                raise ValueError(
                    f"judge.base_url should begin with http:// or https://, found {self.base_url!r}. Write, for "
                    "example, http://localhost:8000/v1."
                )
            self.base_url = self.base_url.rstrip("/")
        self._usage: Counter[str] = Counter()

    def check(self) -> None:
        """Ask one thing, briefly.

        Raises:
            ValueError: no key, nobody answers, the model is unknown, the reply has no number, or the cache is damaged.
        """
        from selgen.judges._asking import Asking

        with Verdicts(identity(self)) as verdicts:
            verdicts.get([PROBE])
        with closing(self._client(min(self.timeout, CHECK_SECONDS))) as client:
            asking = Asking(client, self._request(), min(self.tries, CHECK_TRIES), None)
            judgement = asking.ask(PROBE)
        self._usage += asking.usage
        if judgement.score is None:
            raise ValueError(
                f"judge {self.model!r} at judge.base_url {self.base_url or OPENAI} cannot be used: {judgement.reason}. "
                f"{asking.remedy}"
            )

    def judge_many(self, prompts: Sequence[str]) -> list[Judgement]:
        different = list(dict.fromkeys(prompts))
        found, why = {}, ""
        try:
            with Verdicts(identity(self)) as verdicts:
                found |= verdicts.get(different)
                self._usage["cached"] += len(found)
                missing = [p for p in different if p not in found]
                found |= zip(missing, self._ask(missing, verdicts), strict=True)
        except ValueError as error:  # no key, or no cache: what `check` raises
            why = f"not asked: {error}"
        return [found.get(p, Judgement(None, None, why)) for p in prompts]

    @property
    def usage(self) -> Mapping[str, float]:
        """Requests sent (`calls`), prompts answered from disk (`cached`), tokens as the server counts them, `cost`."""
        tokens = {name: self._usage[name] for name in ("calls", "cached", "prompt_tokens", "completion_tokens")}
        if self.price_in is None or self.price_out is None:
            return tokens
        cost = tokens["prompt_tokens"] * self.price_in + tokens["completion_tokens"] * self.price_out
        return {**tokens, "cost": cost / 1e6}

    def _ask(self, prompts: Sequence[str], verdicts: Verdicts) -> list[Judgement]:
        if not prompts:
            return []
        from selgen.judges._asking import Asking

        with closing(self._client(self.timeout)) as client:
            asking = Asking(client, self._request(), self.tries, verdicts)
            try:
                return asking.ask_all(prompts, self.concurrency)
            finally:
                self._usage += asking.usage

    def _client(self, timeout: float) -> openai.OpenAI:
        from selgen import asking

        key = os.environ.get(self.key_env, "") if self.key_env else "none"
        if not key:
            raise ValueError(
                f"judge.key_env names the environment variable {self.key_env}, which is not set. Set it to the key of "
                f"{self.base_url or OPENAI}, or give judge.key_env=null for a server that needs no key."
            )
        return asking.client(self.base_url or OPENAI, key, timeout)

    def _request(self) -> dict[str, Any]:
        """Everything of a request but the prompt."""
        request: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "extra_body": dict(self.extra_body),
        }
        if self.seed is not None:
            request["seed"] = self.seed
        if self.top_logprobs:
            request |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return request
