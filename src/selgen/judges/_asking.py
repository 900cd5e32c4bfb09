"""Many prompts to one endpoint, and what comes back as judgements. Never imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import openai

from selgen.asking import Fault, Tries
from selgen.core import Judgement
from selgen.judges._cache import CacheError, Verdicts, worth_keeping
from selgen.judges._chat import ask

NO_NUMBER = "Choose a judge that replies with a number; one that thinks first needs that turned off."
"""What to do about replies without a score."""


class Asking:
    """Prompts put to an endpoint from several threads, until each is answered or there is no use in going on.

    Args:
        client: Of the endpoint, without retries of its own.
        request: Everything of a request but the prompt.
        tries: Requests per prompt.
        verdicts: Where verdicts are kept; None keeps none.
    """

    def __init__(
        self, client: openai.OpenAI, request: Mapping[str, Any], tries: int, verdicts: Verdicts | None
    ) -> None:
        self._client, self._request, self._verdicts = client, request, verdicts
        self._tries, self._tokens, self._lock = Tries(tries), Counter[str](), Lock()

    @property
    def usage(self) -> Counter[str]:
        """Requests sent (`calls`), and tokens as the server counts them."""
        return self._tokens + Counter(calls=self._tries.sent)

    @property
    def remedy(self) -> str:
        """What the user can do about what went wrong last."""
        return self._tries.remedy

    def ask_all(self, prompts: Sequence[str], concurrency: int) -> list[Judgement]:
        """One judgement per prompt, in order, from so many threads."""
        return self._tries.each(self.ask, prompts, concurrency)

    def ask(self, prompt: str) -> Judgement:
        """The judgement of one prompt, after as many tries as it takes; raises nothing."""
        reply: str | None = None

        def once() -> Judgement:
            nonlocal reply
            answer = ask(self._client, self._request, prompt)
            with self._lock:
                self._tokens["prompt_tokens"] += answer.prompt_tokens
                self._tokens["completion_tokens"] += answer.completion_tokens
            judgement = answer.judgement()
            if not worth_keeping(judgement):
                reply = judgement.reply
                raise Fault(judgement.reason or "no score", NO_NUMBER, retry=True, wait=0.0)
            return judgement

        try:
            judgement = self._tries.send(once)
        except Fault as fault:
            return Judgement(None, reply, fault.reason)
        self._keep(prompt, judgement)
        return judgement

    def _keep(self, prompt: str, judgement: Judgement) -> None:
        if self._verdicts is None:
            return
        try:
            self._verdicts.put(prompt, judgement)
        except CacheError as error:  # the verdict is in hand; to ask for more than can be kept would lose them
            self._tries.stop(str(error))
