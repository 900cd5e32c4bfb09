"""Where a model's answers come from: this process, or a server that loads the run's adapter by name.

Only sampling text is done there: likelihoods, hidden states and the reference stay with the model in this process.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selgen import asking, generate, models
from selgen.asking import Fault
from selgen.blocks import EndpointSpec
from selgen.core import Example
from selgen.generate import Answers, Generation
from selgen.vllm import AGAIN, EndpointError, Server


@dataclass(frozen=True)
class Source:
    """Where answers come from.

    Attributes:
        answers: Gives them.
        provenance: What a record says about it.
    """

    answers: Answers = generate.generate
    provenance: Mapping[str, Any] = field(default_factory=lambda: {"from": "transformers"})


@contextmanager
def answering(endpoint: EndpointSpec | None, model: str, name: str) -> Iterator[Source]:
    """Where a model's answers come from: a server while this lasts, or this process if there is none.

    Args:
        model: Model directory or hub id; or an adapter directory, which the server loads for the time.
        name: What the adapter's name there begins with.

    Raises:
        EndpointError: the server cannot be reached, does not serve the model, or refuses the adapter.
    """
    if endpoint is None:
        yield Source()
        return
    with _server(endpoint) as server:
        served = server.find(models.raw(model))
        about = {"from": "endpoint", "url": endpoint.url, "model": served["id"], "root": served.get("root")}
        about |= {"vllm": server.version()}
        if models.is_adapter(model):
            # Of its own: the same run may be carried out elsewhere at the same time.
            adapter = f"{name}-{uuid.uuid4().hex[:6]}"
            server.load(adapter, Path(model).resolve())
            try:
                yield Source(_asker(server, adapter, served), about | {"adapter": adapter})
            finally:
                server.unload(adapter)
        else:
            yield Source(_asker(server, served["id"], served), about)


def check(
    endpoint: EndpointSpec, model: str, tokenizer: Any, examples: Sequence[Example], generation: Generation
) -> None:
    """Make sure, before anything is trained, that a server is there, holds the model, and can answer the examples.

    Args:
        model: That runs start from: model or adapter directory, or hub id.

    Raises:
        EndpointError: it does not.
    """
    with _server(endpoint) as server:
        served = server.find(models.raw(model))
        server.check_loading()
        server.check_lengths(generate.questions(tokenizer, examples, generation).rows.values(), generation, served)


def _asker(server: Server, name: str, served: Mapping[str, Any]) -> Answers:
    """What asks a server's model or adapter.

    Args:
        served: What the server says about the model without adapter.
    """

    def ask(model: Any, tokenizer: Any, examples: Sequence[Example], generation: Generation) -> list[str]:
        questions = generate.questions(tokenizer, examples, generation)
        server.check_lengths(questions.rows.values(), generation, served)
        found = server.answer(name, questions.rows, generation, generate.end_tokens(model, tokenizer))
        texts = {i: said.text if said.ids is None else _text(tokenizer, said.ids) for i, said in found.items()}
        return questions.spread(texts)

    return ask


def _text(tokenizer: Any, ids: list[int]) -> str:
    return generate.as_text(tokenizer, [ids])[0]


@contextmanager
def _server(endpoint: EndpointSpec) -> Iterator[Server]:
    key = os.environ.get(endpoint.key_env, "") if endpoint.key_env else "none"
    if not key:
        raise EndpointError(
            f"evaluation.endpoint.key_env names the environment variable {endpoint.key_env}, which is not set. Set it "
            f"to the key of {endpoint.url}, or give evaluation.endpoint.key_env=null for a server that needs no key."
        )
    with closing(asking.client(endpoint.url, key, endpoint.timeout)) as client:
        try:
            yield Server(endpoint, client)
        except Fault as fault:
            reason = fault.reason.rstrip(".")
            raise EndpointError(f"evaluation.endpoint {endpoint.url}: {reason}. {fault.remedy} {AGAIN}") from fault
