"""Damaged, half-written and foreign model directories are told apart before anything is trained or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from own import ALIGNMENT, FAST, LORA, TASK, save_model, the_run, untouched, write_rows
from selgen import intact, tiny
from test_cli import selgen

Damage = Callable[[Path], object]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def remove(*names: str) -> Damage:
    return lambda path: [(path / name).unlink() for name in names]


def halve(name: str) -> Damage:
    def damage(path: Path) -> None:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content[: len(content) // 2])

    return damage


def write(name: str, text: str) -> Damage:
    return lambda path: (path / name).write_text(text)


def change(name: str, **values: object) -> Damage:
    def damage(path: Path) -> None:
        (path / name).write_text(json.dumps(json.loads((path / name).read_text()) | values))

    return damage


def lose_a_weight(path: Path) -> None:
    weights = load_file(path / WEIGHTS)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def sharded(model_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sharded") / "model"
    shutil.copytree(model_dir, path)
    (path / WEIGHTS).unlink()
    tiny.model().save_pretrained(path, max_shard_size="6KB")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list:
    path = tmp_path_factory.mktemp("data")
    return ["--task", write_rows(path / "t.jsonl", TASK), "--alignment", write_rows(path / "a.jsonl", ALIGNMENT)]


@pytest.fixture(scope="module")
def adapter(model_dir, data, tmp_path_factory) -> Path:
    """Trained on `model_dir` by the command line."""
    out = tmp_path_factory.mktemp("trained")
    code, said = selgen("train", "--model", model_dir, *data, "--method", "task_only", "--out", out, *FAST, *LORA)
    assert code == 0, said
    return the_run(out) / "adapter"


def assert_refused(model: Path, data: list, out: Path, *said: str) -> None:
    """By name, with the remedy, before anything is written."""
    code, output = selgen("train", "--model", model, *data, "--method", "kl", "--out", out, *FAST, *LORA)
    assert code == 2 and "1 problem" in output, output
    for text in (str(model), *said):
        assert text in output
    assert untouched(out)


@pytest.mark.parametrize("form", ["whole", "sharded", "tied"])
def test_a_whole_directory_passes(form, model_dir, sharded, tmp_path):
    path = {"whole": model_dir, "sharded": sharded}.get(form) or save_model(tmp_path / "m", tie_word_embeddings=True)
    intact.check_model(str(path))


def test_an_adapter_on_its_own_base_passes(adapter):
    intact.check_model(str(adapter))


@pytest.mark.parametrize(
    ("damage", "said", "remedy"),
    [
        (remove("config.json"), "config.json is missing", "Save the model with save_pretrained."),
        (halve("config.json"), "config.json is no JSON", "Save the model with save_pretrained."),
        (write("config.json", "[]"), "should hold a JSON object, found a list", "Save the model with save_pretrained."),
        (remove(WEIGHTS), "model.safetensors is missing", "Save or download it again."),
        (halve(WEIGHTS), "model.safetensors is damaged or half-written", "Save or download the model again."),
        (write(WEIGHTS, ""), "model.safetensors is damaged or half-written", "Save or download the model again."),
        (lose_a_weight, "model.layers.1.mlp.up_proj.weight is missing", "Save or download the model again."),
        (change("config.json", vocab_size=99), "lm_head.weight has shape [33, 16], not [99, 16]", "download the model"),
        (
            change("config.json", num_hidden_layers=1),
            "`num_hidden_layers` (1) must be equal",
            "Correct its config.json",
        ),
        (change("config.json", model_type="banana"), "model type `banana`", "Correct its config.json"),
        (remove("tokenizer.json"), "no tokenizer that can be loaded", "Save its tokenizer beside it."),
        (halve("tokenizer.json"), "no tokenizer that can be loaded", "Save its tokenizer beside it."),
        (remove("tokenizer.json", "tokenizer_config.json"), "empty tokenizer", "Save its tokenizer beside it."),
        (remove("chat_template.jinja"), "has no chat template", "Set tokenizer.chat_template and save it"),
        (write("chat_template.jinja", "{% for m in messages %}"), "cannot render a question", "Correct it."),
    ],
)
def test_a_damaged_model_is_refused(damage, said, remedy, model_dir, data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_dir, model)
    damage(model)
    assert_refused(model, data, tmp_path / "out", said, remedy)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove("model-00002-of-00005.safetensors"), "model-00002-of-00005.safetensors is missing. Save or download"),
        (halve("model-00002-of-00005.safetensors"), "model-00002-of-00005.safetensors is damaged or half-written"),
        (halve(INDEX), "model.safetensors.index.json is no JSON"),
        (write(INDEX, '{"weight_map": {}}'), "should map weights to files in weight_map. Copy or download"),
        (write(INDEX, '{"weight_map": {"lm_head.weight": 3}}'), "should map weights to files in weight_map."),
    ],
)
def test_a_sharded_model_that_lacks_a_part_is_refused(damage, said, sharded, data, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(sharded, model)
    damage(model)
    assert_refused(model, data, tmp_path / "out", said)


def test_a_directory_that_is_empty_or_not_there_is_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", data, tmp_path / "out", "config.json is missing")
    assert_refused(tmp_path / "none", data, tmp_path / "out", "there is no such directory. Correct the name")


def test_a_file_is_no_model(model_dir, data, tmp_path):
    assert_refused(model_dir / "config.json", data, tmp_path / "out", "should be a directory, found the file")


# -- adapters ----------------------------------------------------------------------------------------------------------

CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (halve(CONFIG), "adapter_config.json is no JSON"),
        (halve(ADAPTER), "adapter_model.safetensors is damaged or half-written"),
        (remove(ADAPTER), "adapter_model.safetensors is missing. Save or download it again."),
        (change(CONFIG, peft_type="IA3"), "should be a LORA one, found 'IA3'. Merge it into its base."),
        (change(CONFIG, base_model_name_or_path=None), "names no base model. Add base_model_name_or_path"),
        (
            change(CONFIG, base_model_name_or_path="/gone"),
            "the base '/gone': there is no such directory. Put the model",
        ),
        (change(CONFIG, base_model_name_or_path="../gone"), "the base '../gone': there is no such directory."),
        (write("selgen.json", "{"), "selgen.json is no JSON"),
    ],
)
def test_a_damaged_adapter_is_refused(damage, said, adapter, data, tmp_path):
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    damage(copy)
    assert_refused(copy, data, tmp_path / "out", said)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hidden_size": 32}, "has shape [16, 2], the base has [32, 32]. Name the base that it was trained on"),
        ({"num_hidden_layers": 1}, "the base has no such module. Name the base that it was trained on"),
        ({"seed": 1}, "was trained on another base than the weights at"),
    ],
    ids=["other shapes", "fewer layers", "other weights"],
)
def test_an_adapter_of_another_base_is_refused(other, said, adapter, data, tmp_path):
    copy, base = tmp_path / "adapter", save_model(tmp_path / "base", **other)
    shutil.copytree(adapter, copy)
    change(CONFIG, base_model_name_or_path=str(base))(copy)
    assert_refused(copy, data, tmp_path / "out", said, str(base))


def test_an_adapter_of_an_adapter_is_refused(adapter, data, tmp_path):
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    change(CONFIG, base_model_name_or_path=str(adapter))(copy)
    assert_refused(copy, data, tmp_path / "out", "which is an adapter itself. Merge that one first.")


def test_a_base_that_the_hub_does_not_give_is_named(adapter, monkeypatch, tmp_path):
    def offline(name, *args, **kwargs):
        raise OSError(f"cannot find {name}")

    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    change(CONFIG, base_model_name_or_path="some/model")(copy)
    monkeypatch.setattr(intact.AutoConfig, "from_pretrained", offline)
    with pytest.raises(intact.ModelError, match=r"'some/model': .* hub does not give it \(cannot find some/model\)"):
        intact.check_model(str(copy))
