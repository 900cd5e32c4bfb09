"""Divergences between next-token distributions, per token, in chunks: no tensor of all tokens x vocabulary.

Shapes: n tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Direction = Literal["policy_ref", "ref_policy", "jsd"]
Head = Callable[[Tensor], Tensor]

CHUNK_TOKENS = 1024


def kl_from_logits(logits_nV: Tensor, ref_logits_nV: Tensor, direction: Direction = "policy_ref") -> Tensor:
    """Divergence of each row, in nats, reduced in float32 (float64 stays float64).

    `policy_ref` is KL(p || ref), the expectation under the policy (TRL calls it reverse); `ref_policy` is
    KL(ref || p); `jsd` is KL(p || m)/2 + KL(ref || m)/2 with m the equal mixture, at most ln 2.

    Returns:
        [n], >= 0 up to rounding, with gradient to `logits_nV`.
    """
    logp = _log_softmax(logits_nV)
    logq = _log_softmax(ref_logits_nV)
    if direction == "policy_ref":
        return _kl(logp, logq)
    if direction == "ref_policy":
        return _kl(logq, logp)
    if direction == "jsd":
        logm = torch.logaddexp(logp, logq) - torch.log(torch.tensor(2.0, dtype=logp.dtype, device=logp.device))
        return (_kl(logp, logm) + _kl(logq, logm)) / 2
    raise ValueError(f"direction should be policy_ref, ref_policy or jsd, found {direction!r}.")


def token_kl(
    hidden_nD: Tensor,
    ref_hidden_nD: Tensor,
    head: Head,
    ref_head: Head,
    direction: Direction = "policy_ref",
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Divergence of each token's next-token distribution from the reference's, in nats.

    Logits exist for `chunk_tokens` tokens at a time: beyond one chunk the backward pass recomputes them.

    Args:
        hidden_nD: Last hidden states of the policy, after the final norm, with gradient.
        ref_hidden_nD: The same of the reference, without gradient.
        head: Maps [n, D] to logits [n, V], final soft-cap included.
        ref_head: The reference's own head (the same function unless the head is trained).

    Returns:
        [n] in nats per token.
    """

    def chunk(h: Tensor, r: Tensor) -> Tensor:
        with torch.no_grad():
            ref_logits = ref_head(r)
        return kl_from_logits(head(h), ref_logits, direction)

    if hidden_nD.shape[0] <= chunk_tokens:
        return chunk(hidden_nD, ref_hidden_nD)
    parts = zip(hidden_nD.split(chunk_tokens), ref_hidden_nD.split(chunk_tokens), strict=True)
    return torch.cat([checkpoint(chunk, h, r, use_reentrant=False) for h, r in parts])


def _log_softmax(logits: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=-1)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    return (logp.exp() * (logp - logq)).sum(-1)
