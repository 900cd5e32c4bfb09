"""The card beside a saved model says what it is, and how to make it again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from own import ALIGNMENT, FAST, LORA, TASK, the_run, write_rows
from selgen import models, record
from selgen.data.files import fingerprint
from selgen.reading import load_sets
from test_cli import selgen


@pytest.fixture(scope="module")
def run_dir(model_dir, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("carded")
    task, alignment = write_rows(path / "tâsk.jsonl", TASK), write_rows(path / "a.jsonl", ALIGNMENT)
    code, said = selgen(
        *("train", "--model", model_dir, "--task", task, "--alignment", alignment, "--out", path / "out"),
        *("--method", "kl", "method.beta=0.5", "training.seed=3", *FAST, *LORA),
    )
    assert code == 0, said
    return the_run(path / "out")


@pytest.fixture(scope="module")
def card(run_dir) -> str:
    return (run_dir / "adapter" / "README.md").read_text()


def test_the_head_is_what_model_hubs_read(card, model_dir):
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "peft" and head["base_model"] == str(model_dir.resolve())
    assert {"selgen", "kl"} <= set(head["tags"])


def test_it_names_method_strength_seed_and_starting_weights(card, model_dir, run_dir):
    assert '- method: kl {"beta": 0.5' in card
    assert "- strength: beta 0.5\n- seed: 3\n" in card
    assert f"(fingerprint `{models.fingerprint(model_dir)}`)" in card
    assert f"- run: {run_dir.name}\n" in card


def test_it_names_the_rows_trained_on(card, run_dir):
    sets = load_sets(record.read(run_dir).spec["setting"], 3)
    rows = re.findall(r"\| (task|align) \| (\d+) \| `(\w{64})` \|", card)
    assert rows == [(name, str(len(found)), fingerprint(found)) for name, found in sets.items()]


def test_its_numbers_are_the_records(card, run_dir):
    [val, test] = record.read(run_dir).points
    for name in ("task", "alignment"):
        a, b = val.axes[name], test.axes[name]
        assert f"| {name} | {a.value:.4f} (n {a.n}) | {b.value:.4f} (n {b.n}) |" in card
    for name, metric in test.metrics.items():
        cells = [
            "not measured" if m is None or m.value is None else f"{m.value:.4f} (n {m.n})"
            for m in (val.metrics.get(name), metric)
        ]
        assert f"| {name} | {cells[0]} | {cells[1]} |" in card
    assert "exact_match.task" in test.metrics and "exact_match.task" not in val.metrics


def test_its_config_is_the_same_run_again(card, run_dir, tmp_path):
    [config] = re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert yaml.safe_load(config) == record.read(run_dir).spec
    (tmp_path / "run.yaml").write_text(config)
    code, said = selgen("train", "-c", tmp_path / "run.yaml", "--out", tmp_path / "again")
    assert code == 0, said
    again = the_run(tmp_path / "again")
    assert again.name == run_dir.name
    assert [p.axes for p in record.read(again).points] == [p.axes for p in record.read(run_dir).points]


def test_an_adapter_remembers_the_weights_that_it_belongs_to(run_dir, model_dir):
    origin = json.loads((run_dir / "adapter" / "selgen.json").read_text())
    assert origin == {"base_fingerprint": models.fingerprint(model_dir), "run_id": run_dir.name}


def test_a_full_model_needs_no_origin(run_dir, tmp_path):
    spec = {**record.read(run_dir).spec, "lora": None}
    (tmp_path / "full.yaml").write_text(yaml.safe_dump(spec))
    code, said = selgen("train", "-c", tmp_path / "full.yaml", "--out", tmp_path / "full")
    assert code == 0, said
    directory = the_run(tmp_path / "full") / "adapter"
    assert not (directory / "selgen.json").exists()
    assert "library_name: transformers" in (directory / "README.md").read_text()
