import pytest
import torch

from selgen.maths.hidden import centred_cosine_distances, hidden_distance

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


def test_centred_cosine_distance_by_hand():
    # The mean is (1, 1): what is left are (1, 0), (-1, 0), (0, 1), (0, -1), and (2, 0) for the vector.
    others = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
    assert centred_cosine_distances(torch.tensor([3.0, 1.0]), others) == pytest.approx([0.0, 2.0, 1.0, 1.0])


def test_a_part_that_all_vectors_share_does_not_count():
    vector, others = torch.randn(5), torch.randn(4, 5)
    shifted = centred_cosine_distances(vector + 100, others + 100)
    assert shifted == pytest.approx(centred_cosine_distances(vector, others), abs=1e-3)


def test_what_has_no_direction_has_no_distance():
    others = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]) + 0.3
    assert centred_cosine_distances(torch.tensor([2.3, 0.3]), others) == [pytest.approx(0), pytest.approx(2), None]
    assert centred_cosine_distances(torch.tensor([0.3, 0.3]), others) == [None, None, None]
    assert centred_cosine_distances(torch.tensor([2.0, 0.0]), torch.tensor([[0.1, 0.2]])) == [None]
