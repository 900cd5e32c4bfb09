import pytest
import torch

from selgen.maths.hidden import hidden_distance

H = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[5.0, 5.0], [1.0, 1.0]])]
R = [torch.tensor([[3.0, 2.0], [0.0, 1.0]]), torch.tensor([[5.0, 5.0], [1.0, 4.0]])]


def test_distance_is_the_mean_square_over_units_and_layers():
    # Position 0: layer 1 (4 + 0) / 2, layer 2 0. Position 1: (0 + 1) / 2 and (0 + 9) / 2.
    assert hidden_distance(H, R).tolist() == [1.0, 2.5]


def test_the_squared_norm_is_larger_by_the_width():
    assert hidden_distance(H, R, "squared").tolist() == [2.0, 5.0]


def test_equal_states_have_distance_zero():
    assert hidden_distance(H, H).tolist() == [0.0, 0.0]


def test_a_layer_more_on_one_side_is_refused():
    with pytest.raises(ValueError, match="argument 2"):
        hidden_distance([*H, H[0]], R)


def test_half_precision_is_reduced_in_float32():
    h, r = [torch.full((1, 4), 300.0, dtype=torch.float16)], [torch.zeros(1, 4, dtype=torch.float16)]
    assert hidden_distance(h, r).item() == 90000.0  # beyond float16's range


def test_distance_passes_gradcheck_in_float64():
    h = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    r = [torch.randn(3, 2, dtype=torch.float64) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *layers: hidden_distance(layers, r), h)
