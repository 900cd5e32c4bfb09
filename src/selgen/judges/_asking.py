"""Many prompts to one endpoint: tries, pauses, counts, and when to stop. Never imports torch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import openai

from selgen.core import Judgement
from selgen.judges._cache import CacheError, Verdicts, worth_keeping
from selgen.judges._chat import Fault, ask

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second try, and before any."""
LONGEST_OBEYED = 300.0
"""Longest wait, in seconds, that a server may ask for without being left."""
ABSENT = 20
"""Prompts in a row to which nobody answered: then the others are not asked."""


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
        self.usage: Counter[str] = Counter()
        self.remedy = ""
        self._client, self._request, self._tries, self._verdicts = client, request, tries, verdicts
        self._stopped, self._why, self._absent = Event(), "", 0
        self._lock = Lock()
        # Its own numbers: training draws from the global ones.
        self._random = random.Random()

    def ask_all(self, prompts: Sequence[str], concurrency: int) -> list[Judgement]:
        """One judgement per prompt, in order, from so many threads."""
        with ThreadPoolExecutor(concurrency) as pool:
            try:
                return list(pool.map(self.ask, prompts))
            except BaseException:  # Ctrl-C: the pool waits for its threads, which should not go on asking
                self.stop("interrupted")
                raise

    def stop(self, why: str) -> None:
        """Ask nothing more; prompts that are still open get this reason."""
        with self._lock:
            self._why = self._why or why
            self._stopped.set()

    def ask(self, prompt: str) -> Judgement:
        """The judgement of one prompt, after as many tries as it takes; raises nothing."""
        last = Judgement(None)
        for number in range(self._tries):
            if self._stopped.is_set():
                return last if last.reason else Judgement(None, None, f"not asked: {self._why}")
            try:
                judgement = self._ask_once(prompt)
            except Fault as fault:
                last = Judgement(None, last.reply, fault.reason)
                if not fault.retry:
                    break
                pause = self._pause(number) if fault.wait is None else fault.wait
            else:
                if worth_keeping(judgement):
                    self._keep(prompt, judgement)
                    return judgement
                last, pause = judgement, 0.0
            if number + 1 < self._tries:
                self._stopped.wait(pause)
        return last

    def _ask_once(self, prompt: str) -> Judgement:
        """One request, counted; what it says about the others is noted.

        Raises:
            Fault: there is no usable answer.
        """
        with self._lock:
            self.usage["calls"] += 1
        try:
            answer = ask(self._client, self._request, prompt)
        except Fault as fault:
            with self._lock:
                self.remedy = fault.remedy
                self._absent = self._absent + 1 if fault.absent else 0
                gone = self._absent >= ABSENT * self._tries
            if fault.stop or gone or (fault.wait or 0) > LONGEST_OBEYED:
                self.stop(f"{fault.reason}. {fault.remedy}")
            raise
        with self._lock:
            self._absent = 0
            self.remedy = "Choose a judge that replies with a number; one that thinks first needs that turned off."
            self.usage["prompt_tokens"] += answer.prompt_tokens
            self.usage["completion_tokens"] += answer.completion_tokens
        return answer.judgement()

    def _keep(self, prompt: str, judgement: Judgement) -> None:
        if self._verdicts is None:
            return
        try:
            self._verdicts.put(prompt, judgement)
        except CacheError as error:  # the verdict is in hand; to ask for more than can be kept would lose them
            self.stop(str(error))

    def _pause(self, number: int) -> float:
        return min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * self._random.uniform(0.5, 1.0)
