"""The only code that calls a model's forward: cross-entropy, hidden states, and the frozen reference.

Every call goes through the wrapper's own forward, so that DDP and FSDP hooks run.
Legend: B rows, T positions, n positions that predict a completion token, D hidden width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F

from selgen.core import Stream, Term, Tokens, Unit
from selgen.data.chat import Encoded, collate

REFERENCE_BATCH = 16


def cross_entropy(model: nn.Module, tokens: Tokens, unit: Unit = "task_tokens", weight: float = 1.0) -> Term:
    """Cross-entropy of the completion tokens, summed, in nats (float32). No rows give zero without a forward pass."""
    if tokens.num_rows == 0:
        return Term(torch.zeros((), device=tokens.input_ids.device), unit, weight)
    logits_nV = completion_logits(model, tokens)
    return Term(F.cross_entropy(logits_nV.float(), tokens.targets_n, reduction="sum"), unit, weight)


def completion_logits(model: nn.Module, tokens: Tokens) -> Tensor:
    """[n, V] logits at the positions that predict completion tokens; no other logits are computed."""
    out = model(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        logits_to_keep=tokens.predicts_BT,
        use_cache=False,
    )
    return out.logits


def completion_hidden(model: nn.Module, tokens: Tokens) -> Tensor:
    """[n, D] last hidden states (after the final norm) at the positions that predict completion tokens."""
    out = model(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        logits_to_keep=1,  # 0 would mean all positions
        output_hidden_states=True,
        use_cache=False,
    )
    return out.hidden_states[-1][tokens.predicts_BT]


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function from last hidden states [n, D] to logits [n, V], Gemma2's final soft-cap included."""
    inner = unwrap(model)
    linear = inner.get_output_embeddings()
    softcap = inner.config.to_dict().get("final_logit_softcapping")
    if softcap is None:
        return linear
    return lambda hidden: torch.tanh(linear(hidden) / softcap) * softcap


def unwrap(model: Any) -> Any:
    """The Hugging Face model inside DDP and PEFT wrappers."""
    while isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    return model.get_base_model() if isinstance(model, PeftModel) else model


@contextmanager
def adapter_off(model: PeftModel) -> Iterator[None]:
    """The model without its adapter, in eval mode and without gradient; every flag is as before on leaving.

    PEFT's own `disable_adapter` leaves `requires_grad=True` on an active adapter that was frozen.
    """
    flags = {p: p.requires_grad for p in model.parameters()}
    try:
        with torch.no_grad(), _eval_mode(model), model.disable_adapter():
            yield
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


class FrozenReference:
    """The starting model, frozen. Implements `selgen.core.Reference`.

    With an adapter it is the same weights with the adapter off: no second copy. With full fine-tuning it is a frozen
    copy, made at construction. `precompute` caches what is constant over training, in the compute dtype.

    Args:
        model: The model about to be trained (unwrapped).
        rows: The token rows of each stream, for `precompute`.
        pad_id: Padding token.
        use_cache: False computes everything live.
    """

    def __init__(
        self, model: nn.Module, rows: Mapping[Stream, Sequence[Encoded]], pad_id: int, use_cache: bool = True
    ) -> None:
        self._rows = rows
        self._pad_id = pad_id
        self._adapted = model if isinstance(model, PeftModel) else None
        if self._adapted is None:
            model = copy.deepcopy(model).eval().requires_grad_(False)
        self._model = model
        # Switching adapters off walks the whole model; a head that is frozen anyway needs no such care.
        output = unwrap(model).get_output_embeddings()
        self._plain_head = type(output) is nn.Linear and not output.weight.requires_grad
        self.caches = use_cache
        self._hidden: dict[bytes, Tensor] = {}

    @property
    def copies_model(self) -> bool:
        """True if the reference holds its own weights (full fine-tuning)."""
        return self._adapted is None

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, V] logits of the starting model for its last hidden states [n, D]."""
        with torch.no_grad() if self._plain_head else self._frozen():
            return head(self._model)(hidden_nD)

    def precompute(self, stream: Stream) -> None:
        """Cache the hidden states of a whole stream, once, in a fixed order (so that a resumed run sees equal bits)."""
        if not self.caches:
            return
        rows = self._rows[stream]
        for start in range(0, len(rows), REFERENCE_BATCH):
            part = rows[start : start + REFERENCE_BATCH]
            tokens = collate(part, range(start, start + len(part)), self._pad_id).to(self._model.device)
            counts = tokens.predicts_BT.sum(1).tolist()
            for key, hidden in zip(_keys(tokens), self._live_hidden(tokens).split(counts), strict=True):
                self._hidden[key] = hidden.clone()

    def hidden(self, tokens: Tokens) -> Tensor:
        """[n, D] last hidden states at completion positions: from the cache if every row is there, else live."""
        if self._hidden:
            cached = [self._hidden.get(key) for key in _keys(tokens)]
            found = [h for h in cached if h is not None]
            if len(found) == tokens.num_rows:
                return torch.cat(found)
        return self._live_hidden(tokens)

    def _live_hidden(self, tokens: Tokens) -> Tensor:
        with self._frozen():
            return completion_hidden(self._model, tokens)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        if self._adapted is not None:
            with adapter_off(self._adapted):
                yield
        else:
            with torch.no_grad():
                yield


def _keys(tokens: Tokens) -> list[bytes]:
    """What a cached row depends on: its real tokens and which of them are learned; not how it is padded."""
    ids, labels, real = tokens.input_ids.cpu(), tokens.labels.cpu(), tokens.attention_mask.cpu().bool()
    return [torch.stack([i[m], t[m]]).numpy().tobytes() for i, t, m in zip(ids, labels, real, strict=True)]
