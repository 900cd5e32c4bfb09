"""Chunks against one pass over everything, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from selgen.maths import chunks
from selgen.maths.divergence import kl_from_logits, total_kl

DIRECTIONS = ["policy_ref", "ref_policy", "jsd"]
WIDTH = 6


def heads(vocabulary, scale, softcap):
    """A policy head and a reference head with weights of their own, and the same scale and soft-cap."""

    def make(seed):
        linear = torch.nn.Linear(WIDTH, vocabulary, dtype=torch.float64)
        with torch.no_grad():
            for i, parameter in enumerate(linear.parameters()):
                parameter.copy_(numbers(*parameter.shape, seed=seed + i))
        return linear, lambda h: linear(h) * scale if softcap is None else torch.tanh(linear(h) / softcap) * softcap

    return make(10), make(20)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(value, linear, hidden):
    return torch.autograd.grad(value, [hidden, *linear.parameters()])


def close(found, expected):
    assert (found - expected).norm() <= 1e-12 * (1 + expected.norm())


class Largest(TorchDispatchMode):
    """Remembers the most elements that any tensor made inside has."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 2.0)])
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), vocabulary=st.integers(2, 9), chunk=st.integers(1, 13), weight=st.floats(0, 100))
def test_kl_in_chunks_is_kl(direction, scale, softcap, n, vocabulary, chunk, weight):
    """Value, and gradients of hidden states and of a trained head, whatever the sum is multiplied by."""
    (linear, head), (_, ref_head) = heads(vocabulary, scale, softcap)
    hidden, ref_hidden = numbers(n, WIDTH, seed=1).requires_grad_(), numbers(n, WIDTH, seed=2)
    naive = weight * kl_from_logits(head(hidden), ref_head(ref_hidden).detach(), direction).sum()
    found = weight * total_kl(hidden, ref_hidden, head, ref_head, chunk, direction)
    close(found, naive)
    for one, other in zip(gradients(found, linear, hidden), gradients(naive, linear, hidden), strict=True):
        close(one, other)


@pytest.mark.parametrize("trained", [True, False])
@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 12), chunk=st.integers(1, 13))
def test_values_of_each_token_may_be_weighted_differently(trained, n, chunk):
    (linear, head), _ = heads(7, 1.0, 2.0)
    linear.requires_grad_(trained)
    hidden, targets, weights = numbers(n, WIDTH, seed=1).requires_grad_(), torch.arange(n) % 7, numbers(n, seed=3)

    def nll(h, t):
        return F.cross_entropy(head(h), t, reduction="none")

    found, naive = chunks.each(nll, chunk, hidden, targets), nll(hidden, targets)
    close(found, naive)
    wanted = [hidden, *linear.parameters()] if trained else [hidden]
    pairs = (torch.autograd.grad(values @ weights, wanted) for values in (found, naive))
    for one, other in zip(*pairs, strict=True):
        close(one, other)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("trained", [True, False])
def test_nothing_larger_than_one_chunk_of_logits_exists_forward_or_backward(direction, trained):
    n, vocabulary, chunk = 20, 30, 7
    (linear, head), (_, ref_head) = heads(vocabulary, 1.0, None)
    linear.requires_grad_(trained)
    hidden, ref_hidden = numbers(n, WIDTH, seed=1).requires_grad_(), numbers(n, WIDTH, seed=2)
    with Largest() as seen:
        value = total_kl(hidden, ref_hidden, head, ref_head, chunk, direction)
        torch.autograd.grad(value, [hidden, *linear.parameters()] if trained else [hidden])
    assert seen.elements == max(n * WIDTH, chunk * vocabulary)
    with Largest() as naive:
        kl_from_logits(head(hidden), ref_head(ref_hidden), direction)
    assert naive.elements == n * vocabulary


def test_where_all_tokens_fit_in_one_chunk_the_bits_are_those_of_one_pass():
    (linear, head), (_, ref_head) = heads(9, 1.0, None)
    hidden, ref_hidden = numbers(8, WIDTH, seed=1).requires_grad_(), numbers(8, WIDTH, seed=2)
    naive = kl_from_logits(head(hidden), ref_head(ref_hidden).detach()).sum()
    found = total_kl(hidden, ref_hidden, head, ref_head, 8)
    assert torch.equal(found, naive)
    for one, other in zip(gradients(found, linear, hidden), gradients(naive, linear, hidden), strict=True):
        assert torch.equal(one, other)


def test_without_gradients_nothing_is_differentiated():
    (_, head), (_, ref_head) = heads(9, 1.0, None)
    hidden, ref_hidden = numbers(8, WIDTH, seed=1).requires_grad_(), numbers(8, WIDTH, seed=2)
    with torch.no_grad():
        found = total_kl(hidden, ref_hidden, head, ref_head, 3)
    assert not found.requires_grad
    close(found, kl_from_logits(head(hidden), ref_head(ref_hidden)).sum())


def test_a_chunk_has_at_least_one_token_and_fewer_the_larger_the_vocabulary():
    cpu = torch.device("cpu")
    assert chunks.chunk_tokens(1 << 30, cpu) == 1
    assert chunks.chunk_tokens(1000, cpu) * 1000 <= chunks.CHUNK_ELEMENTS < (chunks.chunk_tokens(1000, cpu) + 1) * 1000
    assert chunks.chunk_tokens(1000, torch.device("cuda")) > chunks.chunk_tokens(1000, cpu)
