"""Quantized weights: what bitsandbytes is asked for, and clear refusals. Nothing is quantized here."""

from __future__ import annotations

import re
from importlib.machinery import ModuleSpec

import pytest
import torch
import yaml
from typer.testing import CliRunner

import fakes
from selgen import loading, models, starting, tiny
from selgen.cli import app
from selgen.config import ConfigError
from selgen.plan import Start
from selgen.spec import RunSpec
from sweeps import a_sweep


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def a_run(model_dir, quantization="nf4", **changes):
    model = {"name": str(model_dir), "quantization": quantization, "dtype": "bfloat16"}
    return {"setting": "fake", "model": model, "method": "task_only"} | changes


@pytest.fixture
def machine(monkeypatch):
    """One with a GPU and the package, whose loading of weights only notes what it was asked for."""
    asked = {}

    def from_pretrained(name, **options):
        asked.update(options, name=name)
        return tiny.model()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(loading, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return asked


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("nf4", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
        ("fp4", {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}),
        ("int8", {"load_in_8bit": True, "load_in_4bit": False}),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_compute_dtype": "float32"},
            {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_compute_dtype": torch.float32},
        ),
    ],
)
def test_bitsandbytes_is_asked_for_what_the_config_says(machine, model_dir, quantization, expected):
    spec = RunSpec.parse(a_run(model_dir, quantization))
    models.load(model_dir, **spec.model.loading())
    config = machine["quantization_config"]
    assert {key: getattr(config, key) for key in expected} == expected
    assert "bnb_4bit_compute_dtype" in expected or config.bnb_4bit_compute_dtype == torch.bfloat16
    assert machine["device_map"] == {"": 3} and machine["dtype"] == torch.bfloat16
    assert RunSpec.parse(spec.model_dump(mode="json")) == spec, "what is written can be read back"


def test_without_quantization_nothing_is_asked(machine, model_dir):
    models.load(model_dir)
    assert "quantization_config" not in machine and "device_map" not in machine


@pytest.mark.parametrize(
    ("gpu", "package", "said"),
    [
        (False, True, "model.quantization needs a CUDA GPU, found none on this machine. Run it where"),
        (True, False, "needs the package bitsandbytes, which is not installed: pip install -c constraints.txt "),
        (False, False, "needs a CUDA GPU, found none on this machine and the package bitsandbytes"),
    ],
)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_machine_that_cannot_is_told_before_any_run(monkeypatch, model_dir, tmp_path, command, gpu, package, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(loading, "find_spec", lambda name: ModuleSpec(name, None) if package else None)
    path = tmp_path / "c.yaml"
    data = a_run(model_dir)
    path.write_text(yaml.safe_dump(data if command == "train" else a_sweep(model_dir, model=data["model"])))
    result = CliRunner().invoke(app, [command, "-c", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.exception
    assert said in re.sub(r"\s+", " ", result.output)
    assert not list(tmp_path.glob("out/*/spec.yaml"))


def test_a_login_node_without_a_gpu_may_plan_for_machines_with_one(model_dir):
    starting.jobs(RunSpec.parse(a_run(model_dir)).lineage())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization": "int4"}, "model.quantization should be one of nf4, fp4, int8, fields of BitsAndBytesConfig"),
        ({"quantization": {"load_in_4bit": True, "load_in_8bit": True}}, "found both"),
        ({"quantization": {"bnb_4bit_quant_type": "nf4"}}, "found neither"),
        ({"quantization": {"load_in_4_bit": True}}, "Unknown key model.quantization.load_in_4_bit"),
        ({"lora": None}, "lora should not be null with model.quantization: quantized weights have no gradients"),
        ({"first": {}}, "first should be left out with model.quantization"),
    ],
)
def test_what_cannot_be_quantized_is_refused(model_dir, changes, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        RunSpec.parse(a_run(model_dir, **changes))


def test_a_starting_adapter_is_not_merged_into_rounded_weights(model_dir, tmp_path):
    trained = models.prepare(tiny.model(), models.lora_config({"r": 2, "target_modules": "all-linear"}))[0]
    trained.peft_config["default"].base_model_name_or_path = str(model_dir)
    trained.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model.quantization should be null with the adapter"):
        starting.start(RunSpec.parse(a_run(tmp_path)))
    assert isinstance(starting.start(RunSpec.parse(a_run(model_dir))), Start)
