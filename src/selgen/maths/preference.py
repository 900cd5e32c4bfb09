"""Preference losses on the log-probabilities of whole answers. Shape: B pairs."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def dpo(chosen_B: Tensor, rejected_B: Tensor, ref_chosen_B: Tensor, ref_rejected_B: Tensor, beta: float) -> Tensor:
    """-log sigma(beta * margin); the margin says how much more the policy prefers the chosen answer than the reference.

    Args:
        chosen_B: Log-probability of each chosen answer under the policy, summed over its tokens, in nats.
        rejected_B: The same of the rejected answer.
        ref_chosen_B: The same of the chosen answer under the reference.
        ref_rejected_B: The same of the rejected answer under the reference.
        beta: Inverse temperature, > 0.

    Returns:
        [B], > 0; ln 2 where policy and reference prefer alike.
    """
    margin_B = (chosen_B - ref_chosen_B) - (rejected_B - ref_rejected_B)
    return -F.logsigmoid(beta * margin_B)
