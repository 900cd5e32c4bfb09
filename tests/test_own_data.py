"""Training on one's own files and model: every kind of model, adapter, row and file, up to plain PEFT."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from own import ALIGNMENT, FAST, LORA, TASK, greedy_answer, responses, save_model, the_run, untouched, write_rows
from selgen import record, tiny
from test_cli import selgen

UNMARKED = tiny.TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
METHODS = ["dpo", "kl", "mixed", "projection", "representation", "task_only", "upweight"]
KINDS = {
    "lora": LORA,
    "rslora": [*LORA, "lora.use_rslora=true"],
    "dora": [*LORA, "lora.use_dora=true"],
    "full": ["lora=null"],
}


@pytest.fixture
def files(tmp_path) -> list:
    task, alignment = write_rows(tmp_path / "task.jsonl", TASK), write_rows(tmp_path / "align.jsonl", ALIGNMENT)
    return ["--task", task, "--alignment", alignment]


def trained(model, files, out, *more, method="kl") -> Path:
    """Directory of the run that the command made."""
    code, said = selgen("train", "--model", model, *files, "--method", method, "--out", out, *FAST, *more)
    assert code == 0, said
    assert record.read(the_run(out)).status == "success"
    return the_run(out)


# -- models and adapters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_answers_in_plain_libraries_as_our_samples_say(architecture, kind, files, tmp_path):
    model = save_model(tmp_path / "model", architecture)
    run_dir = trained(model, files, tmp_path / "out", *KINDS[kind])
    assert record.read(run_dir).update_norm > 0.1
    said = responses(run_dir)
    assert any(greedy_answer(model, prompt) != response for prompt, response in said), "training changes the answers"
    assert [greedy_answer(run_dir / "adapter", prompt) for prompt, _ in said] == [response for _, response in said]
    assert (run_dir / "adapter" / "adapter_config.json").is_file() == (kind != "full")


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    made.chat_template = UNMARKED.replace("{{ bos_token }}", "")
    return made


@pytest.mark.parametrize(
    ("tokenizer", "changes"),
    [
        (tiny.tokenizer(UNMARKED), {}),
        (byte_level(), {"vocab_size": 258, "max_position_embeddings": 256, "pad_token_id": 256, "eos_token_id": 257}),
    ],
    ids=["without generation marks", "byte level"],
)
def test_other_tokenizers_and_templates_train_too(tokenizer, changes, files, tmp_path):
    model = save_model(tmp_path / "model", tokenizer=tokenizer, **changes)
    run_dir = trained(model, files, tmp_path / "out", *LORA, "training.num_train_epochs=4")
    losses = [row["term/task"] for row in record.read_metrics(run_dir)]
    assert losses[-1] < losses[0]
    assert all(greedy_answer(run_dir / "adapter", prompt) == response for prompt, response in responses(run_dir))


def test_an_adapter_can_be_the_start_and_the_result_opens_on_the_raw_base(model_dir, files, tmp_path):
    first = trained(model_dir, files, tmp_path / "first", *LORA)
    second = trained(first / "adapter", files, tmp_path / "second", *LORA)
    config = json.loads((second / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == (str(model_dir.resolve()), 4)
    assert all(greedy_answer(second / "adapter", prompt) == response for prompt, response in responses(second))
    assert responses(second) != responses(first)


def test_an_adapter_of_plain_peft_without_a_tokenizer_takes_its_bases(model_dir, files, tmp_path):
    first = trained(model_dir, files, tmp_path / "first", *LORA)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "selgen.json"):
        (first / "adapter" / name).unlink()
    second = trained(first / "adapter", files, tmp_path / "second", *LORA)
    assert all(greedy_answer(second / "adapter", prompt) == response for prompt, response in responses(second))


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (LORA, ["lora=null"], "lora should not be null with the adapter"),
        (LORA, [*LORA, "lora.use_dora=true"], "lora.use_dora should be false with the adapter"),
        ([*LORA, "lora.use_dora=true"], LORA, "Merge the adapter into its base model first, or turn DoRA off."),
    ],
    ids=["full", "DoRA on top", "DoRA below"],
)
def test_what_cannot_be_trained_on_top_of_an_adapter_is_refused(first, second, said, model_dir, files, tmp_path):
    adapter = trained(model_dir, files, tmp_path / "first", *first) / "adapter"
    out = tmp_path / "second"
    code, output = selgen("train", "--model", adapter, *files, "--method", "kl", "--out", out, *FAST, *second)
    assert code == 2 and said in output
    assert untouched(out)
    assert selgen("eval", "--model", adapter, *files, *FAST)[0] == 0, "it can be measured all the same"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_own_data(method, model_dir, files, tmp_path):
    run_dir = trained(model_dir, files, tmp_path / "out", *LORA, "training.num_train_epochs=1", method=method)
    found = record.read(run_dir)
    assert (found.method, found.num_task, found.num_alignment) == (method, 12, 2)
    assert found.update_norm > 0.1
    assert {point.split for point in found.points} == {"val", "test"}


# -- rows and files ----------------------------------------------------------------------------------------------------


def human_gpt(row):
    return [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": row["completion"]}]


def user(row):
    return [{"role": "user", "content": row["prompt"]}]


FORMS = {
    "messages": lambda r: {
        "messages": [*user(r), {"role": "assistant", "content": r["completion"]}],
        "rejected": r["rejected"],
    },
    "prompt, completion": lambda r: r,
    "Alpaca": lambda r: {"instruction": r["prompt"], "input": "", "output": r["completion"], "rejected": r["rejected"]},
    "ShareGPT": lambda r: {"conversations": human_gpt(r), "rejected": r["rejected"]},
    "chosen": lambda r: {"prompt": r["prompt"], "chosen": r["completion"], "rejected": r["rejected"]},
    "aligned": lambda r: {"prompt": r["prompt"], "aligned": r["completion"], "misaligned": r["rejected"]},
    "HHH": lambda r: {
        "input": r["prompt"],
        "targets": {"choices": [r["rejected"], r["completion"]], "labels": [0, 1]},
    },
    "GCD": lambda r: {
        "messages": user(r),
        "answer": r["completion"],
        "sycophantic_response": r["rejected"],
        "user_provides_answer": False,
    },
}


def test_the_same_rows_in_any_form_are_the_same_run(model_dir, tmp_path):
    """A run is named by its rows: the second form finds the first one's run finished."""
    task = write_rows(tmp_path / "task.jsonl", TASK)
    for name, form in FORMS.items():
        alignment = write_rows(tmp_path / f"{name}.jsonl", map(form, ALIGNMENT))
        run_dir = trained(model_dir, ["--task", task, "--alignment", alignment], tmp_path / "out", *LORA, method="dpo")
    assert record.read(run_dir).num_alignment == 2


def json_file(path: Path) -> Path:
    path.write_text(json.dumps(ALIGNMENT))
    return path


def dataset():
    from datasets import Dataset

    return Dataset.from_list(ALIGNMENT)


def saved(path: Path) -> Path:
    dataset().save_to_disk(path)
    return path


def with_parquet(path: Path) -> Path:
    dataset().to_parquet(path)
    return path


def with_csv(path: Path) -> Path:
    dataset().to_csv(path)
    return path


def test_the_same_rows_in_any_kind_of_file_are_the_same_run(model_dir, tmp_path):
    kinds = [
        write_rows(tmp_path / "a.jsonl", ALIGNMENT),
        json_file(tmp_path / "b.json"),
        with_parquet(tmp_path / "c.parquet"),
        with_csv(tmp_path / "d.csv"),
        saved(tmp_path / "e"),
    ]
    task = write_rows(tmp_path / "task.jsonl", TASK)
    for alignment in kinds:
        trained(model_dir, ["--task", task, "--alignment", alignment], tmp_path / "out", *LORA, method="dpo")


def test_relative_paths_of_a_config_hold_from_any_directory(model_dir, files, tmp_path, monkeypatch):
    os.symlink(model_dir, tmp_path / "model")
    (tmp_path / "run.yaml").write_text(
        "setting: {name: files, task: task.jsonl, alignment: align.jsonl, held_out: {more: more.jsonl}}\n"
        "model: model\nmethod: kl\n"
    )
    write_rows(tmp_path / "more.jsonl", [{"prompt": f"is it {i} ?", "completion": "yes"} for i in range(1, 5)])
    monkeypatch.chdir(tmp_path)
    code, said = selgen("train", "-c", "run.yaml", "--out", "out", *FAST, *LORA)
    assert code == 0, said
    monkeypatch.chdir("/")
    code, said = selgen("eval", the_run(tmp_path / "out"))
    assert code == 0 and "likelihood.more" in said


# -- from a sweep to a conversation ------------------------------------------------------------------------------------


def test_sweep_report_choose_chat_and_eval(model_dir, files, tmp_path):
    out = tmp_path / "out"
    curves = (
        "curves=[{method: task_only, epochs: [2]}, {method: kl, vary: {beta: [1]}},"
        " {method: dpo, vary: {weight: [1]}, budget: pairs}]"
    )
    wanted = ["--method", "kl", "--method", "task_only", "--workers", 1, curves, "seeds=[1]", *FAST, *LORA]
    code, said = selgen("sweep", "--model", model_dir, *files, "--out", out, *wanted)
    assert code == 0, said
    assert sorted(r.method for r in record.read_all(out)) == ["base", "kl", "task_only"]
    code, said = selgen("report", out)
    assert code == 0 and "task: likelihood of held-out task answers" in (out / "report/index.html").read_text()

    code, said = selgen("choose", out, "--keep", "alignment>=99%")
    assert code == 1 and not (out / "chosen").exists()
    assert "None of 2 points meets alignment >= 99 % on val. Nearest:" in said and "kl, beta 1: alignment" in said
    code, said = selgen("choose", out, "--keep", "alignment>=0%", "--lose-at-most", "alignment 50%")
    assert code == 0 and f"Adapter: {out / 'chosen'}" in said
    run_dir = out / json.loads((out / "chosen/choice.json").read_text())["run_id"]
    assert f"Run {run_dir.name}, seed 1" in said

    code, said = selgen("chat", run_dir, "--max-new-tokens", 4, typed="what is 1 ?\n/new\n\n/quit\nnever read\n")
    assert code == 0 and said.count("tuned: ") == 1, said
    code, said = selgen("chat", out / "chosen", "--max-new-tokens", 4, typed="/quit\n")
    assert code == 0, said
    code, said = selgen("eval", run_dir)
    assert code == 0 and " base " in said and " tuned " in said
    samples = tmp_path / "samples.jsonl"
    code, said = selgen("eval", "--model", out / "chosen", *files, "--samples", samples, *FAST)
    assert code == 0, said
    rows = list(record.read_jsonl(samples))
    assert {(row["model"], row["side"]) for row in rows} == {(str(out / "chosen"), s) for s in ("base", "tuned")}
    tuned = [(r["prompt"], r["response"]) for r in rows if r["side"] == "tuned" and r["response"] is not None]
    assert tuned == responses(run_dir), "the chosen adapter says what its run said"
