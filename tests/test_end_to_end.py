"""The whole path through the command line, on a miniature that is trained here from nothing."""

import csv
import json
import os
import subprocess
import sys

import pytest
import yaml

SWEEP = {
    "setting": {"name": "sycophancy", "small_miniature": True, "num_test": 40, "num_val": 8},
    "model": {"name": "miniature"},
    "training": {"num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 2e-3},
    "lora": {"r": 4, "lora_alpha": 8},
    "evaluation": {"max_new_tokens": 40, "batch_size": 256},
    "seeds": [1],
    "curves": [
        {"method": "task_only", "epochs": [1, 2]},
        {"method": "kl", "vary": {"beta": [0.1, 10]}},
        {"method": "safe_lora", "vary": {"k": [0, 21]}},
        {"method": "o_lora", "vary": {"weight": [0.01, 1]}, "budget": "first two passes over the alignment set"},
    ],
}


def selgen(where, *arguments):
    environment = os.environ | {"XDG_CACHE_HOME": str(where / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-W", "ignore", "-m", "selgen", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    where = tmp_path_factory.mktemp("end_to_end")
    (where / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    done = selgen(where, "sweep", "-c", str(where / "sweep.yaml"), "--out", str(where / "out"), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return where


def records(where):
    return {p: json.loads(p.read_text()) for p in (where / "out").glob("*/record.json")}


def test_every_run_has_a_finished_record(swept):
    found = records(swept).values()
    assert sorted((r["method"], r["status"]) for r in found) == [
        ("base", "success"),
        ("kl", "success"),
        ("kl", "success"),
        ("o_lora", "success"),
        ("o_lora", "success"),
        ("safe_lora", "success"),
        ("safe_lora", "success"),
        ("task_only", "success"),
    ]


def test_the_miniature_answers_arithmetic_in_a_form_that_can_be_scored(swept):
    """Half a minute of training teaches the form of worked answers, and not the facts."""
    (base,) = (r for r in records(swept).values() if r["method"] == "base")
    (test,) = (p for p in base["points"] if p["split"] == "test")
    for domain in ("gcd", "gcd_compositional", "mod", "addition"):
        metric = test["metrics"][f"knows.{domain}"]
        assert metric["n"] + metric["unscored"] == 40 and metric["unscored"] <= 4
    assert test["metrics"]["knows.gcd"]["value"] > 0.1
    assert test["axes"]["alignment"]["value"] is None, "too little is known for a conditional rate, which is then None"


def test_training_learns_the_task_and_the_penalty_holds_it_back(swept):
    losses, norms = {}, {}
    for path, record in records(swept).items():
        if record["method"] in ("task_only", "kl"):
            rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
            key = (record["method"], record["strength"] if record["method"] == "kl" else None)
            losses[key], norms[key] = [row["term/task"] for row in rows], record["update_norm"]
    assert losses[("task_only", None)][-1] < 0.85 * losses[("task_only", None)][0]
    assert norms[("kl", 10)] < norms[("task_only", None)]


def test_safe_lora_acts_on_the_task_only_run_with_the_miniatures_two_stages(swept):
    found = {(r["method"], r["strength"]): r for r in records(swept).values()}
    parent, same, all_projected = found["task_only", None], found["safe_lora", 0], found["safe_lora", 21]
    assert same["parent"] == all_projected["parent"] == parent["run_id"]
    last = {p["split"]: p["metrics"] for p in parent["points"] if p["epoch"] == 2}
    assert {p["split"]: p["metrics"] for p in same["points"]} == last
    said = all_projected["provenance"]["transform"]
    assert len(said["projected"]) == 21 and all(0 <= c <= 1 for c in said["cosines"].values())
    assert all_projected["update_norm"] != same["update_norm"] == parent["update_norm"]


def test_o_lora_reads_the_alignment_set_first_and_bends_away_from_it(swept):
    last = {}
    for path, record in records(swept).items():
        if record["method"] == "o_lora":
            assert record["sequences"] == 2 * (record["num_task"] + record["num_alignment"])
            rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
            last[record["strength"]] = rows[-1]["term/overlap"]
    assert 0 < last[1] < last[0.01]


def test_the_same_command_again_trains_nothing(swept):
    before = {path: path.stat().st_mtime_ns for path in records(swept)}
    again = selgen(swept, "sweep", "--out", str(swept / "out"))
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in records(swept)} == before


def test_the_report_holds_points_and_page_and_says_what_fails(swept):
    done = selgen(swept, "report", str(swept / "out"))
    assert done.returncode == 0, done.stderr
    assert "FAILS" in done.stdout, "a two-epoch toy cannot meet the bars, and the report has to say so"
    made = swept / "out" / "report"
    with (made / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(r["method"], r["split"]) for r in rows} == {
        (method, split) for method in ("base", "task_only", "kl", "safe_lora", "o_lora") for split in ("val", "test")
    }
    assert "task_only" in (made / "index.html").read_text()


def test_a_saved_adapter_opens_in_plain_peft(swept):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = next(p.parent for p, r in records(swept).items() if r["method"] == "kl")
    (instruct,) = (swept / "cache" / "selgen" / "miniatures").glob("*/instruct")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(instruct), path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(path / "adapter")
    prompt = tokenizer("<|user|> What is the GCD of 12 and 8?<|assistant|>", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=30, do_sample=False)[0])
    assert "GCD" in text


def test_a_wrong_key_is_named_with_the_right_one(swept):
    done = selgen(swept, "sweep", "-c", str(swept / "sweep.yaml"), "--out", str(swept / "other"), "setting.proxi=x")
    assert done.returncode == 2 and "Did you mean 'proxy'?" in done.stderr + done.stdout
