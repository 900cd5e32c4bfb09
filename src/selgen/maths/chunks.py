"""Values per token, a chunk of tokens at a time: what is as large as tokens x vocabulary exists for one chunk only.

The forward pass of each chunk is followed at once by its own backward pass, after which its logits are gone; the
backward pass proper only scales. So nothing is computed twice.

Shapes: n tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

PerToken = Callable[..., Tensor]
"""Maps hidden states [m, D] and m rows of other tensors to m values, each of them a function of its own row alone."""

CHUNK_ELEMENTS = 1 << 22
"""Most logits of a chunk: 16 MB in float32, so that a chunk stays small beside the activations of any real model."""
GPU_CHUNK_ELEMENTS = 1 << 26
"""The same on a GPU, where a product with few rows spends its time reading the head's weights."""


def chunk_tokens(vocabulary: int, device: torch.device) -> int:
    """Tokens whose logits make one chunk, >= 1."""
    return max(1, (CHUNK_ELEMENTS if device.type == "cpu" else GPU_CHUNK_ELEMENTS) // vocabulary)


def total(per_token: PerToken, chunk: int, hidden_nD: Tensor, *others: Tensor) -> Tensor:
    """The sum of `per_token` over all tokens; a scalar.

    Args:
        per_token: May read weights of its own, which get their gradients.
        chunk: Tokens at a time; where all fit in one, it is called as it is.
        hidden_nD: Gets a gradient.
        others: n rows each, without gradient.
    """
    return _values(per_token, chunk, hidden_nD, others, summed=True).sum()


def each(per_token: PerToken, chunk: int, hidden_nD: Tensor, *others: Tensor) -> Tensor:
    """[n] values of `per_token`, as `total` sums them.

    Trained weights inside `per_token` are the one case in which the backward pass computes chunks again: their
    gradient depends on how the values are used.
    """
    return _values(per_token, chunk, hidden_nD, others, summed=False)


def _values(per_token: PerToken, chunk: int, hidden_nD: Tensor, others: Sequence[Tensor], summed: bool) -> Tensor:
    if hidden_nD.shape[0] <= chunk:
        return per_token(hidden_nD, *others)
    parts = zip(*(x.split(chunk) for x in (hidden_nD, *others)), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([per_token(*part) for part in parts])
    trained = _trained(per_token, hidden_nD, others)
    if trained and not summed:
        return torch.cat([checkpoint(per_token, *part, use_reentrant=False) for part in parts])
    return _Chunked.apply(per_token, chunk, len(others), hidden_nD, *others, *trained)


def _trained(per_token: PerToken, hidden_nD: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
    """The weights to which a value's graph leads."""
    value = per_token(hidden_nD[:1].detach(), *(x[:1] for x in others))
    return list({id(leaf): leaf for leaf in _leaves(value.grad_fn)}.values())


def _leaves(root: Any) -> Iterator[Tensor]:
    waiting, seen = [root], {None}
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
            if hasattr(node, "variable"):
                yield node.variable


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, per_token: PerToken, chunk: int, num_others: int, hidden_nD: Tensor, *rest: Tensor) -> Tensor:
        others, trained = rest[:num_others], rest[num_others:]
        grad_nD = torch.empty_like(hidden_nD)
        sums, values = [torch.zeros_like(weight) for weight in trained], []
        for h_mD, g_mD, *part in zip(*(x.split(chunk) for x in (hidden_nD, grad_nD, *others)), strict=True):
            with torch.enable_grad():
                leaf_mD = h_mD.detach().requires_grad_()
                value_m = per_token(leaf_mD, *part)
                found = torch.autograd.grad(value_m.sum(), (leaf_mD, *trained))
            g_mD.copy_(found[0])
            for so_far, grad in zip(sums, found[1:], strict=True):
                so_far += grad
            values.append(value_m.detach())
        ctx.save_for_backward(grad_nD, *sums)
        ctx.num_others = num_others
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (scale_n,), (grad_nD, *sums) = grads, ctx.saved_tensors
        # Weights are trained through sums only, whose gradient is the same for all tokens.
        scaled = [(scale_n[0] * grad).to(grad.dtype) for grad in sums]
        hidden = (scale_n[:, None] * grad_nD).to(grad_nD.dtype)
        return None, None, None, hidden, *[None] * ctx.num_others, *scaled
