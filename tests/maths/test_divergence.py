import math

import pytest
import torch

from selgen.maths.divergence import kl_from_logits, total_kl

DIRECTIONS = ["policy_ref", "ref_policy", "jsd"]


def logits(n=5, v=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, v, generator=generator, dtype=torch.float64)


def test_policy_ref_by_hand():
    p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_from_logits(p.log()[None].double(), q.log()[None].double()).item() == pytest.approx(expected, abs=1e-7)


def test_the_two_directions_are_each_other_swapped():
    a, b = logits(seed=1), logits(seed=2)
    torch.testing.assert_close(kl_from_logits(a, b, "policy_ref"), kl_from_logits(b, a, "ref_policy"))


def test_jsd_is_symmetric_and_at_most_ln_2():
    a, b = logits(seed=1) * 50, logits(seed=2) * 50
    torch.testing.assert_close(kl_from_logits(a, b, "jsd"), kl_from_logits(b, a, "jsd"))
    assert kl_from_logits(a, b, "jsd").max() <= math.log(2) + 1e-12


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_zero_exactly_when_equal_and_positive_otherwise(direction):
    a = logits()
    assert kl_from_logits(a, a.clone(), direction).abs().max() < 1e-14
    assert kl_from_logits(a, logits(seed=3), direction).min() > 0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_adding_a_constant_to_the_logits_changes_nothing(direction):
    a, b = logits(seed=1), logits(seed=2)
    torch.testing.assert_close(kl_from_logits(a + 3, b - 5, direction), kl_from_logits(a, b, direction))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradient_agrees_with_finite_differences(direction):
    a = logits(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kl_from_logits(x, logits(3, 4, seed=9), direction), (a,))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_agrees_with_torch(direction):
    a, b = logits(seed=1), logits(seed=2)
    logp, logq = a.log_softmax(-1), b.log_softmax(-1)
    logm = ((logp.exp() + logq.exp()) / 2).log()

    def torch_kl(p, q):
        return torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)

    expected = {
        "policy_ref": torch_kl(logp, logq),
        "ref_policy": torch_kl(logq, logp),
        "jsd": (torch_kl(logp, logm) + torch_kl(logq, logm)) / 2,
    }
    torch.testing.assert_close(kl_from_logits(a, b, direction), expected[direction])


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.125, None), (1.0, 3.0)])
def test_agrees_with_trls_kernel(direction, scale, softcap):
    """Values and gradients, soft-caps and scales included; TRL computes in float32."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    policy, ref = (torch.nn.Linear(6, 11, bias=False) for _ in range(2))
    hidden, ref_hidden = logits(9, 6, seed=6).float().requires_grad_(), logits(9, 6, seed=7).float()

    def head(linear):
        return lambda h: linear(h) * scale if softcap is None else torch.tanh(linear(h) / softcap) * softcap

    share = {"policy_ref": 1.0, "ref_policy": 0.0, "jsd": 0.5}[direction]
    caps = (1.0, scale, softcap, scale, softcap)
    theirs = ChunkedDivergenceFunction.apply(hidden, policy.weight, None, ref_hidden, ref.weight, None, share, *caps)
    assert theirs is not None
    expected = theirs[0].sum()
    found = total_kl(hidden, ref_hidden, head(policy), head(ref), 4, direction)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    wanted = [hidden, policy.weight]
    for one, other in zip(torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("chunk", [1, 100])
def test_reference_head_gets_no_gradient(chunk):
    head = torch.nn.Linear(6, 11, bias=False, dtype=torch.float64)
    ref_head = torch.nn.Linear(6, 11, bias=False, dtype=torch.float64)
    total_kl(logits(3, 6).requires_grad_(), logits(3, 6, seed=2), head, ref_head, chunk).backward()
    assert head.weight.grad is not None and ref_head.weight.grad is None


def test_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="found 'forward'"):
        kl_from_logits(logits(), logits(), "forward")  # type: ignore[arg-type]
