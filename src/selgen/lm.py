"""The only code that calls a model's forward: cross-entropy, hidden states, and the frozen reference.

Every call goes through the wrapper's own forward, so that DDP and FSDP hooks run.
Legend: B rows, T positions, n positions that predict a completion token, D hidden width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F

from selgen.core import Kept, Stream, Term, Tokens, Unit
from selgen.data.chat import IGNORE, Encoded, collate
from selgen.maths import chunks

CHECKED_POSITIONS = 8
"""Where `check_head` compares logits."""
REFERENCE_BATCH = 16
MAX_LAYERS_BYTES = 1 << 30
"""Largest cache of all layers' outputs; beyond it they are computed live, and `FrozenReference.kept` says so."""


def cross_entropy(model: nn.Module, tokens: Tokens, unit: Unit = "task_tokens", weight: float = 1.0) -> Term:
    """Cross-entropy of the completion tokens, summed, in nats (float32). No rows give zero without a forward pass."""
    if tokens.num_rows == 0:
        return Term(torch.zeros((), device=tokens.input_ids.device), unit, weight)
    targets_n, chunk = tokens.targets_n, chunk_tokens(model)
    if len(targets_n) <= chunk:
        logits_nV = completion_logits(model, tokens)
        return Term(F.cross_entropy(logits_nV.float(), targets_n, reduction="sum"), unit, weight)
    hidden_nD = _checked_hidden(model, tokens)
    return Term(chunks.total(_token_nll(head(model)), chunk, hidden_nD, targets_n), unit, weight)


def completion_logits(model: nn.Module, tokens: Tokens) -> Tensor:
    """[n, V] logits at the positions that predict completion tokens; no other logits are computed."""
    out = model(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        logits_to_keep=tokens.predicts_BT,
        use_cache=False,
    )
    return out.logits


def chunk_tokens(model: nn.Module) -> int:
    """Tokens whose logits exist at a time where losses are computed."""
    inner = unwrap(model)
    return chunks.chunk_tokens(inner.config.get_text_config().vocab_size, inner.device)


def _token_nll(to_logits: Callable[[Tensor], Tensor]) -> chunks.PerToken:
    def per_token(hidden_mD: Tensor, targets_m: Tensor) -> Tensor:
        return F.cross_entropy(to_logits(hidden_mD).float(), targets_m, reduction="none")

    return per_token


_CHECKED: WeakSet[nn.Module] = WeakSet()


def _checked_hidden(model: nn.Module, tokens: Tokens) -> Tensor:
    """`completion_hidden` of a model that `check_head` has passed, once."""
    inner = unwrap(model)
    if inner not in _CHECKED:
        check_head(model, tokens)
        _CHECKED.add(inner)
    return completion_hidden(model, tokens)


def completion_hidden(model: nn.Module, tokens: Tokens) -> Tensor:
    """[n, D] last hidden states (after the final norm) at the positions that predict completion tokens."""
    return _last_hidden(model, tokens)[tokens.predicts_BT]


def mean_hidden(model: nn.Module, rows: Sequence[Encoded], pad_id: int, batch_size: int = REFERENCE_BATCH) -> Tensor:
    """[D] last hidden states (after the final norm), averaged over each row's tokens and then over rows; float32.

    Every row weighs the same, however long it is. The model is asked in eval mode and without gradient.

    Args:
        rows: At least one; their labels are not read.
        pad_id: Padding token.
        batch_size: Rows per forward; changes time and memory only.
    """
    means = []
    with torch.no_grad(), eval_mode(model):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            tokens = collate(part, range(len(part)), pad_id).to(unwrap(model).device)
            real_BT1 = tokens.attention_mask[..., None]
            hidden_BTD = _last_hidden(model, tokens).float()
            means.append((hidden_BTD * real_BT1).sum(1) / real_BT1.sum(1))
    return torch.cat(means).mean(0)


def _last_hidden(model: nn.Module, tokens: Tokens) -> Tensor:
    """[B, T, D] last hidden states, after the final norm."""
    out = model(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        logits_to_keep=1,  # 0 would mean all positions
        output_hidden_states=True,
        use_cache=False,
    )
    return out.hidden_states[-1]


def sequence_logprobs(model: nn.Module, tokens: Tokens) -> Tensor:
    """[B] log-probability of each row's completion: the sum over its completion tokens alone, in nats (float32)."""
    targets_n, chunk = tokens.targets_n, chunk_tokens(model)
    if len(targets_n) <= chunk:
        nll_n = F.cross_entropy(completion_logits(model, tokens).float(), targets_n, reduction="none")
    else:
        nll_n = chunks.each(_token_nll(head(model)), chunk, _checked_hidden(model, tokens), targets_n)
    return torch.stack([-part.sum() for part in nll_n.split(tokens.predicts_BT.sum(1).tolist())])


def block_outputs(model: nn.Module, tokens: Tokens) -> list[Tensor]:
    """Every decoder block's output, first to last, before the final norm: each [n, D] over the n real tokens.

    Read from the blocks themselves: the last entry of Hugging Face's `hidden_states` has been through the final norm.

    Raises:
        ValueError: see `decoder_blocks`.
    """
    blocks = decoder_blocks(model)
    real_BT = tokens.attention_mask.bool()
    found: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(block: nn.Module, inputs: Any, output: Any) -> None:
            # setdefault: activation checkpointing runs a block again in the backward pass.
            found.setdefault(index, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [block.register_forward_hook(keep(i)) for i, block in enumerate(blocks)]
    try:
        model(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            logits_to_keep=1,  # 0 would mean all positions
            use_cache=False,
        )
    finally:
        for handle in handles:
            handle.remove()
    return [found[i][real_BT] for i in range(len(blocks))]


def decoder_blocks(model: Any) -> nn.ModuleList:
    """The decoder's blocks, first to last.

    Raises:
        ValueError: the model has no list of `num_hidden_layers` blocks, so something else would be counted.
    """
    inner = unwrap(model)
    expected = inner.config.num_hidden_layers
    lists = [part for part in inner.get_decoder().children() if isinstance(part, nn.ModuleList)]
    blocks = next((part for part in lists if len(part) == expected), nn.ModuleList())
    if not len(blocks):
        raise ValueError(
            f"a {inner.config.model_type} model should have a list of num_hidden_layers={expected} decoder blocks, "
            f"found lists of {[len(part) for part in lists]}. A final norm among them would be counted as a layer: "
            "give the model its blocks alone, or choose a method that reads no hidden layers."
        )
    return blocks


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The function from last hidden states [n, D] to logits [n, V].

    Gemma2's final soft-cap and the scalings of Granite (divides) and Cohere (multiplies) are included; `check_head`
    says whether that is all that a model does.
    """
    inner = unwrap(model)
    linear, config = inner.get_output_embeddings(), inner.config.to_dict()
    scale = (config.get("logit_scale") or 1.0) / (config.get("logits_scaling") or 1.0)
    softcap = config.get("final_logit_softcapping")
    if scale == 1 and softcap is None:
        return linear
    if softcap is None:
        return lambda hidden: linear(hidden) * scale
    return lambda hidden: torch.tanh(linear(hidden) * scale / softcap) * softcap


def check_head(model: nn.Module, tokens: Tokens) -> None:
    """Make sure, at the first positions of the first row, that `head` on hidden states gives the model's own logits.

    Raises:
        ValueError: it does not, so that divergences and likelihoods would be another distribution's.
    """
    labels = tokens.labels[:1].masked_fill(tokens.labels[:1].ne(IGNORE).cumsum(1) > CHECKED_POSITIONS, IGNORE)
    row = Tokens(tokens.input_ids[:1], tokens.attention_mask[:1], labels, tokens.ids[:1])
    with torch.no_grad(), eval_mode(model):
        own_nV, ours_nV = completion_logits(model, row), head(model)(completion_hidden(model, row))
    difference = (own_nV.float() - ours_nV.float()).norm() / own_nV.float().norm()
    # Half precision rounds at 0.4 % of each number.
    if difference > 0.02:
        raise ValueError(
            f"the logits of a {unwrap(model).config.model_type} model should be its head on its last hidden states, "
            f"found a relative difference of {difference:.2g}. Choose a model that changes nothing after the head."
        )


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
        with torch.no_grad(), eval_mode(model), model.disable_adapter():
            yield
    finally:
        for p, flag in flags.items():
            p.requires_grad_(flag)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode; each module's own mode is as before on leaving."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training


@dataclass(frozen=True)
class _Kind:
    """How one thing that a reference keeps is computed for a batch, and which part of it belongs to which row."""

    live: Callable[[nn.Module, Tokens], Tensor]
    axis: int
    sizes: Callable[[Tokens], list[int]]


_KINDS: dict[Kept, _Kind] = {
    "hidden": _Kind(completion_hidden, 0, lambda t: t.predicts_BT.sum(1).tolist()),
    "layers": _Kind(lambda m, t: torch.stack(block_outputs(m, t)), 1, lambda t: t.attention_mask.sum(1).tolist()),
    "logprobs": _Kind(sequence_logprobs, 0, lambda t: [1] * t.num_rows),
}


class FrozenReference:
    """The starting model, frozen. Implements `selgen.core.Reference`.

    With an adapter it is the same weights with the adapter off: no second copy. With full fine-tuning it is a frozen
    copy, made at construction. `precompute` caches what is constant over training, in the compute dtype.

    Args:
        model: The model about to be trained (unwrapped).
        rows: The token rows of each stream, for `precompute`.
        pad_id: Padding token.
        use_cache: False computes everything live.
        frozen: The model is not going to be trained, so a full one needs no copy.

    Attributes:
        kept: What is cached, or why it is not, by stream and kind.
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Mapping[Stream, Sequence[Encoded]],
        pad_id: int,
        use_cache: bool = True,
        frozen: bool = False,
    ) -> None:
        self._rows = rows
        self._pad_id = pad_id
        self._adapted = model if isinstance(model, PeftModel) else None
        if self._adapted is None and not frozen:
            model = copy.deepcopy(model).eval().requires_grad_(False)
        self._model = model
        # Switching adapters off walks the whole model; a head that is frozen anyway needs no such care.
        output = unwrap(model).get_output_embeddings()
        self._plain_head = type(output) is nn.Linear and not output.weight.requires_grad
        self.caches = use_cache
        self.kept: dict[str, str] = {}
        self._cache: dict[Kept, dict[bytes, Tensor]] = {kind: {} for kind in _KINDS}

    @property
    def copies_model(self) -> bool:
        """True if the reference holds its own weights (full fine-tuning)."""
        return self._adapted is None

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, V] logits of the starting model for its last hidden states [n, D]."""
        with torch.no_grad() if self._plain_head else self._frozen():
            return head(self._model)(hidden_nD)

    def precompute(self, stream: Stream, what: Kept = "hidden") -> None:
        """Cache a whole stream, once, in a fixed order (so that a resumed run sees equal bits)."""
        name = f"{what} of {stream}"
        if not self.caches:
            self.kept[name] = "computed at every step: the cache is off"
            return
        rows, kind = self._rows[stream], _KINDS[what]
        if what == "layers" and (needed := self._layers_bytes(rows)) > MAX_LAYERS_BYTES:
            self.kept[name] = f"computed at every step: {needed / 1e9:.1f} GB would be too large to cache"
            return
        total = 0
        for start in range(0, len(rows), REFERENCE_BATCH):
            part = rows[start : start + REFERENCE_BATCH]
            tokens = collate(part, range(start, start + len(part)), self._pad_id).to(self._model.device)
            if what == "hidden" and start == 0:
                check_head(self._model, tokens)
            pieces = self._live(what, tokens).split(kind.sizes(tokens), dim=kind.axis)
            for key, piece in zip(_keys(tokens), pieces, strict=True):
                self._cache[what][key] = piece.clone()
                total += piece.nbytes
        self.kept[name] = f"cached, {total / 1e6:.1f} MB"

    def hidden(self, tokens: Tokens) -> Tensor:
        """[n, D] last hidden states (after the final norm) at the positions that predict completion tokens."""
        return self._get("hidden", tokens)

    def layers(self, tokens: Tokens) -> Sequence[Tensor]:
        """Every block's output, first to last, before the final norm: each [n, D] over the n real tokens."""
        return self._get("layers", tokens).unbind(0)

    def logprobs(self, tokens: Tokens) -> Tensor:
        """[B] log-probability of each row's completion, summed over its tokens, in nats (float32)."""
        return self._get("logprobs", tokens)

    def _get(self, what: Kept, tokens: Tokens) -> Tensor:
        """From the cache if every row is there, else live."""
        if cache := self._cache[what]:
            found = [piece for key in _keys(tokens) if (piece := cache.get(key)) is not None]
            if len(found) == tokens.num_rows:
                return torch.cat(found, dim=_KINDS[what].axis)
        return self._live(what, tokens)

    def _live(self, what: Kept, tokens: Tokens) -> Tensor:
        with self._frozen():
            return _KINDS[what].live(self._model, tokens)

    def _layers_bytes(self, rows: Sequence[Encoded]) -> int:
        config, dtype = unwrap(self._model).config, next(self._model.parameters()).dtype
        tokens = sum(len(row.input_ids) for row in rows)
        return tokens * config.num_hidden_layers * config.hidden_size * dtype.itemsize

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
