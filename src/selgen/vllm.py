"""A client of vLLM's server: which models it holds, adapters loaded by name, completions. Never imports torch.

The prompts are token ids, so that the chat template is the tokenizer's here, and what ends an answer is said with each
request; what the server's own settings would add (penalties, cut-offs) is turned off.

Source of its paths, fields and words: vLLM's documentation of its OpenAI-compatible server and of LoRA adapters.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import openai

from selgen.asking import SHOWN, Fault, Remedies, Tries, faults
from selgen.blocks import EndpointSpec
from selgen.storage import Unusable

if TYPE_CHECKING:
    from selgen.generate import Generation

R = TypeVar("R")

ON = "set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in the server's environment and start it with --enable-lora"
AGAIN = "The same command goes on from there."
REMEDIES = Remedies(
    absent="Start the server, correct evaluation.endpoint.url, or raise evaluation.endpoint.timeout.",
    key="Put the server's key into the environment variable that evaluation.endpoint.key_env names.",
    unpaid="Pay for more.",
    unknown="Correct evaluation.endpoint.url, which usually ends in /v1; a server that was started anew has forgotten "
    "what it had loaded: start again too.",
    busy="Lower evaluation.endpoint.concurrency, or look at the server's log.",
    refused="Look at the server's log.",
    unmade="Correct evaluation.endpoint.",
)
# The server would otherwise take these from the model's generation_config.json.
PLAIN = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0}


class EndpointError(Unusable):
    """The server cannot be used for a model; the message says why and what to do."""


class Server:
    """One server, asked by one run.

    Args:
        client: Of the server, without retries of its own.
    """

    def __init__(self, endpoint: EndpointSpec, client: openai.OpenAI) -> None:
        self.endpoint, self._client = endpoint, client

    def find(self, raw: str) -> dict[str, Any]:
        """What the server says about the model without adapter that is meant.

        Args:
            raw: Model directory or hub id.

        Raises:
            EndpointError: it serves no such model.
            Fault: it does not answer.
        """
        body = self._send(lambda: self._client.get("/models", cast_to=str))
        try:
            served = [dict(entry) for entry in json.loads(body)["data"] if not entry.get("parent")]
            names = {entry["id"]: entry.get("root") for entry in served}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Fault(f"/models gives no list of models: {body[:SHOWN]!r}", REMEDIES.unknown) from error
        wanted = self.endpoint.model
        found = [e for e in served if (e["id"] == wanted if wanted else raw in (e["id"], e.get("root")))]
        if found:
            return found[0]
        there = ", ".join(f"{name!r}" + (f" (read from {root})" if root else "") for name, root in names.items())
        url = self.endpoint.url
        if wanted:
            raise EndpointError(
                f"evaluation.endpoint.model should be a model that {url} serves without an adapter, found {wanted!r}; "
                f"it serves {there or 'none'}. Correct it."
            )
        raise EndpointError(
            f"evaluation.endpoint {url} should serve the starting model {raw}, found {there or 'none'}. Start it with "
            "that model; or, if one of these has the same weights, name it in evaluation.endpoint.model."
        )

    def version(self) -> str | None:
        """The server's own word; None if it says nothing."""
        address = f"{self.endpoint.url.removesuffix('/v1')}/version"
        with suppress(Fault, ValueError, AttributeError):
            return json.loads(self._send(lambda: self._client.get(address, cast_to=str), 1)).get("version")
        return None

    def check_loading(self) -> None:
        """Make sure that it loads adapters while it runs.

        Raises:
            EndpointError: it does not.
        """
        with suppress(Fault):  # there is no such adapter
            self._change("unload_lora_adapter", lora_name=f"selgen-{uuid.uuid4().hex}")

    def load(self, name: str, adapter: Path) -> None:
        """Let it load an adapter.

        Raises:
            EndpointError: it refuses.
            Fault: it does not answer.
        """
        self._change("load_lora_adapter", lora_name=name, lora_path=str(adapter))

    def unload(self, name: str) -> None:
        """Let it forget an adapter; what goes wrong costs it some memory and nobody an answer."""
        with suppress(Fault, EndpointError):
            self._change("unload_lora_adapter", 1, lora_name=name)

    def answer(
        self, name: str, prompts: Mapping[int, list[int]], generation: Generation, ends: Sequence[int]
    ) -> dict[int, Said]:
        """Answers to prompts, of the model or adapter with that name.

        Args:
            prompts: Number of a prompt, which makes its draws its own -> its token ids.
            ends: Tokens that end an answer.

        Raises:
            Fault: one of them cannot be had.
        """
        tries = Tries(self.endpoint.tries)

        def one(number: int) -> Said:
            request = _request(name, prompts[number], generation, ends, number)
            try:
                return tries.send(lambda: self._complete(request))
            except Fault as fault:  # an evaluation with fewer answers would be another one
                tries.stop(f"{fault.reason}. {fault.remedy}")
                raise

        numbers = list(prompts)
        return dict(zip(numbers, tries.each(one, numbers, self.endpoint.concurrency), strict=True))

    def check_lengths(self, rows: Iterable[list[int]], generation: Generation, served: Mapping[str, Any]) -> None:
        """Make sure that prompts and answers fit.

        Args:
            rows: Token ids of each prompt.

        Raises:
            EndpointError: they do not.
        """
        longest, most = max(map(len, rows), default=0), served.get("max_model_len")
        if most is not None and longest + generation.max_new_tokens > most:
            raise EndpointError(
                f"evaluation.endpoint {self.endpoint.url} should take {longest} tokens of the longest prompt and "
                f"{generation.max_new_tokens} of its answer, found a limit of {most}. Start it with --max-model-len "
                f"{longest + generation.max_new_tokens} or more, or lower evaluation.max_new_tokens."
            )

    def _complete(self, request: Mapping[str, Any]) -> Said:
        with faults(REMEDIES):
            raw = self._client.completions.with_raw_response.create(**request)
            return parse(raw.text, request["max_tokens"])

    def _change(self, path: str, tries: int | None = None, **body: str) -> None:
        def post() -> Any:
            try:
                return self._client.post(f"/{path}", body=body, cast_to=str)
            except (openai.NotFoundError, openai.BadRequestError) as error:
                raise _refused(error, body) from error

        try:
            self._send(post, tries)
        except Fault as fault:
            if isinstance(fault.__cause__, openai.NotFoundError) and _words(fault.__cause__) == "Not Found":
                raise EndpointError(
                    f"evaluation.endpoint {self.endpoint.url} should load adapters while it runs, but has no path "
                    f"/{path}: {ON}."
                ) from fault
            raise

    def _send(self, request: Callable[[], R], tries: int | None = None) -> R:
        def once() -> R:
            with faults(REMEDIES):
                return request()

        return Tries(tries or self.endpoint.tries).send(once)


@dataclass(frozen=True)
class Said:
    """An answer.

    Attributes:
        text: As the server spells it.
        ids: Its token ids; None if the server does not tell them.
    """

    text: str
    ids: list[int] | None


def parse(body: str, most: int) -> Said:
    """Read the body of a completion.

    Args:
        most: Tokens that were allowed.

    Raises:
        Fault: it is none, or the server cut it short.
    """
    try:
        whole = json.loads(body)
        choice = whole["choices"][0]
        text, end, ids = choice["text"].strip(), choice["finish_reason"], choice.get("token_ids")
        count = (whole.get("usage") or {}).get("completion_tokens")
        if end not in ("stop", "length") or not (ids is None or all(isinstance(i, int) for i in ids)):
            raise ValueError(f"finish_reason {end!r}")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Fault(
            f"the server's answer is no completion: {body[:SHOWN]!r}",
            "Correct evaluation.endpoint.url, or look at the server's log.",
            retry=True,
        ) from error
    length = count if ids is None else len(ids)
    if end == "length" and length is not None and length < most:
        raise Fault(
            f"the server cut an answer short after {length} of {most} tokens",
            "Start it with a larger --max-model-len, or lower evaluation.max_new_tokens.",
            stop=True,
        )
    return Said(text, ids)


def _request(name: str, prompt: list[int], generation: Generation, ends: Sequence[int], number: int) -> dict[str, Any]:
    sampling = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "max_tokens": generation.max_new_tokens,
    }
    # Equal prompts are to be answered differently when sampled.
    seed = generation.seed * 1_000_003 + number
    own = {**PLAIN, "stop_token_ids": list(ends), "skip_special_tokens": True, "return_token_ids": True}
    return {"model": name, "prompt": prompt, **sampling, "seed": seed, "extra_body": own}


def _words(error: openai.APIStatusError) -> str:
    """What the server says, without what surrounds it: `message` in vLLM's errors, `detail` where a path is missing."""
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or body.get("detail") or error)


def _refused(error: openai.APIStatusError, body: Mapping[str, str]) -> Fault:
    """Why an adapter is not loaded, and what can be done about it."""
    words = _words(error)
    said = f"adapter {body['lora_name']} is refused: {words[:SHOWN]}"
    path = body.get("lora_path")
    if "max_lora_rank" in words:
        return Fault(said, "Start it with a larger --max-lora-rank (8, 16, 32, 64, 128, ...), or lower lora.r.")
    if path is not None and isinstance(error, openai.NotFoundError) and words != "Not Found":
        # Network file systems remember for a while what was missing.
        return Fault(
            said,
            f"The server should read {path} under the same path: share or mount the directory of --out there.",
            retry=True,
        )
    return Fault(said, REMEDIES.refused)
