"""The only code that calls a model's forward: cross-entropy, log-probabilities, hidden states.

Every call goes through the wrapper's own forward, so that DDP and FSDP hooks run.
Legend: B rows, T positions, n positions that predict a completion token, D hidden width, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn import functional as F

from selgen.adapters import whole
from selgen.core import Term, Tokens, Unit
from selgen.data.chat import IGNORE, Encoded, collate
from selgen.maths import chunks

CHECKED_POSITIONS = 8
"""Where `check_head` compares logits."""
TOLERANCE = 0.02
"""Relative norm within which two computations agree: half precision rounds at 0.4 % of each number."""
REFERENCE_BATCH = 16
"""Rows per forward pass where nothing is trained."""


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
    return model(**_inputs(tokens), logits_to_keep=_laid_out(tokens, tokens.predicts_BT)).logits


def chunk_tokens(model: nn.Module) -> int:
    """Tokens whose logits exist at a time where losses are computed.

    All of them where FSDP2 leaves each process a part of a head that is trained: gathering it within the backward pass
    of one chunk after another ends in a segmentation fault (torch 2.13).
    """
    inner = unwrap(model)
    layer = inner.get_output_embeddings()
    if layer.weight.requires_grad and _in_parts(layer):
        return sys.maxsize
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
    return _last_hidden(model, tokens)[_laid_out(tokens, tokens.predicts_BT)]


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
    """[B, T, D] last hidden states, after the final norm; [1, real tokens, D] if padding-free."""
    # 0 logits would mean all positions.
    return model(**_inputs(tokens), logits_to_keep=1, output_hidden_states=True).hidden_states[-1]


def _inputs(tokens: Tokens) -> dict[str, Any]:
    """What a model reads of a batch."""
    if not tokens.padding_free:
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, "use_cache": False}
    # Without a mask, transformers keeps attention within rows: it sees where positions begin anew.
    ids_1n, positions_1n = (_laid_out(tokens, x) for x in (tokens.input_ids, tokens.attention_mask.cumsum(1) - 1))
    return {"input_ids": ids_1n, "position_ids": positions_1n, "use_cache": False}


def _laid_out(tokens: Tokens, values_BT: Tensor) -> Tensor:
    """Values of positions, where the model has these positions: [B, T], or [1, real tokens] if padding-free."""
    return values_BT[tokens.attention_mask.bool()][None] if tokens.padding_free else values_BT


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
    real = _laid_out(tokens, tokens.attention_mask.bool())
    found: dict[int, Tensor] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(block: nn.Module, inputs: Any, output: Any) -> None:
            # setdefault: activation checkpointing runs a block again in the backward pass.
            found.setdefault(index, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [block.register_forward_hook(keep(i)) for i, block in enumerate(blocks)]
    try:
        model(**_inputs(tokens), logits_to_keep=1)  # 0 would mean all positions
    finally:
        for handle in handles:
            handle.remove()
    return [found[i][real] for i in range(len(blocks))]


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
    layer, config = inner.get_output_embeddings(), inner.config.to_dict()
    linear = _whole(layer)
    scale = (config.get("logit_scale") or 1.0) / (config.get("logits_scaling") or 1.0)
    softcap = config.get("final_logit_softcapping")

    def plain(hidden: Tensor) -> Tensor:
        # Mixed precision hands out float32 hidden states of a model whose weights are in half precision.
        return linear(hidden.to(layer.weight.dtype))

    if scale == 1 and softcap is None:
        return plain
    if softcap is None:
        return lambda hidden: plain(hidden) * scale
    return lambda hidden: torch.tanh(plain(hidden) * scale / softcap) * softcap


def _in_parts(layer: Any) -> bool:
    """Whether FSDP2 leaves each process a part of a linear layer's weight."""
    return isinstance(layer, nn.Linear) and isinstance(layer, FSDPModule)


def _whole(layer: Any) -> Callable[[Tensor], Tensor]:
    """A linear layer, or the function that it computes where FSDP2 leaves each process a part of its weight.

    FSDP2 gathers weights when modules are called, several of them together, in the order of the model's own forward
    pass: a head that is called alone would mislead it about the others.
    """
    if not _in_parts(layer):
        return layer

    def apply(hidden: Tensor) -> Tensor:
        return F.linear(hidden, whole(layer.weight), None if layer.bias is None else whole(layer.bias))

    return apply


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
    if difference > TOLERANCE:
        raise ValueError(
            f"the logits of a {unwrap(model).config.model_type} model should be its head on its last hidden states, "
            f"found a relative difference of {difference:.2g}. Choose a model that changes nothing after the head."
        )


def unwrap(model: Any) -> Any:
    """The Hugging Face model inside DDP, DeepSpeed and PEFT wrappers."""
    while isinstance(model, nn.parallel.DistributedDataParallel) or type(model).__name__ == "DeepSpeedEngine":
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
