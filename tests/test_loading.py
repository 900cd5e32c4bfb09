"""How weights are loaded: attention by architecture or by name, code beside the weights only when trusted, bf16."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from typer.testing import CliRunner

import fakes
from command import selgen
from selgen import loading, models, record, tiny
from selgen.cli import app
from test_run import TRAINING

CODE = """
from transformers import Qwen3Config, Qwen3ForCausalLM
class OwnConfig(Qwen3Config):
    model_type = "own_architecture"
class OwnModel(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def saved(directory, architecture="qwen3", **changes):
    tiny.model(architecture, **changes).save_pretrained(directory)
    tiny.tokenizer().save_pretrained(directory)
    return directory


def train(tmp_path, model, **changes) -> tuple[int, str]:
    data = {
        "setting": "fake",
        "model": model,
        "method": {"name": "kl"},
        "training": TRAINING | {"num_train_epochs": 1},
        "lora": {"r": 2},
        "evaluation": {"max_new_tokens": 2, "splits": ["val"]},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data | changes))
    return selgen("train", "-c", tmp_path / "run.yaml", "--out", tmp_path / "out")


# -- attention --


@pytest.mark.parametrize(("architecture", "chosen"), [("qwen3", "sdpa"), ("llama", "sdpa"), ("gemma2", "eager")])
def test_each_architecture_gets_an_attention_that_computes_it(tmp_path, architecture, chosen):
    model, _ = models.load(saved(tmp_path, architecture))
    assert models.described(model)["attn_implementation"] == chosen


def test_an_explicit_choice_wins_and_is_recorded(tmp_path):
    model = {"name": str(saved(tmp_path / "m")), "attn_implementation": "eager"}
    code, said = train(tmp_path, model)
    assert code == 0, said
    [found] = record.read_all(tmp_path / "out")
    assert found.provenance["model"]["attn_implementation"] == "eager"


@pytest.mark.parametrize(
    ("architecture", "asked", "said"),
    [
        ("gemma2", "sdpa", "model.attn_implementation=sdpa cannot be used: Gemma2ForCausalLM does not support an"),
        ("qwen3", "flash_attention_2", "model.attn_implementation=flash_attention_2 cannot be used: FlashAttention2"),
        ("qwen3", "flash", "model.attn_implementation should be 'eager', 'sdpa'"),
    ],
)
def test_an_attention_that_cannot_be_is_refused_before_training(tmp_path, architecture, asked, said):
    code, output = train(tmp_path, {"name": str(saved(tmp_path / "m", architecture)), "attn_implementation": asked})
    assert code == 2 and said in output, output
    assert asked == "flash" or "Leave it out" in output
    assert not list(tmp_path.glob("out/*"))


def test_a_soft_cap_is_never_left_out_without_a_word(monkeypatch):
    """Of an architecture that says it supports sdpa, as Gemma2 does here, although that has no soft-cap."""
    model = tiny.model("gemma2", attn_logit_softcapping=5.0)
    for asked, expected in [(None, "eager"), ("sdpa", None)]:
        model.config._attn_implementation = "sdpa"
        if expected is None:
            with pytest.raises(ValueError, match=r"should not be sdpa, which leaves out the soft-cap \(5\)"):
                loading._keep_softcap(model, asked)
        else:
            loading._keep_softcap(model, asked)
            assert model.config._attn_implementation == expected


# -- code beside the weights --


@pytest.fixture
def with_code(tmp_path):
    directory = saved(tmp_path / "own")
    (directory / "own.py").write_text(CODE)
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own_architecture", "auto_map": {}}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_code_is_not_run_unless_it_is_trusted(tmp_path, with_code, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (with_code / "own.py").write_text("raise SystemExit('it was run')\n")
    code, output = train(tmp_path, str(with_code))
    assert code == 2 and "it was run" not in output
    assert f"model.trust_remote_code should be true for '{with_code}'" in output, output
    assert "set model.trust_remote_code=true (with model.revision" in output
    assert not list(tmp_path.glob("out/*"))


def test_trusted_code_trains_and_is_opened_again(tmp_path, with_code):
    code, said = train(tmp_path, {"name": str(with_code), "trust_remote_code": True})
    assert code == 0, said
    [found] = record.read_all(tmp_path / "out")
    assert found.spec["model"]["trust_remote_code"] is True
    result = CliRunner().invoke(app, ["eval", str(tmp_path / "out" / found.run_id), "--split", "val"])
    assert result.exit_code == 0, result.output


# -- bf16 --


@pytest.mark.parametrize("lora", [{"r": 2}, None], ids=["lora", "full"])
def test_bf16_trains_and_says_so(tmp_path, lora):
    training = TRAINING | {"num_train_epochs": 1, "bf16": True, "gradient_checkpointing": True}
    model = {"name": str(saved(tmp_path / "m")), "dtype": "bfloat16"}
    code, said = train(tmp_path, model, training=training, lora=lora)
    assert code == 0, said
    [found] = record.read_all(tmp_path / "out")
    assert found.provenance["model"]["dtype"] == "bfloat16" and found.update_norm > 0
    opened, _ = models.load(tmp_path / "out" / found.run_id / "adapter", "bfloat16")
    kinds = {p.dtype for name, p in opened.named_parameters() if ".lora_" not in name}
    assert kinds == {torch.bfloat16}
