"""A judge is known to work before anything is built or trained, and a dry run says how much it will be asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import fakes
import judged_fakes
from judged_fakes import PROMPTS
from packages import installed
from selgen import config, models, plan, reading, record, starting
from selgen.config import ConfigError
from selgen.judging import num_calls
from selgen.plan import Start
from selgen.run import execute
from selgen.spec import make_setting
from test_cli import selgen

EACH = 2 * 3 * 12 * 2
"""Judgements of one evaluation: splits x judged evals x prompts x numbers; the eval with `of` asks nothing."""
OFF = {"name": "hashing", "usable": False}
REFUSED = "judge.usable should be true, found False. Turn the judge on."


@pytest.fixture(autouse=True)
def fake_packages(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))
    monkeypatch.syspath_prepend(str(judged_fakes.install(tmp_path / "site")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    PROMPTS.clear()


def a_run(model, **changes) -> dict:
    return {
        "setting": "judged",
        "model": str(model),
        "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05},
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
        "judge": {"name": "hashing"},
    } | changes


def a_sweep(model, **changes) -> dict:
    curves = [{"method": "task_only", "epochs": [1, 2]}, {"method": "kl", "vary": {"beta": [0.1, 1]}}]
    return a_run(model, seeds=[1], curves=curves) | changes


def written(path: Path, data: dict) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture
def nothing_starts(monkeypatch):
    """Neither a miniature is built nor a worker started."""
    monkeypatch.setattr(starting, "_miniature", lambda *args: pytest.fail("the miniature was built"))
    monkeypatch.setattr("selgen.executors.local._start", lambda *args: pytest.fail("a worker was started"))
    monkeypatch.setattr("selgen.run.execute", lambda *args: pytest.fail("a run was carried out"))


@pytest.fixture(scope="module")
def finished(model_dir, tmp_path_factory) -> Path:
    """A finished run whose judge is off now."""
    with installed(tmp_path_factory.mktemp("site"), fakes, judged_fakes):
        out = tmp_path_factory.mktemp("finished")
        start = Start(str(model_dir), models.fingerprint(model_dir))
        job = plan.job(plan.parse_run(a_run(model_dir, method="task_only", judge=OFF)), start)
        assert execute(job, out).status == "success"
    return out / job.run_id


# -- before anything starts --------------------------------------------------------------------------------------------


def test_a_sweep_whose_judge_cannot_be_used_builds_and_leaves_nothing(nothing_starts, tmp_path):
    path = written(tmp_path / "s.yaml", a_sweep("miniature", judge=OFF))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "o")
    assert code == 2 and REFUSED in said
    assert not list((tmp_path / "o").glob("*"))


def test_a_single_run_is_refused_likewise(nothing_starts, tmp_path):
    path = written(tmp_path / "r.yaml", a_run("miniature", judge=OFF, method="task_only"))
    code, said = selgen("train", "-c", path, "--out", tmp_path / "o")
    assert code == 2 and REFUSED in said
    assert not list((tmp_path / "o").glob("*"))


def test_so_is_measuring_a_model_or_a_finished_run(model_dir, finished, tmp_path):
    path = written(tmp_path / "r.yaml", a_run(model_dir, judge=OFF))
    for command in (("eval", "-c", path, "--model", model_dir), ("eval", finished)):
        code, said = selgen(*command)
        assert code == 2 and REFUSED in said
    assert PROMPTS == []
    code, said = selgen("eval", finished, "judge.usable=true")
    assert code == 0 and PROMPTS, said


def test_a_conversation_needs_no_judge(finished):
    code, said = selgen("chat", finished, "--max-new-tokens", 3, typed="what is 1 ?\n/quit\n")
    assert code == 0 and "tuned" in said
    assert PROMPTS == []


def test_a_missing_key_is_named_with_the_remedy(nothing_starts, monkeypatch, tmp_path):
    monkeypatch.delenv("SOME_KEY", raising=False)
    judge = {"name": "endpoint", "model": "judge-model", "key_env": "SOME_KEY"}
    path = written(tmp_path / "s.yaml", a_sweep("miniature", judge=judge))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "o")
    assert code == 2 and "judge.key_env names the environment variable SOME_KEY, which is not set. Set it" in said


def test_a_judge_that_works_is_checked_once_and_the_start_is_found(model_dir, monkeypatch):
    checked = []
    monkeypatch.setattr(judged_fakes.Hashing, "check", lambda self: checked.append(self.manner))
    for judge, expected in (({"name": "hashing", "manner": "mild"}, ["mild"]), (None, ["mild"])):
        spec = plan.parse_run(a_run(model_dir, judge=judge, method="task_only"))
        assert starting.start(spec).path == str(model_dir)
        assert checked == expected


def test_every_run_of_a_sweep_has_its_judge(model_dir):
    judge = {"name": "hashing", "manner": "mild"}
    runs = plan.parse_sweep(a_sweep(model_dir, judge=judge)).expand()
    assert [r.judge["manner"] for r in runs] == ["mild"] * 4


# -- the dry run -------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_judgements_by_run_and_in_all_and_asks_nothing(nothing_starts, tmp_path):
    """The judge is off and the model is nowhere: neither is needed to count."""
    path = written(tmp_path / "s.yaml", a_sweep("/nowhere", judge=OFF))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "o", "--dry-run")
    assert code == 0, said
    assert "curve strength seed steps sequences prompts judge calls" in said
    assert EACH == 144 and PROMPTS == []
    prompts = 2 * (4 * 12 + 2 * 80)  # splits x (three judged evals and a likelihood, two others)
    assert f"base 1 0 0 {prompts} 144" in said
    assert f"task_only epochs 1, 2 1 6 24 {2 * prompts} 288" in said  # two measured steps
    assert f"kl beta 0.1 1 6 26 {prompts} 144" in said
    assert said.rstrip().endswith(f" {5 * prompts} {5 * 144}")
    assert not (tmp_path / "o").exists()


def test_a_dry_run_needs_no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("SOME_KEY", raising=False)
    judge = {"name": "endpoint", "model": "judge-model", "key_env": "SOME_KEY", "base_url": "http://127.0.0.1:1/v1"}
    path = written(tmp_path / "s.yaml", a_sweep("/nowhere", judge=judge))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "o", "--dry-run", "evaluation.splits=[test]")
    assert code == 0 and said.rstrip().endswith(f" {5 * 72}"), said


def test_without_a_judge_there_is_no_such_column(tmp_path):
    path = written(tmp_path / "s.yaml", a_sweep("/nowhere", judge=None))
    code, said = selgen("sweep", "-c", path, "--out", tmp_path / "o", "--dry-run")
    assert code == 0 and "judge calls" not in said


def test_a_post_hoc_run_is_judged_once(model_dir):
    curves = [{"method": "task_only", "epochs": [2]}, {"method": "safe_lora", "vary": {"k": [1]}}]
    runs = plan.parse_sweep(a_sweep(model_dir, curves=curves)).expand()
    assert [reading.judge_calls(r) for r in runs] == [EACH, EACH, EACH]


def test_a_finished_run_asked_for_as_many_judgements_as_were_counted(model_dir, tmp_path):
    """Equal prompts reach this judge as often as they occur."""
    spec = plan.parse_run(a_run(model_dir, method="task_only", epochs=[1, 2]))
    job = plan.job(spec, Start(str(model_dir), models.fingerprint(model_dir)))
    assert execute(job, tmp_path / "o").status == "success"
    assert len(PROMPTS) == reading.judge_calls(spec) == 2 * EACH
    assert num_calls(make_setting(spec.setting).evals(1, "val")) == EACH // 2
    assert record.is_finished(tmp_path / "o" / job.run_id)


def test_an_unknown_judge_is_a_problem_of_the_config(model_dir):
    with pytest.raises(ConfigError, match="Unknown judge 'hashin'. Did you mean 'hashing'"):
        plan.parse_run(config.override(a_run(model_dir, method="task_only"), ["judge=hashin"]))
