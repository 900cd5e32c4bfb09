"""Many requests to one server: what can go wrong with each, tries, pauses, and when to stop. Never imports torch."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Event, Lock
from typing import TypeVar

import openai

SHOWN = 200
"""Most characters of a server's words in an error."""
RETRIED = {408, 409, 429}
"""Statuses below 500 that may pass."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the second try, and before any."""
LONGEST_OBEYED = 300.0
"""Longest wait, in seconds, that a server may ask for without being left."""
ABSENT = 20
"""Requests in a row to which nobody answered in any try: then the others are not sent."""
CONNECT_SECONDS = 5.0
"""Longest wait for a connection."""

P = TypeVar("P")
R = TypeVar("R")


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
class Remedies:
    """What the user can do about each kind of fault, in the words of the config.

    Attributes:
        absent: Nobody answers.
        key: The key is wrong (401).
        unpaid: There is no money or quota left (402).
        unknown: There is no such model or path (404).
        busy: The server fails, or asks for patience.
        refused: The server does not want this request.
        unmade: The request could not even be made.
    """

    absent: str
    key: str
    unpaid: str
    unknown: str
    busy: str
    refused: str
    unmade: str

    def stopping(self, status: int) -> str | None:
        """The remedy of a status that every other request would get too; None for other statuses."""
        return {401: self.key, 402: self.unpaid, 404: self.unknown}.get(status)


@contextmanager
def faults(remedies: Remedies) -> Iterator[None]:
    """Raise whatever goes wrong with the request inside as a `Fault`.

    Raises:
        Fault: there is no answer, or it says that something is wrong.
    """
    try:
        yield
    except Fault:
        raise
    except openai.APIConnectionError as error:
        what = "no answer in time" if isinstance(error, openai.APITimeoutError) else "no connection"
        detail = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
        raise Fault(f"{what}{detail}", remedies.absent, retry=True, absent=True) from error
    except openai.APIStatusError as error:
        raise _status(error, remedies) from error
    except Exception as error:  # such as a prompt that is no valid Unicode: that prompt's, not the run's, end
        reason = f"the request could not be made: {type(error).__name__}: {str(error)[:SHOWN]}"
        raise Fault(reason, remedies.unmade) from error


def _status(error: openai.APIStatusError, remedies: Remedies) -> Fault:
    """What an HTTP status means for this request and the others."""
    status, reason = error.status_code, str(error)[:SHOWN]
    remedy = remedies.stopping(status)
    if remedy is not None:
        return Fault(reason, remedy, stop=True)
    if status == 429 and error.code == "insufficient_quota":
        return Fault(reason, remedies.unpaid, stop=True)
    if status in RETRIED or status >= 500:
        wait = retry_after(error.response.headers.get("retry-after"))
        return Fault(reason, remedies.busy, retry=True, wait=wait)
    return Fault(reason, remedies.refused)


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


def client(base_url: str, key: str, timeout: float) -> openai.OpenAI:
    """A client without retries of its own.

    Args:
        timeout: Seconds without a byte after which a request is given up.
    """
    limits = openai.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
    return openai.OpenAI(api_key=key, base_url=base_url, timeout=limits, max_retries=0)


class Tries:
    """Requests sent from several threads, each until it is answered or there is no use in going on.

    Args:
        tries: Times that each is sent, at most.

    Attributes:
        sent: Requests sent so far.
        remedy: What the user can do about the last fault; empty if the last request was answered.
    """

    def __init__(self, tries: int) -> None:
        self.sent, self.remedy = 0, ""
        self._tries = tries
        self._stopped, self._why, self._absent = Event(), "", 0
        self._lock = Lock()
        # Its own numbers: training draws from the global ones.
        self._random = random.Random()

    def each(self, work: Callable[[P], R], items: Sequence[P], concurrency: int) -> list[R]:
        """What the work returns for each item, in order, from so many threads."""
        with ThreadPoolExecutor(concurrency) as pool:
            try:
                return list(pool.map(work, items))
            except BaseException:  # Ctrl-C: the pool waits for its threads, which should not go on asking
                self.stop("interrupted")
                raise

    def stop(self, why: str) -> None:
        """Send nothing more; requests that are still open fail for this reason."""
        with self._lock:
            self._why = self._why or why
            self._stopped.set()

    def send(self, request: Callable[[], R]) -> R:
        """The answer to one request, after as many tries as it takes.

        Args:
            request: Sends it once; raises `Fault` where there is no usable answer.

        Raises:
            Fault: the last one, or that nothing is sent any more.
        """
        last: Fault | None = None
        for number in range(self._tries):
            if self._stopped.is_set():
                raise last or Fault(f"not asked: {self._why}", self.remedy)
            try:
                return self._send_once(request)
            except Fault as fault:
                last = fault
            if not last.retry:
                break
            if number + 1 < self._tries:
                self._stopped.wait(self._pause(number) if last.wait is None else last.wait)
        assert last is not None
        raise last

    def _send_once(self, request: Callable[[], R]) -> R:
        """One request, counted; what it says about the others is noted."""
        with self._lock:
            self.sent += 1
        try:
            answer = request()
        except Fault as fault:
            with self._lock:
                self.remedy = fault.remedy
                self._absent = self._absent + 1 if fault.absent else 0
                gone = self._absent >= ABSENT * self._tries
            if fault.stop or gone or (fault.wait or 0) > LONGEST_OBEYED:
                self.stop(f"{fault.reason}. {fault.remedy}")
            raise
        with self._lock:
            self._absent, self.remedy = 0, ""
        return answer

    def _pause(self, number: int) -> float:
        return min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * self._random.uniform(0.5, 1.0)
