"""Random tensors that depend on their key alone."""

from __future__ import annotations

import pytest
import torch

from selgen.maths.noise import gaussian_like

X = torch.zeros(40, 50)


def test_the_same_key_gives_the_same_numbers_and_another_key_others():
    assert torch.equal(gaussian_like(X, "1:0:a"), gaussian_like(X + 7, "1:0:a"))
    others = [gaussian_like(X, key).flatten() for key in ("1:0:a", "1:1:a", "2:0:a", "1:0:b")]
    for i, one in enumerate(others):
        for other in others[:i]:
            assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.1


def test_they_are_standard_normal():
    drawn = gaussian_like(torch.zeros(100_000, dtype=torch.float64), "key")
    assert drawn.dtype == torch.float64
    assert drawn.mean().item() == pytest.approx(0, abs=0.02) and drawn.std().item() == pytest.approx(1, abs=0.02)
    assert (drawn.abs() < 1.96).double().mean().item() == pytest.approx(0.95, abs=0.01)


def test_no_other_random_state_moves():
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    gaussian_like(X, "key")
    assert torch.equal(torch.randn(2), expected)
