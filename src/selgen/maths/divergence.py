"""Divergences between next-token distributions, per token, in chunks: no tensor of all tokens x vocabulary.

Shapes: n tokens, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from selgen.maths import chunks

Direction = Literal["policy_ref", "ref_policy", "jsd"]
Head = Callable[[Tensor], Tensor]


def kl_from_logits(logits_nV: Tensor, ref_logits_nV: Tensor, direction: Direction = "policy_ref") -> Tensor:
    """Divergence of each row, in nats, reduced in float32 (float64 stays float64).

    `policy_ref` is KL(p || ref), the expectation under the policy (TRL calls it reverse); `ref_policy` is
    KL(ref || p); `jsd` is KL(p || m)/2 + KL(ref || m)/2 with m the equal mixture, at most ln 2.

    Returns:
        [n], >= 0 up to rounding, with gradient to `logits_nV`.
    """
    return _divergence(_log_softmax(logits_nV), _log_softmax(ref_logits_nV), direction)


def total_kl(
    hidden_nD: Tensor,
    ref_hidden_nD: Tensor,
    head: Head,
    ref_head: Head,
    chunk_tokens: int,
    direction: Direction = "policy_ref",
) -> Tensor:
    """Divergence of the tokens' next-token distributions from the reference's, summed over tokens, in nats.

    Args:
        hidden_nD: Last hidden states of the policy, after the final norm, with gradient.
        ref_hidden_nD: The same of the reference, without gradient.
        head: Maps [n, D] to logits [n, V], final soft-cap included; its trained weights get their gradients.
        ref_head: The reference's own head (the same function unless the head is trained).
        chunk_tokens: Tokens whose logits exist at a time.

    Returns:
        Scalar.
    """

    def per_token(h_mD: Tensor, r_mD: Tensor) -> Tensor:
        # No logits have a name here: they would live on beside the log-probabilities.
        with torch.no_grad():
            logq_mV = _log_softmax(ref_head(r_mD))
        return _divergence(_log_softmax(head(h_mD)), logq_mV, direction)

    return chunks.total(per_token, chunk_tokens, hidden_nD, ref_hidden_nD)


def _divergence(logp: Tensor, logq: Tensor, direction: Direction) -> Tensor:
    if direction == "policy_ref":
        return _kl(logp, logq)
    if direction == "ref_policy":
        return _kl(logq, logp)
    if direction == "jsd":
        logm = torch.logaddexp(logp, logq) - torch.log(torch.tensor(2.0, dtype=logp.dtype, device=logp.device))
        return (_kl(logp, logm) + _kl(logq, logm)) / 2
    raise ValueError(f"direction should be policy_ref, ref_policy or jsd, found {direction!r}.")


def _log_softmax(logits: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, dim=-1)


def _kl(logp: Tensor, logq: Tensor) -> Tensor:
    return (logp.exp() * (logp - logq)).sum(-1)
