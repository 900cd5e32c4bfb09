"""Safe LoRA on a trained adapter, against the published formulas on whole models in float64."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from selgen import models, tiny
from selgen.adapters import lora_layers
from selgen.checks import Parent
from selgen.methods.safe_lora import SafeLoRA

MODULES = 14


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Parent:
    return Parent.make(tmp_path_factory.mktemp("parent"))


def factors(model):
    """Module -> (A, B)."""
    return {
        name: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone())
        for name, layer in lora_layers(model)
    }


def official(model, base, aligned, transposed=False):
    """Module -> (P B, cosine), as Hsu et al. (2024) compute them: from two whole models, every matrix formed."""
    found = {}
    for name, (a, b) in factors(model).items():
        v = (aligned[f"{name}.weight"] - base[f"{name}.weight"]).double()
        v = v.T if transposed else v
        p = v @ v.T / torch.sqrt((v * v).sum())
        ours, plain = (p @ b.double() @ a.double()).flatten(), (b.double() @ a.double()).flatten()
        found[name] = p @ b.double(), float(ours @ plain / (ours.norm() * plain.norm()))
    return found


def expected(parent):
    base, aligned = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (parent.pretrained, parent.path))
    return official(parent.open(), base, aligned)


def transformed(method, parent):
    model = parent.open()
    said = method.transform(model, parent)
    return factors(model), said


def changed(after, parent):
    """Modules whose B differs; no A may."""
    before = factors(parent.open())
    assert all(torch.equal(after[name][0], before[name][0]) for name in before)
    return [name for name in before if not torch.equal(after[name][1], before[name][1])]


def test_every_module_becomes_what_the_published_formula_says(parent):
    after, said = transformed(SafeLoRA(k=MODULES), parent)
    assert len(after) == MODULES and set(changed(after, parent)) == set(after)
    for name, (b, cosine) in expected(parent).items():
        assert said["cosines"][name] == pytest.approx(cosine, abs=1e-6)
        assert ((after[name][1] - b).norm() / b.norm()).item() < 1e-6


@pytest.mark.parametrize("k", [0, 1, 5, MODULES])
def test_k_counts_the_least_similar_modules(parent, k):
    after, said = transformed(SafeLoRA(k=k), parent)
    rising = sorted(expected(parent).items(), key=lambda item: item[1][1])
    assert set(changed(after, parent)) == set(said["projected"]) == {name for name, _ in rising[:k]}


def test_tau_projects_what_is_at_most_as_similar(parent):
    rising = sorted(transformed(SafeLoRA(k=0), parent)[1]["cosines"].values())
    for tau, number in [(0.0, 0), (rising[4], 5), (rising[4] - 1e-9, 4), (1.0, MODULES)]:
        assert len(changed(transformed(SafeLoRA(tau=tau), parent)[0], parent)) == number


def test_modules_that_are_equally_similar_are_taken_in_model_order():
    assert SafeLoRA(k=2)._chosen({"b": 0.5, "a": 0.5, "c": 0.1}) == ["c", "b"]


def test_shards_and_half_precision_are_read_as_one_file_is(parent, tmp_path):
    for directory, name in ((parent.path, "aligned"), (parent.pretrained, "base")):
        model = AutoModelForCausalLM.from_pretrained(directory)
        model.save_pretrained(tmp_path / name, max_shard_size="4KB")
        model.to(torch.bfloat16).save_pretrained(tmp_path / f"{name} half")
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 2
    whole, _ = transformed(SafeLoRA(k=8), parent)
    shards, _ = transformed(SafeLoRA(k=8, base=str(tmp_path / "base"), aligned=str(tmp_path / "aligned")), parent)
    assert all(torch.equal(shards[name][1], whole[name][1]) for name in whole)
    half = SafeLoRA(k=MODULES, base=str(tmp_path / "base half"), aligned=str(tmp_path / "aligned half"))
    sides = (AutoModelForCausalLM.from_pretrained(tmp_path / f"{n} half").float() for n in ("base", "aligned"))
    for name, (b, _) in official(parent.open(), *(side.state_dict() for side in sides)).items():
        assert ((transformed(half, parent)[0][name][1] - b).norm() / b.norm()).item() < 1e-5


def test_no_whole_model_is_loaded_and_each_weight_is_read_once(parent, monkeypatch):
    model, read = parent.open(), []
    stored = models.StoredWeights.read
    monkeypatch.setattr(models.StoredWeights, "read", lambda self, n: read.append((self.name, n)) or stored(self, n))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: pytest.fail("loaded a whole model"))
    SafeLoRA(k=3).transform(model, parent)
    assert len(read) == len(set(read)) == 2 * MODULES


def with_change(parent, directory, change) -> str:
    """A copy of the unaligned model after `change`."""
    model = AutoModelForCausalLM.from_pretrained(parent.pretrained)
    with torch.no_grad():
        change(model)
    model.save_pretrained(directory)
    return str(directory)


def test_a_module_that_alignment_left_alone_is_left_alone(parent, tmp_path):
    same = "model.layers.1.mlp.down_proj"
    aligned = AutoModelForCausalLM.from_pretrained(parent.path)
    base = with_change(
        parent, tmp_path / "base", lambda m: m.get_submodule(same).weight.copy_(aligned.get_submodule(same).weight)
    )
    for method in (SafeLoRA(k=MODULES, base=base), SafeLoRA(tau=1.0, base=base)):
        after, said = transformed(method, parent)
        assert said["cosines"].pop(same) is None and None not in said["cosines"].values()
        assert set(changed(after, parent)) == set(after) - {same}
        assert all(bool(b.isfinite().all()) for _, b in after.values())


def test_weights_that_are_stored_the_other_way_round_are_turned(tmp_path):
    """GPT-2 stores [in, out]; the first projection of attention is not square."""
    for seed, name in ((0, "aligned"), (1, "base")):
        torch.manual_seed(seed)
        GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2)).save_pretrained(
            tmp_path / name
        )
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    model = get_peft_model(GPT2LMHeadModel.from_pretrained(tmp_path / "aligned"), config)
    base, aligned = (GPT2LMHeadModel.from_pretrained(tmp_path / n).state_dict() for n in ("base", "aligned"))
    wanted = official(model, base, aligned, transposed=True)
    start = SimpleNamespace(path=str(tmp_path / "aligned"), pretrained=str(tmp_path / "base"), planned=False)
    SafeLoRA(k=2).check(model, start)
    SafeLoRA(k=2).transform(model, start)
    for name, (_, b) in factors(model).items():
        torch.testing.assert_close(b.double(), wanted[name][0], rtol=1e-5, atol=1e-7)


def test_hub_ids_are_taken_from_the_hub(parent, monkeypatch):
    asked = []
    monkeypatch.setattr(models, "snapshot_download", lambda name, **kwargs: asked.append(name) or parent.pretrained)
    after, _ = transformed(SafeLoRA(k=4, base="owner/base"), parent)
    assert asked == ["owner/base"]
    assert all(torch.equal(b, transformed(SafeLoRA(k=4), parent)[0][name][1]) for name, (_, b) in after.items())


# -- what is refused before anything is trained --


def test_a_strength_is_k_or_tau():
    assert (SafeLoRA().k, SafeLoRA().strength, SafeLoRA().neutral) == (10, "k", (0, "task_only"))
    assert (SafeLoRA(tau=0.3).k, SafeLoRA(tau=0.3).strength) == (None, "tau")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": -1}, "method.k should be >= 0, found -1. Use 0"),
        ({"tau": -0.1}, r"method.tau should be in \[0, 1\], found -0.1. Use k=0"),
        ({"tau": 1.1}, r"method.tau should be in \[0, 1\], found 1.1"),
        ({"k": 3, "tau": 0.5}, "method.k and method.tau exclude each other, found 3 and 0.5. Set one of them to null"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SafeLoRA(**fields)


def meta(parent: Parent, **lora) -> PeftModel:
    return models.empty(parent.path, models.lora_config({"r": 2, "target_modules": "all-linear"} | lora))


def test_an_empty_model_has_the_names_and_shapes_and_no_numbers(parent):
    model = meta(parent, r=4)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    shapes = {name: (a.shape, b.shape) for name, (a, b) in factors(model).items()}
    assert shapes == {name: (a.shape, b.shape) for name, (a, b) in factors(parent.open()).items()}
    SafeLoRA().check(model, parent)


@pytest.mark.parametrize(
    ("method", "lora", "message"),
    [
        (SafeLoRA(k=15), {}, "method.k should be at most 14, the number of adapted modules, found 15. Lower it"),
        (SafeLoRA(), {"use_dora": True}, "linear layers only, without DoRA, found model.layers.0.self_attn.q_proj"),
        (SafeLoRA(k=1), {"target_modules": ["embed_tokens"]}, "linear layers only, .* found model.embed_tokens"),
        (SafeLoRA(base="./nowhere"), {}, "./nowhere is no model whose weights can be read .* Name a model directory"),
    ],
)
def test_what_cannot_be_projected_is_refused(parent, method, lora, message):
    with pytest.raises(ValueError, match=message):
        method.check(meta(parent, **lora), parent)


def test_other_models_than_miniatures_need_a_base(parent):
    with pytest.raises(
        ValueError, match="method.base should name the weights of .* before alignment, found null. Give"
    ):
        SafeLoRA().check(meta(parent), SimpleNamespace(path=parent.path, pretrained=None))


def test_another_shape_is_refused_with_module_and_shapes(parent, tmp_path):
    tiny.model(intermediate_size=24).save_pretrained(tmp_path)
    match = (
        r"weights of model.layers.0.mlp.gate_proj should have one shape, found \[24, 16\] in base .*, \[32, 16\] in "
        r"aligned .* and \[32, 16\] in the starting model. Name models of one architecture"
    )
    with pytest.raises(ValueError, match=match):
        SafeLoRA(base=str(tmp_path)).check(meta(parent), parent)


def test_a_missing_weight_is_refused_with_its_name(parent, tmp_path):
    tiny.model(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no weight model.layers.1.self_attn.q_proj.weight, which the adapter"):
        SafeLoRA(base=str(tmp_path)).check(meta(parent), parent)


def test_a_damaged_file_is_refused(parent, tmp_path):
    tiny.model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no model whose weights can be read"):
        SafeLoRA(base=str(tmp_path)).check(meta(parent), parent)


def test_a_base_that_equals_the_aligned_model_is_refused(parent):
    with pytest.raises(
        ValueError, match="should differ, found equal weights in every adapted module. Name the weights"
    ):
        SafeLoRA(base=parent.path).check(meta(parent), parent)


def test_an_adapter_that_names_no_base_is_no_whole_model(parent):
    assert (Path(parent.adapter) / "adapter_config.json").is_file()
    with pytest.raises(ValueError, match="is no model whose weights can be read"):
        SafeLoRA(base=parent.adapter).check(meta(parent), parent)
