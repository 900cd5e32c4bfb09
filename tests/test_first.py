"""Runs that start from the adapter of a run before, planned and carried out with them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from typer.testing import CliRunner

import fakes
from selgen import adapters, card, models, opened, plan, record, starting, sweep, tiny
from selgen.cli import app
from selgen.config import ConfigError
from selgen.core import BASE, FIRST
from selgen.executors import local
from selgen.identity import run_id
from selgen.report.lookup import count_planned
from selgen.run import execute, run
from selgen.spec import RunSpec, make_setting

MODULES = 14
FIRST_RUN = {"setting": {"num_task": 8}, "training": {"num_train_epochs": 3}, "lora": {"r": 3}}


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))


def a_config(model_dir, **changes) -> dict:
    return {
        "setting": "fake",
        "model": str(model_dir),
        "training": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.05,
            "logging_steps": 1,
        },
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
        "first": FIRST_RUN,
    } | changes


def a_sweep(model_dir, **changes) -> dict:
    curves = [
        {"method": "safe_lora", "vary": {"k": [0, MODULES]}},
        {"method": "task_only", "epochs": [1, 2]},
        {"method": {"name": "kl", "beta": 1}, "epochs": [1, 4], "budget": "twice as many epochs"},
        {"method": "o_lora", "vary": {"weight": [0.5, 1]}, "budget": "first as many passes over the alignment set"},
    ]
    return a_config(model_dir, seeds=[1, 2], curves=curves) | changes


def tensors(run_dir):
    return load_file(run_dir / "adapter" / "adapter_model.safetensors")


def same_bits(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def swept(model_dir, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))
        place = tmp_path_factory.mktemp("swept")
        (place / "sweep.yaml").write_text(yaml.safe_dump(a_sweep(model_dir)))
        command = ["sweep", "-c", str(place / "sweep.yaml"), "--out", str(place / "out"), "--workers", "2"]
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return place / "out", {(r.curve, r.seed, r.strength): r for r in record.read_all(place / "out")}


# -- a sweep through the command line --


def test_every_run_of_a_seed_starts_from_the_one_run_before_it(swept):
    out, records = swept
    firsts = {seed: records[FIRST, seed, None] for seed in (1, 2)}
    assert len(records) == 2 * (1 + 1 + 2 + 1 + 1 + 2) and len({r.run_id for r in records.values()}) == len(records)
    for (curve, seed, _), r in records.items():
        assert r.first == (None if curve == FIRST else firsts[seed].run_id)
        if curve != FIRST:
            assert r.provenance["started"] >= firsts[seed].provenance["finished"]
    assert {(r.method, r.num_task, r.sequences, r.spec["lora"]["r"]) for r in firsts.values()} == {
        ("task_only", 8, 24, 3)
    }
    assert not same_bits(tensors(out / firsts[1].run_id), tensors(out / firsts[2].run_id))


def test_the_base_is_what_the_run_before_came_to(swept):
    """Both ask the same prompts, which the fake setting draws from neither set."""
    _, records = swept
    for seed in (1, 2):
        base, first = records[BASE, seed, None], records[FIRST, seed, None]
        assert [p.metrics for p in base.points] == [p.metrics for p in first.points]
        assert base.update_norm == 0 and base.sequences == 0


@pytest.mark.parametrize("curve", ["task_only", "kl over epochs", "o_lora", "safe_lora"])
def test_the_result_holds_the_start_and_opens_in_plain_peft_on_the_raw_base(swept, curve):
    out, records = swept
    [found, *_] = [r for (name, seed, _), r in records.items() if (name, seed) == (curve, 1)]
    start, whole = (models.read_adapter(out / name / "adapter") for name in (found.first, found.run_id))
    own = adapters.split(whole, start)
    assert {a.shape[0] for a, _ in own.factors.values()} == {4 if curve == "o_lora" else 2}
    assert all(torch.equal(whole.factors[m][0][:3], a) for m, (a, _) in start.factors.items())
    plain = PeftModel.from_pretrained(tiny.model(), out / found.run_id / "adapter")
    plain.get_base_model()
    one = opened.open_run(out / found.run_id, [])
    assert [one.measure(p.split)[0].metrics for p in found.points[-2:]] == [p.metrics for p in found.points[-2:]]


def test_k_0_on_top_of_an_adapter_is_the_parent_bit_for_bit(swept):
    out, records = swept
    child, parent = records["safe_lora", 1, 0.0], records["task_only", 1, None]
    assert child.parent == parent.run_id
    assert same_bits(tensors(out / child.run_id), tensors(out / parent.run_id))
    configs = [json.loads((out / r.run_id / "adapter/adapter_config.json").read_text()) for r in (child, parent)]
    assert {name: configs[0][name] for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")} == {
        name: configs[1][name] for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")
    }
    assert [p.metrics for p in child.points] == [p.metrics for p in parent.points if p.step == 6]
    assert child.update_norm == pytest.approx(parent.update_norm)


def test_the_alignment_direction_of_a_starting_adapter_is_its_own_update(swept):
    """V = B0 A0, and of the task's B alone P B is kept, P = V V^T / |V|."""
    out, records = swept
    child, parent = records["safe_lora", 2, float(MODULES)], records["task_only", 2, None]
    before, after = tensors(out / parent.run_id), tensors(out / child.run_id)
    moved = 0
    for name in (n for n in before if n.endswith("lora_B.weight")):
        a0, b0 = before[name.replace("lora_B", "lora_A")][:3], before[name][:, :3]
        v = b0 @ a0
        expected = v @ v.T / v.norm() @ before[name][:, 3:]
        assert torch.equal(after[name][:, :3], b0)
        assert torch.allclose(after[name][:, 3:], expected, atol=1e-5, rtol=1e-4)
        moved += not torch.allclose(expected, before[name][:, 3:], atol=1e-3)
        assert torch.equal(after[name.replace("lora_B", "lora_A")], before[name.replace("lora_B", "lora_A")])
    assert moved == MODULES


def test_the_report_counts_the_runs_before_and_shows_none_of_them(swept):
    out, records = swept
    assert count_planned(out) == len(records)
    done = CliRunner().invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    summary = json.loads((out / "report" / "summary.json").read_text())
    assert summary["counts"]["finished"] == len(records) and summary["counts"]["missing"] == 0
    [comparison] = summary["comparisons"]
    assert {row["curve"] for row in comparison["rows"]} == {
        *(BASE, "task_only", "kl over epochs", "o_lora", "safe_lora")
    }
    chosen = CliRunner().invoke(app, ["choose", str(out), "--keep", "alignment>=0"])
    assert chosen.exit_code == 0 and "first" not in chosen.output.split("left out")[0], chosen.output


def test_a_dry_run_shows_the_runs_before(model_dir, tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(a_sweep(model_dir)))
    command = ["sweep", "-c", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "16 runs" in done.output
    assert sum(line.split()[0] == FIRST for line in done.output.splitlines() if line.strip()) == 2


def test_the_same_sweep_again_trains_nothing(swept, model_dir, monkeypatch):
    out, records = swept
    monkeypatch.setattr(local, "_start", lambda *args: pytest.fail("a worker was started"))
    again = sweep.sweep(plan.parse_sweep(yaml.safe_load((out / "sweep.yaml").read_text())), out, num_workers=1)
    assert {r.run_id for r in again} == {r.run_id for r in records.values()}


def test_the_tuned_model_stands_beside_the_one_it_started_from(swept):
    out, records = swept
    found, first = records["task_only", 1, None], records[FIRST, 1, None]
    one, base = (opened.open_run(out / records[key].run_id, []) for key in (("task_only", 1, None), (BASE, 1, None)))
    assert one.measure_start("test")[0].metrics == base.measure("test")[0].metrics == first.points[-1].metrics
    said = CliRunner().invoke(app, ["chat", str(out / found.run_id)], input="what is gcd ?\n/quit\n")
    assert said.exit_code == 0 and "task_only" in said.output
    readme = (out / found.run_id / "adapter" / "README.md").read_text()
    assert f"run: {found.run_id}, on top of the adapter of run {found.first}" in readme


# -- single runs, interruptions, failures --


def jobs_of(model_dir, **changes) -> list[plan.Job]:
    return starting.jobs(plan.parse_run(a_config(model_dir, method="task_only", **changes)).lineage())


def test_train_carries_the_run_before_out_once(model_dir, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(a_config(model_dir, method="safe_lora")))
    command = ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "method.k=3"])
    assert done.exit_code == 0, done.output
    found = record.read_all(tmp_path / "out")
    [first] = [r for r in found if r.curve == FIRST]
    assert sorted(r.curve for r in found) == [FIRST, "safe_lora", "task_only"]
    assert f"Starts from: {tmp_path / 'out' / first.run_id}" in done.output
    again = CliRunner().invoke(app, [*command, "method=kl"])
    assert again.exit_code == 0 and "1 of 2 runs are finished already" in again.output


class Killed(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


def test_a_run_killed_after_the_one_before_it_goes_on_from_there(model_dir, tmp_path, monkeypatch):
    first, child = jobs_of(model_dir)
    started = execute(first, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(card, "write", lambda *args: (_ for _ in ()).throw(Killed))
        execute(child, tmp_path)
    assert [job.run_id for job in jobs_of(model_dir)] == [first.run_id, child.run_id]
    resumed = run(plan.parse_run(a_config(model_dir, method="task_only")), tmp_path)
    assert record.read(tmp_path / first.run_id) == started
    whole = run(plan.parse_run(a_config(model_dir, method="task_only")), tmp_path / "whole")
    assert resumed.run_id == whole.run_id
    assert same_bits(tensors(tmp_path / resumed.run_id), tensors(tmp_path / "whole" / whole.run_id))


def test_a_run_killed_in_training_resumes_to_the_same_bits_on_top_of_the_same_start(model_dir, tmp_path, monkeypatch):
    training = a_config(model_dir)["training"] | {"save_steps": 2}
    first, child = jobs_of(model_dir, training=training)
    execute(first, tmp_path)
    seen = []

    def die(units):
        seen.append(units)
        if len(seen) == 5:
            raise Killed

    with pytest.raises(Killed):
        execute(child, tmp_path, die)
    assert list((tmp_path / child.run_id / "checkpoints").glob("checkpoint-*"))
    assert execute(child, tmp_path).status == "success"
    for job in (first, child):
        execute(job, tmp_path / "whole")
    assert same_bits(tensors(tmp_path / child.run_id), tensors(tmp_path / "whole" / child.run_id))


def test_a_failed_run_before_fails_what_starts_from_it(model_dir, tmp_path):
    spec = plan.parse_run(a_config(model_dir, method="kl", first={"training": {"max_length": 2}}))
    start = plan.Start(str(model_dir), "f")  # the texts are not looked at before
    first, child = plan.jobs(spec.lineage(), start)
    failed = execute(first, tmp_path)
    assert failed.error is not None
    error = execute(child, tmp_path).error
    assert error is not None and error.type == "ParentFailed"
    assert error.message == f"the run that it starts from {first.run_id} failed: {failed.error.message}"


@pytest.mark.parametrize("gone", ["record.json", "adapter"])
def test_a_run_before_without_a_result_is_named(model_dir, tmp_path, gone):
    first, child = jobs_of(model_dir)
    execute(first, tmp_path)
    (tmp_path / first.run_id / gone).rename(tmp_path / "elsewhere")
    error = execute(child, tmp_path).error
    assert error is not None and f"the run that it starts from {first.run_id} is " in error.message


def test_a_start_that_is_gone_is_told(model_dir, tmp_path):
    first, child = jobs_of(model_dir)
    execute(first, tmp_path)
    execute(child, tmp_path)
    shutil.rmtree(tmp_path / first.run_id)
    with pytest.raises(ConfigError, match="the model that the run started from, is gone"):
        opened.open_run(tmp_path / child.run_id, [])


def test_an_adapter_directory_is_a_start_for_post_hoc_methods_and_o_lora_too(model_dir, tmp_path):
    trained = run(plan.parse_run(a_config(model_dir, method="task_only", first=None)), tmp_path / "earlier")
    adapter = tmp_path / "earlier" / trained.run_id / "adapter"
    for method in ({"name": "safe_lora", "k": 0}, {"name": "o_lora"}):
        found = run(plan.parse_run(a_config(adapter, method=method, first=None)), tmp_path)
        assert found.status == "success", found.error
        if found.parent:
            assert same_bits(tensors(tmp_path / found.run_id), tensors(tmp_path / found.parent))
        PeftModel.from_pretrained(tiny.model(), tmp_path / found.run_id / "adapter")


# -- names --


def test_the_name_of_a_run_holds_the_name_of_the_one_before(model_dir):
    first, child = jobs_of(model_dir)
    other_first, other_child = jobs_of(model_dir, first={**FIRST_RUN, "setting": {"num_task": 9}})
    same_first, same_child = jobs_of(model_dir, first={**FIRST_RUN, "lora": {"r": 3, "lora_alpha": 4}})
    assert (same_first.run_id, same_child.run_id) == (first.run_id, child.run_id)
    assert other_first.run_id != first.run_id and other_child.run_id != child.run_id
    [alone] = jobs_of(model_dir, first=None)
    assert alone.run_id not in (first.run_id, child.run_id)
    assert child.first == first.run_id and first.first is None


@pytest.mark.parametrize(
    ("method", "name"), [({"name": "kl", "beta": 2}, "0691b069ec4c"), ({"name": "base"}, "513a2770b0e3")]
)
def test_runs_without_one_before_keep_the_names_that_they_had(method, name):
    """As written by the version in which no config could name a run before."""
    spec = RunSpec.parse({"setting": {"name": "sycophancy"}, "method": method, "model": "/x/y"})
    assert run_id(spec, setting=make_setting(spec.setting), data="d", weights="w", miniature=None) == name


def test_proxies_share_the_run_before_where_its_own_is_fixed(model_dir):
    curves = [{"method": "task_only", "proxies": ["capitals", "gcd"]}]
    for fixed, number in ((["proxy"], 1), ([], 2)):
        first = {"setting": {"num_task": 8, **dict.fromkeys(fixed, "gcd")}}
        spec = plan.parse_sweep(a_sweep(model_dir, curves=curves, first=first, seeds=[1]))
        jobs = plan.jobs(spec.expand(), plan.Start("x", "f"))
        assert sum(job.spec.curve == FIRST for job in jobs) == number == len({j.first for j in jobs if j.first})
        assert len({job.run_id for job in jobs}) == len(jobs)


# -- what is refused --


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"first": {"setting": {"num_tusk": 3}}}, "first: Unknown key setting.num_tusk. Did you mean 'num_task'?"),
        ({"first": {"setting": {"num_task": 0}}}, "first: setting.num_task should be >= 1, found 0"),
        ({"first": {"setting": {"name": "files"}}}, "first: setting.name should be left out, found 'files'"),
        ({"first": {"training": {"lerning_rate": 1}}}, "Unknown key first.training.lerning_rate. Did you mean"),
        ({"first": {"training": {"seed": 3}}}, "first.training.seed should be left out, found 3"),
        ({"first": {"lora": {"r": 0}}}, "first.lora.r should be greater than or equal to 1, found 0"),
        ({"first": {"lora": {"use_dora": True}}}, "lora.use_dora should be false with first"),
        ({"lora": None}, "lora should not be null with first"),
        ({"first": {"steps": 3}}, "Unknown key first.steps"),
        ({"first": {"setting": {"num_task": 4}}}, "first: The alignment set should have at most 25%"),
    ],
)
@pytest.mark.parametrize("parse", [plan.parse_run, plan.parse_sweep])
def test_a_wrong_run_before_is_refused(model_dir, changes, said, parse):
    one = {"method": "kl"} if parse is plan.parse_run else {"curves": [{"method": "kl"}], "seeds": [1]}
    with pytest.raises(ConfigError) as raised:
        parse(a_config(model_dir, **one, **changes) if "first" not in changes else a_config(model_dir, **one) | changes)
    assert said in "\n".join(raised.value.problems)


def test_texts_too_long_for_the_run_before_alone_are_refused(model_dir):
    with pytest.raises(ConfigError, match="max_length"):
        jobs_of(model_dir, first={"training": {"max_length": 2}})


def test_the_name_of_the_runs_before_is_kept_for_them(model_dir):
    with pytest.raises(ConfigError, match="that name is kept for runs from which others start"):
        plan.parse_sweep(a_sweep(model_dir, curves=[{"method": "projection", "name": FIRST}]))
