"""What an adapter adds to the weights, against PEFT's own merge; folding leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from selgen import adapters, models, tiny

LORA = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"down_proj": 5}},
    "few": {"target_modules": ["q_proj", "down_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "o_proj"]},
    "dora of an embedding": {"target_modules": ["embed_tokens"], "use_dora": True},
}


def adapted(model: Any, **changes: Any) -> PeftModel:
    """Every part of the adapter does something: A, B and, with DoRA, the magnitude."""
    torch.manual_seed(0)
    config = {"r": 2, "lora_alpha": 7, "target_modules": "all-linear", "init_lora_weights": False} | changes
    made = get_peft_model(model, LoraConfig(**config))
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_magnitude_vector" in name:
                p.mul_(1 + torch.rand_like(p))
    return made


def gpt2() -> GPT2LMHeadModel:
    """Its weights are stored [in, out]; the first projection of attention has as many rows as columns."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=2))


def norm_of_the_merge(model: PeftModel, base: Any) -> float:
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    moved = [(merged[name].double() - value.double()).square().sum() for name, value in base.state_dict().items()]
    return torch.stack(moved).sum().sqrt().item()


def bits(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_bits(model: Any, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


# --- the norm of the update -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LORA)
def test_the_update_norm_is_that_of_the_merged_weights(kind):
    model = adapted(tiny.model(), **LORA[kind])
    norm = norm_of_the_merge(model, tiny.model())
    assert norm > 0.5
    assert adapters.update_norm(model, {}) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("target", ["c_proj", "c_attn"])
def test_the_update_norm_holds_for_weights_that_are_stored_the_other_way_round(use_dora, target):
    model = adapted(gpt2(), target_modules=[target], fan_in_fan_out=True, use_dora=use_dora)
    assert adapters.update_norm(model, {}) == pytest.approx(norm_of_the_merge(model, gpt2()), rel=1e-5)


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
def test_an_untrained_adapter_has_moved_nothing(kind):
    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules="all-linear", **LORA[kind]))
    # DoRA divides by the norm and multiplies by it again, which rounds.
    assert adapters.update_norm(model, {}) == pytest.approx(0, abs=1e-4 if kind == "dora" else 0)


def test_dora_that_only_stretches_moves_each_weight_by_the_stretch():
    model = adapted(tiny.model(), use_dora=True, init_lora_weights=True, target_modules=["lm_head"])
    weight = model.get_base_model().lm_head.get_base_layer().weight
    model.get_base_model().lm_head.lora_magnitude_vector["default"].weight.data = 3 * weight.norm(dim=1)
    assert adapters.update_norm(model, {}) == pytest.approx(2 * weight.norm().item(), rel=1e-5)


def test_without_an_adapter_it_is_the_distance_from_where_training_began():
    model = tiny.model()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if "layers.0" in name}
    assert adapters.update_norm(model, before) == 0
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] += 3
        model.model.layers[0].self_attn.q_proj.weight[1, 1] -= 4
        model.lm_head.weight += 1  # was not trained
    assert adapters.update_norm(model, before) == pytest.approx(5, rel=1e-5)


# --- folding ----------------------------------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 5, 9, 7]])).logits


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "embedding", "dora of an embedding"])
def test_folding_says_the_same_and_restores_every_bit(architecture, kind, fails):
    plain = tiny.model(architecture, tie_word_embeddings=False)
    model = adapted(plain, **LORA[kind])
    before, beside = bits(model), logits(model)

    def inside() -> None:
        with adapters.folded(model):
            layers = [layer for _, layer in adapters.lora_layers(model)]
            assert layers and all(layer.merged for layer in layers)
            torch.testing.assert_close(logits(model), beside, rtol=1e-4, atol=1e-4)
            if fails:
                raise RuntimeError("inside")

    if fails:
        with pytest.raises(RuntimeError, match="inside"):
            inside()
    else:
        inside()
    assert_same_bits(model, before)
    assert not any(layer.merged for _, layer in adapters.lora_layers(model))
    assert torch.equal(logits(model), beside)


@pytest.mark.parametrize("why", ["plain", "half", "large", "merged"])
def test_what_cannot_be_folded_exactly_is_left_alone(why, monkeypatch):
    model = tiny.model() if why == "plain" else adapted(tiny.model())
    if why == "half":
        model = model.bfloat16()
    if why == "large":
        size = sum(layer.get_base_layer().weight.nbytes for _, layer in adapters.lora_layers(model))
        monkeypatch.setattr(adapters, "MAX_FOLDED_BYTES", size - 1)
    if why == "merged":
        model.merge_adapter()
    before, said = bits(model), logits(model)
    with adapters.folded(model):
        assert_same_bits(model, before)
    assert_same_bits(model, before)
    assert torch.equal(logits(model), said)


# --- taking out and adding up -----------------------------------------------------------------------------------------


def product(weights: adapters.AdapterWeights, name: str) -> torch.Tensor:
    a, b = weights.factors[name]
    return b @ a


@pytest.mark.parametrize("kind", ["lora", "rslora", "ranks", "few"])
def test_what_is_taken_out_is_what_a_merge_adds(kind):
    model, base = adapted(tiny.model(), **LORA[kind]), tiny.model()
    weights = adapters.extract(model)
    merged = copy.deepcopy(model).merge_and_unload().state_dict()
    changed = {name for name, value in base.state_dict().items() if not torch.equal(merged[name], value)}
    assert {f"{name}.weight" for name in weights.factors} == changed
    for name in weights.factors:
        added = merged[f"{name}.weight"] - base.state_dict()[f"{name}.weight"]
        torch.testing.assert_close(product(weights, name), added, rtol=1e-4, atol=1e-5)


def test_two_adapters_become_one_that_adds_what_both_do(tmp_path):
    one, other = (adapters.extract(adapted(tiny.model(), **LORA[kind])) for kind in ("rslora", "few"))
    for weights in (both := adapters.concatenate(one, other), adapters.concatenate(other, one)):
        for name in one.factors:
            total = product(one, name) + (product(other, name) if name in other.factors else 0)
            torch.testing.assert_close(product(weights, name), total)
    adapters.write(both, tmp_path)
    opened = PeftModel.from_pretrained(tiny.model(), tmp_path)
    read = adapters.extract(opened)
    assert read.factors.keys() == both.factors.keys()
    assert all(torch.allclose(product(read, name), product(both, name), atol=1e-6) for name in both.factors)


# --- DoRA and a starting adapter --------------------------------------------------------------------------------------


@pytest.mark.parametrize("started, wanted", [(True, False), (False, True), (True, True), (True, None)])
def test_dora_with_a_trained_starting_adapter_is_refused(started, wanted):
    start = adapted(tiny.model(), use_dora=started)
    before = bits(start)
    config = None if wanted is None else LoraConfig(r=2, target_modules="all-linear", use_dora=wanted)
    with pytest.raises(ValueError, match=r"lora.use_dora should be false with a starting adapter.* or turn DoRA off"):
        models.prepare(start, config)
    assert_same_bits(start, before)


def test_dora_on_plain_weights_and_on_an_untrained_adapter_is_fine():
    config = LoraConfig(r=2, target_modules="all-linear", use_dora=True)
    untrained = adapted(tiny.model(), init_lora_weights=True)
    for model in (tiny.model(), untrained):
        made, start = models.prepare(model, config)
        assert start is None and adapters.config_of(made).use_dora
        assert adapters.update_norm(made, {}) == pytest.approx(0, abs=1e-4)
        assert len(adapters.lora_layers(made)) == 14


# --- adapters on disk, and on top of one another ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "rslora", "ranks", "few"])
def test_a_saved_adapter_reads_as_what_peft_makes_of_it(kind, tmp_path):
    tiny.model().save_pretrained(tmp_path / "base")
    model = adapted(type(tiny.model()).from_pretrained(tmp_path / "base"), **LORA[kind])
    model.save_pretrained(tmp_path / "adapter")
    read, own = models.read_adapter(tmp_path / "adapter"), adapters.extract(model)
    assert read.factors.keys() == own.factors.keys()
    assert all(torch.equal(x, y) for m in own.factors for x, y in zip(read.factors[m], own.factors[m], strict=True))
    stored, merged = models.StoredWeights(str(tmp_path / "adapter")), model.merge_and_unload()
    for name, module in merged.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            assert torch.allclose(stored.read(name), module.weight, atol=1e-5)


def test_stored_weights_with_an_adapter_are_turned_where_the_model_stores_them_so(tmp_path):
    gpt2().save_pretrained(tmp_path / "base")
    loaded = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    model = adapted(loaded, target_modules=["c_attn"], fan_in_fan_out=True)
    model.save_pretrained(tmp_path / "adapter")
    stored = models.StoredWeights(str(tmp_path / "adapter")).read("transformer.h.0.attn.c_attn")
    assert torch.allclose(stored, model.merge_and_unload().transformer.h[0].attn.c_attn.weight, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "rslora", "ranks", "few"])
def test_a_sum_is_taken_apart_into_the_same_bits_and_attached_it_does_the_same(kind):
    first = adapters.extract(adapted(tiny.model(), r=3, target_modules=["q_proj", "up_proj"]))
    second = adapters.extract(adapted(tiny.model(), **LORA[kind]))
    back = adapters.split(adapters.concatenate(first, second), first)
    assert back.factors.keys() == second.factors.keys()
    attached = adapters.extract(adapters.attach(tiny.model(), back))
    for name, factors in second.factors.items():
        for found in (back, attached):
            assert all(torch.equal(x, y) for x, y in zip(found.factors[name], factors, strict=True))


def test_a_sum_with_another_start_is_refused():
    first = adapters.extract(adapted(tiny.model()))
    moved = adapters.AdapterWeights(first.config, {name: (a + 1, b) for name, (a, b) in first.factors.items()})
    with pytest.raises(ValueError, match="should contain the one that it started from, found other numbers in"):
        adapters.split(adapters.concatenate(moved, first), first)
