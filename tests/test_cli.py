"""The command line: what a user types, what they get, and what they are told when it cannot work."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fakes
from command import selgen
from own import ALIGNMENT, FAST, LORA, TASK, untouched, write_rows
from selgen import record, tiny
from selgen.data.chat import encode
from selgen.data.formats import to_examples
from selgen.reading import load_sets


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def shared(model_dir: Path) -> dict:
    return {
        "setting": "fake",
        "model": str(model_dir),
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.1},
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
    }


@pytest.fixture
def run_yaml(model_dir, tmp_path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**shared(model_dir), "method": "task_only"}))
    return path


@pytest.fixture
def sweep_yaml(model_dir, tmp_path) -> Path:
    curves = [{"method": "task_only", "epochs": [1, 2]}, {"method": "kl", "vary": {"beta": [0.1, 1]}}]
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({**shared(model_dir), "seeds": [1], "curves": curves}))
    return path


# -- what works --------------------------------------------------------------------------------------------------------


def test_train_runs_the_config_with_its_overrides(run_yaml, tmp_path):
    code, said = selgen(
        "train", "-c", run_yaml, "--out", tmp_path / "o", "method=kl", "method.beta=2", "training.seed=3"
    )
    assert code == 0, said
    [found] = record.read_all(tmp_path / "o")
    assert (found.method, found.strength, found.seed, found.status) == ("kl", 2.0, 3, "success")
    assert f"Run: {tmp_path / 'o' / found.run_id}" in said
    assert all(axis in said for axis in ("task", "alignment", "proxy", "non_sycophancy.gcd"))


def test_a_dry_run_lists_every_run_and_writes_nothing(sweep_yaml, tmp_path):
    code, said = selgen("sweep", "-c", sweep_yaml, "--out", tmp_path / "o", "--dry-run")
    assert code == 0, said
    assert "4 runs" in said
    assert "task_only epochs 1, 2 1 6 24" in said  # curve, strengths, seed, steps, sequences
    assert "kl beta 0.1 1 6 28" in said
    assert not (tmp_path / "o").exists()


def test_a_dry_run_loads_no_model(sweep_yaml, tmp_path):
    code, said = selgen("sweep", "-c", sweep_yaml, "--out", tmp_path / "o", "--dry-run", "model=/nowhere")
    assert code == 0, said


def test_sweep_then_report(sweep_yaml, tmp_path):
    out = tmp_path / "o"
    code, said = selgen("sweep", "-c", sweep_yaml, "--out", out, "--workers", 1)
    assert code == 0, said
    assert f"Next: selgen report {out}" in said
    code, said = selgen("report", out)
    assert code == 0, said
    assert str(out / "report" / "index.html") in said
    assert {"points.csv", "summary.json", "index.html"} <= {p.name for p in (out / "report").iterdir()}
    # The config lies in OUT, so that a resume needs none, and everything is there already.
    code, said = selgen("sweep", "--out", out)
    assert code == 0 and "4 of 4 runs are finished already" in said
    code, said = selgen("sweep", "-c", sweep_yaml, "--out", out, "lora.r=3")
    assert code == 2
    assert "holds another sweep (lora.r: there 2, here 3). Choose another --out" in said
    code, said = selgen("train", "-c", sweep_yaml, "--out", out, "method=kl")
    assert code == 2


@pytest.mark.parametrize(
    ("what", "some"), [("methods", ["base", "kl", "upweight", "fake_nan"]), ("settings", ["fake"]), ("models", ["DIR"])]
)
def test_list_names_what_a_config_can_name(what, some):
    code, said = selgen("list", what)
    assert code == 0
    assert all(name in said.split() for name in some)


@pytest.mark.parametrize(
    ("arguments", "most_seconds"), [(["--help"], 1.5), (["list", "methods"], 1.5), (["report", "nowhere"], 10)]
)
def test_light_commands_load_no_torch_and_start_fast(arguments, most_seconds):
    """In seconds of CPU, since other tests run beside; a report needs matplotlib."""
    code = (
        "import sys\nfrom selgen.cli import main\nsys.argv = ['selgen', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < most_seconds


# -- what cannot work is said before any training ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainng.seed=1", "Unknown key trainng. Did you mean 'training'?"),
        ("training.learning_rte=1", "Unknown key training.learning_rte. Did you mean 'learning_rate'?"),
        ("method=task_olny", "Unknown method 'task_olny'. Did you mean 'task_only'?"),
        ("setting=fakee", "Unknown setting 'fakee'. Did you mean 'fake'?"),
        ("method={name: kl, beta: -1}", "method.beta should be >= 0, found -1.0. Use 0 for task-only training."),
        ("setting={name: fake, num_align: 4}", "or set allow_large_alignment: true"),
        ("model=/nowhere/at/all", "found '/nowhere/at/all': there is no such directory. Correct the name"),
        ("model=miniature", "setting FakeSetting has no miniature. Name a model"),
        ("training.seed", "should look like training.seed=3"),
    ],
)
def test_a_wrong_config_is_refused_before_training(run_yaml, tmp_path, override, said):
    code, output = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", override)
    assert code != 0
    assert said in output
    assert not (tmp_path / "o").exists()


def test_all_problems_come_at_once(run_yaml, tmp_path):
    wrong = ["method={name: kl, beta: -1}", "extra=1", "training.seed=x", "setting={name: fake, num_align: 9}"]
    code, output = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", *wrong)
    assert code == 2
    assert "4 problems" in output


def test_an_empty_alignment_set_is_refused(run_yaml, tmp_path):
    code, output = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", "method=kl", "setting.num_align=0")
    assert code == 2
    assert "alignment_dataset should have at least 1 row for method KLPenalty, found 0. Give alignment data" in output


def test_alignment_above_a_quarter_needs_permission_and_is_reported(run_yaml, tmp_path):
    large = ["setting.num_align=4", "allow_large_alignment=true"]
    code, _ = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", *large)
    assert code == 0
    assert "large alignment set" in record.read_all(tmp_path / "o")[0].flags[0]


def test_a_loss_that_becomes_nan_stops_the_run_and_names_step_and_term(run_yaml, tmp_path):
    code, output = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", "method=fake_nan")
    assert code == 1
    assert "term 'broken' is nan at optimizer step 2. Training stopped." in output
    [found] = record.read_all(tmp_path / "o")
    assert found.status == "failed" and found.error is not None
    assert (found.error.step, found.error.term) == (2, "broken")


def test_a_learning_rate_that_diverges_ends_in_a_failed_record(run_yaml, tmp_path):
    """No method of ours is needed for a loss to become NaN."""
    code, output = selgen("train", "-c", run_yaml, "--out", tmp_path / "o", "training.learning_rate=1e30")
    assert code == 1 and "Lower training.learning_rate" in output
    assert record.read_all(tmp_path / "o")[0].status == "failed"


@pytest.mark.slow
def test_a_sweep_with_a_failed_run_says_which_and_exits_nonzero(sweep_yaml, tmp_path):
    one = "curves=[{method: {name: fake_nan, at_step: 1}}]"
    code, output = selgen("sweep", "-c", sweep_yaml, "--out", tmp_path / "o", "--workers", 1, one)
    assert code == 1
    assert "1 of 2 runs failed" in output and "term 'broken' is nan at optimizer step 1" in output


def test_a_missing_config_or_directory_is_named(tmp_path):
    assert "does not exist. Name an existing YAML file" in selgen("train", "-c", tmp_path / "no.yaml")[1]
    assert "is not a directory" in selgen("report", tmp_path / "no")[1]


# -- own data ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_files(tmp_path) -> tuple[Path, Path]:
    return write_rows(tmp_path / "task.jsonl", TASK), write_rows(tmp_path / "align.jsonl", ALIGNMENT)


def own(model, task, alignment, out, *more, command="train") -> tuple[int, str]:
    data = ["--model", model, "--task", task, "--alignment", alignment]
    return selgen(command, *data, "--out", out, *FAST, *LORA, *more)


def test_bad_rows_are_all_named_or_all_skipped_and_counted(model_dir, own_files, tmp_path):
    _, alignment = own_files
    bad = [
        {"messages": [{"role": "usr", "content": "it"}, {"role": "assistant", "content": "is"}]},
        {"prompt": "no answer"},
        {"prompt": "blank", "completion": " "},
    ]
    task = write_rows(tmp_path / "bad.jsonl", [*TASK, *bad])
    code, said = own(model_dir, task, alignment, tmp_path / "o", "--method", "kl")
    assert code == 2 and "3 problems" in said
    assert f"{task}, line 21: `messages[0].role` should be one of system, user, assistant, found 'usr'." in said
    assert f"{task}, line 22: should have `messages`, or" in said and f"{task}, line 23: `completion`" in said
    assert untouched(tmp_path / "o")
    code, said = own(model_dir, task, alignment, tmp_path / "o", "--method", "kl", "--skip-bad-rows")
    note = f"3 bad rows of {task} were skipped, the first: {task}, line 21:"
    assert code == 0 and f"Note: {note}" in said and ".." not in said.split("Note: ")[2]
    [found] = record.read_all(tmp_path / "o")
    assert any(flag.startswith(note) for flag in found.flags) and found.num_task == 12


def test_dpo_needs_rejected_answers(model_dir, own_files, tmp_path):
    rows = [{key: row[key] for key in ("prompt", "completion")} for row in ALIGNMENT]
    alignment = write_rows(tmp_path / "plain.jsonl", rows)
    code, said = own(model_dir, own_files[0], alignment, tmp_path / "o", "--method", "dpo")
    assert code == 2 and "method DPO needs a `rejected` answer in every alignment example, found 2 of 2 without" in said
    assert "Add `rejected` answers, or choose a method without preferences" in said
    assert untouched(tmp_path / "o")


def test_every_overlong_example_is_named_before_training(model_dir, own_files, tmp_path):
    def too_long(example) -> bool:
        return len(encode(tiny.tokenizer(), example).input_ids) > 19

    code, said = own(model_dir, *own_files, tmp_path / "o", "--method", "kl", "training.max_length=19")
    assert code == 2
    assert "more than max_length=19, so its answer would be cut. Raise training.max_length or shorten it." in said
    named = set(re.findall(r"example \d+ \('(.*?)'\)", said))
    task, alignment = own_files
    block = {"name": "files", "task": str(task), "alignment": str(alignment), "val_share": 0.2, "test_share": 0.2}
    trained = [e for examples in load_sets(block, 1).values() for e in examples]
    prompts = {e.prompt[0]["content"] for e in trained if too_long(e)}
    assert len(prompts) > 5 and prompts <= named
    rows = [*to_examples(TASK), *to_examples(ALIGNMENT)]
    assert not named & {e.prompt[0]["content"] for e in rows if not too_long(e)}
    assert untouched(tmp_path / "o")


def test_held_out_texts_are_checked_before_training_too(model_dir, own_files, tmp_path):
    rows = [{"prompt": f"is {i} <bos> right ?", "completion": "yes"} for i in range(1, 5)]
    more = f"more={write_rows(tmp_path / 'more.jsonl', rows)}"
    code, said = own(model_dir, *own_files, tmp_path / "o", "--method", "kl", "--held-out", more)
    assert code == 2 and said.count("example has more than one BOS token.") == 4
    assert untouched(tmp_path / "o")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "kll"], "Unknown method 'kll'. Did you mean 'kl'?"),
        ([], "method is missing."),
        (["--method", "kl", "--held-out", "foo"], "--held-out should be NAME=SOURCE, found 'foo'. Name its domain."),
        (
            ["--method", "kl", "--held-out", "a=x", "--held-out", "a=y"],
            "--held-out names 'a' more than once. Give each source its own name.",
        ),
        (["--method", "kl", "--held-out", "a=/no/such.jsonl"], "/no/such.jsonl does not exist."),
        (["--method", "kl", "setting.val_share=0.7"], "setting.val_share should be in (0, 0.5), found 0.7."),
    ],
)
def test_wrong_options_for_own_data_are_refused(options, said, model_dir, own_files, tmp_path):
    code, output = own(model_dir, *own_files, tmp_path / "o", *options)
    assert code == 2 and said in output
    assert untouched(tmp_path / "o")


def test_alignment_above_a_quarter_of_the_task_is_refused(model_dir, own_files, tmp_path):
    rows = [{"prompt": f"is it {i} , {j} ?", "completion": "yes"} for i in range(1, 6) for j in range(1, 5)]
    alignment = write_rows(tmp_path / "many.jsonl", rows)
    code, said = own(model_dir, own_files[0], alignment, tmp_path / "o", "--method", "kl")
    assert code == 2 and "should have at most 25% of the task set's rows, found 12 of 12 (100%). Use fewer" in said
    assert untouched(tmp_path / "o")


def test_a_sweeps_method_filter_also_holds_for_overridden_curves(model_dir, own_files, tmp_path):
    dry = ["--dry-run", "seeds=[1]"]
    code, said = own(model_dir, *own_files, tmp_path / "o", "--method", "kll", *dry, command="sweep")
    assert code == 2 and "No curve of this config has method 'kll'. Did you mean 'kl'?" in said
    curves = "curves=[{method: kl, vary: {beta: [1]}}, {method: task_only, epochs: [2]}]"
    code, said = own(model_dir, *own_files, tmp_path / "o", "--method", "kl", curves, *dry, command="sweep")
    assert code == 0 and "2 runs" in said and "kl beta 1" in said and "task_only" not in said
    code, said = own(model_dir, *own_files, tmp_path / "o", "--method", "kl", "curves=3", *dry, command="sweep")
    assert code == 2 and "curves should be a valid list" in said
    assert untouched(tmp_path / "o")


@pytest.mark.parametrize("below", ["", "deeper/still"])
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_an_out_that_is_no_directory_is_refused(command, below, model_dir, own_files, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / below
    code, said = own(model_dir, *own_files, out, "--method", "kl", command=command)
    assert code == 2 and f"--out should be a directory, found {out}: {tmp_path / 'file'} is a file." in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Say what to measure: RUN directories, or --model"),
        (["--model", "m"], "Say what to measure m on: --setting, -c, or --task"),
        (["--model", "m", "--alignment", "a"], "Say what to measure m on: --setting, -c, or --task"),
        (["run", "--model", "m"], "Give them, or --model, not both."),
        (["run", "--task", "t"], "RUN directories are measured on their own setting."),
        (["--model", "m", "--setting", "fake", "--task", "t"], "--setting fake and -c or your own data exclude each"),
    ],
)
def test_eval_says_which_options_it_needs(arguments, said):
    code, output = selgen("eval", *arguments)
    assert code == 2 and said in output
