"""DPO against its closed form, its gradient's signs, and TRL's loss on the same log-probabilities."""

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from selgen.maths.preference import dpo

logps = st.lists(st.floats(-60, -0.01), min_size=4, max_size=4)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_dpo_is_ln2_when_policy_is_reference(beta):
    logp = torch.tensor([-3.0, -7.5])
    assert dpo(logp, logp - 1, logp, logp - 1, beta).tolist() == pytest.approx([math.log(2)] * 2)


@given(logps, st.floats(0.01, 5))
def test_dpo_agrees_with_the_closed_form(values, beta):
    plus, minus, ref_plus, ref_minus = (torch.tensor([v], dtype=torch.float64) for v in values)
    margin = (values[0] - values[2]) - (values[1] - values[3])
    expected = math.log1p(math.exp(-abs(beta * margin))) + max(-beta * margin, 0)
    assert dpo(plus, minus, ref_plus, ref_minus, beta).item() == pytest.approx(expected, rel=1e-12)


def test_dpo_gradient_raises_chosen_and_lowers_rejected():
    chosen = torch.tensor([-3.0, -1.0], requires_grad=True)
    rejected = torch.tensor([-2.0, -9.0], requires_grad=True)
    dpo(chosen, rejected, torch.tensor([-3.0, -2.0]), torch.tensor([-2.0, -8.0]), 0.1).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert (chosen.grad < 0).all() and torch.allclose(chosen.grad, -rejected.grad)


def test_dpo_passes_gradcheck_in_float64():
    args = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *a: dpo(*a, 0.3), args)


def test_dpo_is_trls_loss_on_the_same_log_probabilities():
    """TRL's own `_compute_loss`, fed per-token log-probabilities instead of a model; pads carry 0 there."""
    from trl.trainer.dpo_trainer import DPOTrainer

    torch.manual_seed(0)
    completion = torch.tensor(
        [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    )  # 2 chosen, 2 rejected
    policy, reference = (-torch.rand(4, 4) * 5 * completion[:, 1:] for _ in range(2))

    def model_saying(log_probs):
        extra = dict.fromkeys(("entropy", "mean_logits", "is_top1"), torch.zeros(4, 4, dtype=torch.bool))
        said = SimpleNamespace(log_probs=log_probs, **extra)

        class Said(torch.nn.Module):
            def forward(self, **kwargs):
                return said

        return Said()

    gather = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device="cpu")
    gather.unwrap_model = lambda m: m
    trainer = SimpleNamespace(
        model=model_saying(policy),
        ref_model=model_saying(reference),
        accelerator=gather,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        beta=0.3,
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    sums, ref_sums = policy.sum(1), reference.sum(1)
    inputs = {"input_ids": torch.ones_like(completion), "attention_mask": torch.ones_like(completion)}
    inputs |= {"completion_mask": completion, "ref_chosen_logps": ref_sums[:2], "ref_rejected_logps": ref_sums[2:]}
    theirs = DPOTrainer._compute_loss(trainer, trainer.model, inputs, return_outputs=False)
    ours = dpo(sums[:2], sums[2:], ref_sums[:2], ref_sums[2:], 0.3).mean()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert abs(ours.item() - math.log(2)) > 0.05, "the two models should differ"
