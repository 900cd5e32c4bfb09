"""The command line: what a user types, what they get, and what they are told when it cannot work."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import fakes
from selgen import record
from selgen.cli import app


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


def selgen(*arguments: object) -> tuple[int, str]:
    """Exit code, and both streams as plain text with single spaces."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)


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


def test_a_sweep_with_a_failed_run_says_which_and_exits_nonzero(sweep_yaml, tmp_path):
    one = "curves=[{method: {name: fake_nan, at_step: 1}}]"
    code, output = selgen("sweep", "-c", sweep_yaml, "--out", tmp_path / "o", "--workers", 1, one)
    assert code == 1
    assert "1 of 2 runs failed" in output and "term 'broken' is nan at optimizer step 1" in output


def test_a_missing_config_or_directory_is_named(tmp_path):
    assert "does not exist. Name an existing YAML file" in selgen("train", "-c", tmp_path / "no.yaml")[1]
    assert "is not a directory" in selgen("report", tmp_path / "no")[1]
