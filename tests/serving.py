"""A double of vLLM's server inside the test process: it generates with a saved model, and with adapters by name.

    with serve_model(model_dir, faults={"500": 0.2}) as server:
        config["evaluation"]["endpoint"] = {"url": server.url}
        server.loaded, server.asked

It decodes one prompt at a time by plain forward passes of plain PEFT, and shares no code with `selgen.generate`. Like
vLLM's it applies its own defaults (a penalty, a temperature) to whatever a request does not mention, and says no in
vLLM's words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from judges.server import Server, answer, error, running


@dataclass
class Double(Server):
    """What a test sees of the server. Every attribute may be changed while it runs.

    Attributes:
        directory: Of the model that it serves.
        loads: Whether it was started with VLLM_ALLOW_RUNTIME_LORA_UPDATING.
        max_lora_rank: Largest rank that it loads.
        max_model_len: Most tokens of a prompt with its answer.
        tells_ids: Whether answers come with their token ids, as of newer versions.
        cut: Most tokens of an answer, whatever is asked for.
        sees: Whether it can read the directories of adapters.
        loaded: Adapters by name.
        names: Every name that was ever loaded.
        asked: Name of a model -> completions asked of it.
        ended: What ended an answer (`stop` or `length`) -> how often.
    """

    directory: Path = Path()
    loads: bool = True
    max_lora_rank: int = 16
    max_model_len: int = 64
    tells_ids: bool = True
    cut: int | None = None
    sees: bool = True
    loaded: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tokenizer = AutoTokenizer.from_pretrained(self.directory)
        self._base = self._weights()

    def _weights(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32).eval()

    def models(self) -> dict[str, Any]:
        base = {"id": self.model, "root": str(self.directory), "parent": None, "max_model_len": self.max_model_len}
        return {"object": "list", "data": [base, *({"id": name, "parent": self.model} for name in self.loaded)]}

    def get(self, handler: Any) -> None:
        if not self.knows_key(handler):
            answer(handler, error("Unauthorized"), 401)
        elif handler.path == "/version":
            answer(handler, {"version": "0.0.double"})
        else:
            super().get(handler)

    def post(self, handler: Any, request: dict[str, Any]) -> None:
        if not self.knows_key(handler):
            answer(handler, error("Unauthorized"), 401)
        elif handler.path == "/v1/completions":
            self._complete(handler, request)
        elif handler.path == "/v1/load_lora_adapter" and self.loads:
            self._load(handler, request["lora_name"], Path(request["lora_path"]))
        elif handler.path == "/v1/unload_lora_adapter" and self.loads:
            if self.loaded.pop(request["lora_name"], None) is None:
                answer(handler, error(f"The lora adapter '{request['lora_name']}' cannot be found."), 404)
            else:
                answer(handler, {"message": "Success"})
        else:
            answer(handler, {"detail": "Not Found"}, 404)

    def _load(self, handler: Any, name: str, path: Path) -> None:
        config = path / "adapter_config.json"
        if name in self.loaded:
            answer(handler, error(f"The lora adapter '{name}' has already been loaded."), 400)
        elif not self.sees or not config.is_file():
            answer(handler, error(f"Loading lora {name} failed: No adapter found for {path}"), 404)
        elif (rank := json.loads(config.read_text())["r"]) > self.max_lora_rank:
            answer(handler, error(f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}."), 400)
        else:
            with self._lock:
                self.loaded[name] = PeftModel.from_pretrained(self._weights(), path).eval()
                self.names.append(name)
            answer(handler, {"message": "Success"})

    def _complete(self, handler: Any, request: dict[str, Any]) -> None:
        prompt, name = request["prompt"], request["model"]
        time = self.arrive(f"{name} {request.get('seed')} {prompt}")
        with self._lock:
            model = self._base if name == self.model else self.loaded.get(name)
            if model is not None:
                self.asked[name] += 1
                said, end = self._said(model, prompt, request)
                self.ended[end] += 1
        if model is None:
            answer(handler, error(f"The model `{name}` does not exist."), 404)
            return
        text = self._tokenizer.decode(said[:-1] if end == "stop" else said, skip_special_tokens=True)
        choice = {"index": 0, "text": text, "finish_reason": end}
        if self.tells_ids and request.get("return_token_ids"):
            choice["token_ids"] = said
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
        body = {"object": "text_completion", "model": name, "choices": [choice], "usage": usage}
        self.finish(handler, self.fault(self.prompts[-1], time), body)

    @torch.no_grad()
    def _said(self, model: Any, prompt: list[int], request: dict[str, Any]) -> tuple[list[int], str]:
        draw = torch.Generator().manual_seed(request.get("seed") or 0)
        said: list[int] = []
        most = min(request.get("max_tokens", 16), self.cut or 10**9)
        while len(said) < most:
            scores = model(torch.tensor([prompt + said])).logits[0, -1].clone()
            scores[list(set(prompt + said))] -= request.get("repetition_penalty", 3.0) - 1
            temperature = request.get("temperature", 1.0)
            if temperature > 0:
                said.append(int(torch.multinomial((scores / temperature).softmax(-1), 1, generator=draw)))
            else:
                said.append(int(scores.argmax()))
            if said[-1] in request.get("stop_token_ids", []):
                return said, "stop"
        return said, "length"


@contextmanager
def serve_model(directory: Path, **options: Any) -> Iterator[Double]:
    """Run a double in a thread of this process; `options` are its attributes."""
    with running(Double(str, directory=directory, **{"model": "served", **options})) as server:
        yield server
