"""Rescaling a trained adapter, against interpolation of the whole model's weights."""

from __future__ import annotations

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from selgen import models, tiny
from selgen.adapters import update_norm
from selgen.checks import Parent
from selgen.methods.rescale import Rescale

TOKENS = torch.tensor([[1, 2, 5, 9, 12, 7]])


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Parent:
    return Parent.make(tmp_path_factory.mktemp("parent"))


def rescaled(parent, alpha):
    model = parent.open()
    assert Rescale(alpha).transform(model, parent) == {}
    return model


def merged(model) -> dict[str, torch.Tensor]:
    return model.merge_and_unload().state_dict()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_the_weights_lie_on_the_line_from_start_to_task_only(parent, alpha):
    start, end = tiny.model().state_dict(), merged(parent.open())
    moved = [name for name in start if not torch.equal(start[name], end[name])]
    assert len(moved) == 14
    for name, weight in merged(rescaled(parent, alpha)).items():
        expected = start[name].double() + alpha * (end[name].double() - start[name].double())
        torch.testing.assert_close(weight.double(), expected, rtol=0, atol=1e-6)


def test_alpha_0_answers_as_the_starting_model_does(parent):
    with torch.no_grad():
        assert torch.equal(rescaled(parent, 0.0)(TOKENS).logits, tiny.model()(TOKENS).logits)


def test_alpha_1_leaves_every_bit(parent):
    before = parent.open().state_dict()
    assert all(torch.equal(value, before[name]) for name, value in rescaled(parent, 1.0).state_dict().items())


def test_the_length_of_the_update_is_proportional(parent):
    whole = update_norm(parent.open(), {})
    assert whole > 0
    for alpha in (0.0, 0.3, 2.0):
        assert update_norm(rescaled(parent, alpha), {}) == pytest.approx(alpha * whole, rel=1e-5)


def test_adapted_embeddings_are_scaled_too():
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False)
    model = get_peft_model(tiny.model(), config)
    whole = update_norm(model, {})
    Rescale(0.5).transform(model, None)
    assert update_norm(model, {}) == pytest.approx(whole / 2, rel=1e-5)


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_other_shares_are_refused(alpha):
    with pytest.raises(ValueError, match=f"method.alpha should be >= 0 and finite, found {alpha}. Use 1 for"):
        Rescale(alpha)


def test_dora_is_refused_before_the_parent_is_trained(parent):
    config = {"r": 2, "target_modules": "all-linear"}
    Rescale().check(models.empty(parent.path, models.lora_config(config)), parent)
    with pytest.raises(ValueError, match="without DoRA, whose norms .* found use_dora=true. Set lora.use_dora=false"):
        Rescale().check(models.empty(parent.path, models.lora_config(config | {"use_dora": True})), parent)
