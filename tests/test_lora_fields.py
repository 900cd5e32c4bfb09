"""The adapter's fields as PEFT names them: they reach it, fit the model or are refused, and rename no run."""

from __future__ import annotations

import pytest
from peft import LoraConfig, PeftModel

import fakes
from selgen import adapters, models, plan, refusals, registry, tiny
from selgen.config import ConfigError
from selgen.identity import run_id
from selgen.plan import Start
from selgen.run import execute
from selgen.spec import RunSpec, make_setting
from test_run import a_job, start  # noqa: F401  # start is a fixture
from tiny_trainer import lora, trainer_for


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def named(**changes) -> str:
    """The id of a run that exists since before there were the fields."""
    data = {"setting": {"name": "sycophancy"}, "method": {"name": "kl", "beta": 2}, "model": "/x/y"}
    spec = RunSpec.parse(data | changes)
    return run_id(spec, setting=make_setting(spec.setting), data="d", weights="w", miniature=None)


OLD = "0691b069ec4c"
"""As written by the version that had none of the fields; see test_first.py too."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"name": "/x/y", "trust_remote_code": False, "attn_implementation": None, "quantization": None}},
        {"model": {"name": "org/m", "revision": "v1"}},  # its commit is in the weights' fingerprint
        {"lora": {"layers_to_transform": None, "exclude_modules": None, "modules_to_save": None}},
        {"lora": {"rank_pattern": {}, "alpha_pattern": {}}},
        {"training": {"gradient_checkpointing": False}},
    ],
)
def test_fields_at_their_defaults_leave_a_runs_name_as_it_was(changes):
    assert named(**changes) == OLD


def test_fields_that_change_a_result_change_its_name():
    values = [
        {"model": {"name": "/x/y", "attn_implementation": "eager"}},
        {"model": {"name": "/x/y", "trust_remote_code": True}},
        {"model": {"name": "/x/y", "quantization": "nf4"}},
        {"model": {"name": "/x/y", "quantization": "fp4"}},
        {"lora": {"target_modules": ["q_proj"]}},
        {"lora": {"target_modules": ["q_proj"], "layers_to_transform": [0]}},
        {"lora": {"exclude_modules": ["q_proj"]}},
        {"lora": {"rank_pattern": {"q_proj": 4}}},
        {"lora": {"alpha_pattern": {"q_proj": 4}}},
        {"lora": {"use_rslora": True}},
    ]
    names = [named(**changes) for changes in values]
    assert len({OLD, *names}) == len(values) + 1


FIELDS = {
    "r": 2,
    "lora_alpha": 6,
    "use_rslora": True,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
    "exclude_modules": ["v_proj"],
    "layers_to_transform": [1],
    "rank_pattern": {"q_proj": 3},
    "alpha_pattern": {"down_proj": 5},
}


def test_every_field_reaches_the_adapter_and_it_opens_in_plain_peft(start, tmp_path):  # noqa: F811
    job = a_job(start, lora=FIELDS, method="task_only")
    assert execute(job, tmp_path).status == "success"
    opened = PeftModel.from_pretrained(tiny.model(), tmp_path / job.run_id / "adapter")
    layers = {name: layer for name, layer in adapters.lora_layers(opened)}
    assert set(layers) == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"}
    q, down = layers.values()
    assert q.r["default"] == 3 and down.r["default"] == 2
    # rsLoRA divides by the root of the rank.
    assert q.scaling["default"] == pytest.approx(6 / 3**0.5) and down.scaling["default"] == pytest.approx(5 / 2**0.5)


def test_adapters_on_other_blocks_add_up(tmp_path):
    """The sum adapts the blocks of both, whatever the first one's fields say about blocks."""
    made = []
    for block in (0, 1):
        config = LoraConfig(
            r=2, target_modules=["q_proj"], layers_to_transform=[block], init_lora_weights=False, use_rslora=True
        )
        made.append(adapters.extract(models.prepare(tiny.model(), config)[0]))
    adapters.write(adapters.concatenate(*made), tmp_path)
    opened = PeftModel.from_pretrained(tiny.model(), tmp_path)
    found = adapters.extract(opened).factors
    assert set(found) == {f"model.layers.{block}.self_attn.q_proj" for block in (0, 1)}
    for adapter in made:
        for name, (a, b) in adapter.factors.items():
            (sum_a, sum_b) = found[name]
            assert (sum_b @ sum_a - b @ a).norm() <= 1e-5 * (b @ a).norm()


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"target_modules": ["q_prj"]}, "do not fit: Target modules .*q_prj.* not found"),
        ({"target_modules": ["q_proj", "w1"]}, r"lora.target_modules should name adapted modules, found w1, .* q_proj"),
        ({"rank_pattern": {"gate": 4}}, r"lora.rank_pattern should name adapted modules, found gate, "),
        ({"alpha_pattern": {"lm_head": 4}}, r"lora.alpha_pattern should name adapted modules, found lm_head, "),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": [0, 2]},
            r"lora.layers_to_transform should hold indices below 2, the number of blocks, found \[2\]",
        ),
    ],
)
def test_fields_that_do_not_fit_the_model_are_refused_before_training(start, lora, said):  # noqa: F811
    spec = plan.parse_run({"setting": "fake", "model": start.path, "method": "task_only", "lora": lora})
    with pytest.raises(ConfigError, match=said):
        refusals.check_methods([spec], start)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"modules_to_save": ["lm_head"]}, r"lora.modules_to_save should be null, found \['lm_head'\]"),
        ({"layers_to_transform": [0]}, "lora.target_modules should be a list of names with lora.layers_to_transform"),
        ({"layers_to_transform": [-1]}, "lora.layers_to_transform.0 should be greater than or equal to 0"),
        ({"rank_pattern": {"q_proj": 0}}, "lora.rank_pattern.q_proj should be greater than or equal to 1"),
        ({"bias": "all"}, "Unknown key lora.bias"),
    ],
)
def test_fields_that_cannot_be_are_refused(lora, said):
    with pytest.raises(ConfigError, match=said):
        RunSpec.parse({"setting": "fake", "method": "task_only", "lora": lora})


REFUSING_DORA = {
    "o_lora": "lora.use_dora should be false with method o_lora",
    "rescale": "lora should be without DoRA",
    "safe_lora": "lora should adapt linear layers only, without DoRA",
    "l2_sp": "lora should adapt linear layers only, without DoRA",
}


@pytest.mark.parametrize(
    "method", ["task_only", "kl", "dpo", "representation", "projection", "freeze", "lower_lr", "mixed", *REFUSING_DORA]
)
def test_a_method_takes_dora_or_refuses_it_before_anything_is_trained(start, model_dir, method):  # noqa: F811
    data = {"setting": "fake", "model": start.path, "method": method, "lora": {"r": 2, "use_dora": True}}
    data["method"] = {"name": method, "share": 0.5} if method == "freeze" else {"name": method}
    begun = Start(start.path, start.fingerprint, pretrained=str(model_dir))

    def check():
        refusals.check_methods([RunSpec.parse(data)], begun)

    if method in REFUSING_DORA:
        with pytest.raises(ConfigError, match=REFUSING_DORA[method]):
            check()
    else:
        check()


@pytest.mark.parametrize("method", ["kl", "dpo", "representation", "projection"])
def test_dora_is_trained_measured_and_switched_off_as_lora_is(tmp_path, method):
    trainer = trainer_for(tmp_path, registry.load("methods", method)(), lora(use_dora=True), max_steps=2)
    trainer.train()
    first = trainer.state.log_history[0]
    if method in ("kl", "representation"):
        assert first[f"term/{'kl' if method == 'kl' else 'hidden'}"] == pytest.approx(0, abs=1e-5)
    norm, before = trainer.update_norm(), dict(tiny.model().named_parameters())
    merged = trainer.model.merge_and_unload()
    moved = sum(float((p.detach() - before[n].detach()).square().sum()) for n, p in merged.named_parameters()) ** 0.5
    assert norm == pytest.approx(moved, rel=1e-3) and norm > 1e-3
