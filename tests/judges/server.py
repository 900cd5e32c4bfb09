"""A chat endpoint inside the test process, whose scores are a function of the prompt and which fails on purpose.

    with serve(lambda prompt: 72.5, faults={"500": 0.2, "timeout": 0.1}, seed=3) as server:
        Endpoint("judge", base_url=server.url, key_env=None, timeout=0.3)
        server.requests, server.prompts

It speaks POST /v1/chat/completions and GET /v1/models. Which of the requests for a prompt fail, and how, depends on the
seed, the prompt and how often it has been asked, not on the order of threads.
"""

from __future__ import annotations

import json
import math
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeVar

FAULTS = ("timeout", "429", "500", "garbage", "truncated", "dropped", "no_number")
"""No answer for `delay` seconds; these HTTP statuses (others go by their number too), 429 with Retry-After; a body that
is no JSON; a body cut short; a connection that is reset without an answer; a reply that has no number."""

S = TypeVar("S", bound="Server")


@dataclass
class Server:
    """What a test sees of the endpoint. Every attribute may be changed while it runs.

    Attributes:
        url: Base URL for a client, ending in /v1.
        score: Prompt -> score in [0, 100] (log-probabilities then have exactly this mean), or the judge's words.
        faults: Kind of fault -> its probability.
        seed: Of the faults.
        logprobs: Whether log-probabilities are given to those who ask for them.
        model: Name of the one model it knows; others get 404.
        key: If given, requests with another key get 401.
        delay: Seconds that a `timeout` lasts: longer than the client's.
        retry_after: Seconds, as text, in the header of a 429.
        in_a_row: Faults for a prompt after which it is answered; None knows no mercy.
        prompts: Every prompt asked, in the order of arrival, as often as it was asked.
        failed: Kind of fault -> how often it happened.
    """

    score: Callable[[str], float | str]
    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    logprobs: bool = True
    model: str = "judge"
    key: str | None = None
    delay: float = 1.0
    retry_after: str = "0"
    in_a_row: int | None = 3
    prompts: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.http = _Http(self)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        self.closed = threading.Event()
        self._times: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def requests(self) -> int:
        """Chat completions asked for so far."""
        return len(self.prompts)

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self.model, "object": "model"}]}

    def get(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/v1/models":
            answer(handler, self.models())
        else:
            answer(handler, error(f"no such path: {handler.path}"), 404)

    def post(self, handler: BaseHTTPRequestHandler, request: dict[str, Any]) -> None:
        if handler.path != "/v1/chat/completions":
            answer(handler, error(f"no such path: {handler.path}"), 404)
            return
        prompt = request["messages"][-1]["content"]
        time = self.arrive(prompt)
        if not self.knows_key(handler):
            answer(handler, error("wrong key"), 401)
        elif request["model"] != self.model:
            answer(handler, error(f"model {request['model']} does not exist"), 404)
        else:
            fault = self.fault(prompt, time)
            body = self.completion("Well, hard to say." if fault == "no_number" else self.score(prompt), request)
            self.finish(handler, fault, body)

    def arrive(self, prompt: str) -> int:
        """Note that a prompt is asked; how often it was before."""
        with self._lock:
            self.prompts.append(prompt)
            time = self._times[prompt]
            self._times[prompt] += 1
        return time

    def knows_key(self, handler: BaseHTTPRequestHandler) -> bool:
        return self.key is None or handler.headers["Authorization"] == f"Bearer {self.key}"

    def finish(self, handler: BaseHTTPRequestHandler, fault: str | None, body: dict[str, Any]) -> None:
        """Answer, or fail as the fault says."""
        if fault is not None:
            with self._lock:
                self.failed[fault] += 1
        if fault is None or fault == "no_number":
            answer(handler, body)
        else:
            self.fail(handler, fault, body)

    def fault(self, prompt: str, time: int) -> str | None:
        """The fault that meets the request for a prompt that was asked so many times before."""
        if self.in_a_row is not None and time >= self.in_a_row:
            return None
        drawn = random.Random(f"{self.seed}:{time}:{prompt}").random()
        for kind, probability in self.faults.items():
            drawn -= probability
            if drawn < 0:
                return kind
        return None

    def fail(self, handler: BaseHTTPRequestHandler, fault: str, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        if fault.isdigit():
            headers = {"Retry-After": self.retry_after} if fault == "429" else {}
            answer(handler, error("on purpose"), int(fault), headers)
        elif fault == "garbage":
            page = b"<html>try again</html>"
            send(handler, page, 200, {"Content-Length": str(len(page))})
        else:
            handler.close_connection = True
            if fault == "timeout":
                self.closed.wait(self.delay)
            elif fault == "truncated":
                send(handler, text[: len(text) // 2], 200, {"Content-Length": str(len(text))})
            elif fault == "dropped":
                # With this option closing resets the connection.
                handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            else:
                raise ValueError(f"fault should be one of {', '.join(FAULTS)}, found {fault!r}.")

    def completion(self, said: float | str, request: dict[str, Any]) -> dict[str, Any]:
        """A chat completion; a score is said as the likeliest of the whole numbers around it."""
        if isinstance(said, str):
            first = {said.split(" ")[0]: 1.0}
        else:
            low = math.floor(said)
            first = {str(low): 1 - (said - low), str(low + 1): said - low}
            said = max(first, key=lambda token: first[token])
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": said},
        }
        if self.logprobs and request.get("logprobs"):
            tokens = [{"token": token, "logprob": math.log(p)} for token, p in first.items() if p > 0]
            tokens.append({"token": "100", "logprob": -9999.0})
            likeliest = max(tokens, key=lambda t: t["logprob"])
            choice["logprobs"] = {"content": [{**likeliest, "top_logprobs": tokens}]}
        usage = {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22}
        return {"id": "1", "object": "chat.completion", "model": self.model, "choices": [choice], "usage": usage}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.server.get(self)

    def do_POST(self) -> None:
        self.server.server.post(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output is the test's."""


def answer(
    handler: BaseHTTPRequestHandler, body: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    text = json.dumps(body).encode()
    send(
        handler, text, status, {"Content-Type": "application/json", "Content-Length": str(len(text)), **(headers or {})}
    )


def send(handler: BaseHTTPRequestHandler, text: bytes, status: int, headers: Mapping[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(text)


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": None}}


@contextmanager
def serve(score: Callable[[str], float | str], **options: Any) -> Iterator[Server]:
    """Run an endpoint in a thread of this process.

    Args:
        score: See `Server`; it must be able to run in several threads at once.
        options: The other attributes of `Server`.
    """
    with running(Server(score, **options)) as server:
        yield server


@contextmanager
def running(server: S) -> Iterator[S]:
    """Let a server answer while this lasts."""
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.closed.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()
