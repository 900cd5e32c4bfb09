"""Runs that act on finished ones: each parent once per seed, each strength from the parent's own adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from typer.testing import CliRunner

import fakes
from selgen import card, models, opened, plan, reading, record, refusals, starting, sweep, tiny
from selgen.cli import app
from selgen.config import ConfigError
from selgen.executors import local
from selgen.plan import Start
from selgen.run import execute, run
from selgen.spec import RunSpec

TRAINING = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05, "logging_steps": 1}
STEPS, MODULES = 6, 14


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """The weights before alignment."""
    path = tmp_path_factory.mktemp("base")
    tiny.model(seed=1).save_pretrained(path)
    return str(path)


def a_config(model_dir, **changes) -> dict:
    return {
        "setting": "fake",
        "model": str(model_dir),
        "training": TRAINING,
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
    } | changes


def a_sweep(model_dir, base, **changes) -> dict:
    curves = [
        {"method": {"name": "safe_lora", "base": base}, "vary": {"k": [0, 14]}},
        {"method": "task_only", "epochs": [1, 2]},
        {"method": {"name": "safe_lora", "base": base}, "name": "by cosine", "vary": {"tau": [0.5, 1.0]}},
    ]
    return a_config(model_dir, seeds=[1, 2], curves=curves) | changes


def a_run(model_dir, base, **fields) -> RunSpec:
    return plan.parse_run(a_config(model_dir, method={"name": "safe_lora", "base": base, **fields}))


def jobs_of(spec: RunSpec) -> list[plan.Job]:
    start, runs = starting.start(spec), spec.lineage()
    return plan.jobs(runs, start, refusals.check_methods(runs, start))


def adapter(out, run_id):
    return load_file(out / run_id / "adapter" / "adapter_model.safetensors")


def same_bits(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def swept(model_dir, base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))
        out = tmp_path_factory.mktemp("swept")
        records = sweep.sweep(plan.parse_sweep(a_sweep(model_dir, base)), out, num_workers=2)
    assert [r.status for r in records] == ["success"] * 12
    return out, records


def of(records, curve, seed, strength=None):
    [found] = [r for r in records if (r.curve, r.seed) == (curve, seed) and strength in (None, r.strength)]
    return found


# -- sweeps --


def test_a_parent_is_trained_once_per_seed_and_named_by_its_children(swept):
    out, records = swept
    parents = {seed: of(records, "task_only", seed).run_id for seed in (1, 2)}
    assert sum(r.method == "task_only" for r in records) == 2
    for r in records:
        assert r.parent == (parents[r.seed] if r.method == "safe_lora" else None)
        if r.method == "safe_lora":
            started = {key: record.read(out / name).provenance for key, name in (("own", r.run_id), ("of", r.parent))}
            assert started["own"]["started"] >= started["of"]["finished"]


def test_k_0_is_the_parent_bit_for_bit_and_measures_the_same(swept):
    out, records = swept
    for seed in (1, 2):
        child, parent = of(records, "safe_lora", seed, 0), of(records, "task_only", seed)
        assert same_bits(adapter(out, child.run_id), adapter(out, parent.run_id))
        assert [(p.split, p.step, p.metrics) for p in child.points] == [
            (p.split, p.step, p.metrics) for p in parent.points if p.step == STEPS
        ]
        assert child.update_norm == pytest.approx(parent.update_norm)


def test_a_child_says_what_the_result_has_seen_and_what_itself_took(swept):
    _, records = swept
    child, parent = of(records, "safe_lora", 1, 14), of(records, "task_only", 1)
    assert (child.strength_name, child.strength) == ("k", 14)
    assert child.sequences == parent.sequences == 2 * 12
    assert child.train_seconds < parent.train_seconds
    assert child.update_norm not in (0, parent.update_norm)
    assert all((p.step, p.epoch, p.strength) == (STEPS, 2.0, 14) for p in child.points)
    said = child.provenance["transform"]
    assert len(said["cosines"]) == MODULES and len(said["projected"]) == 14


def test_strengths_are_not_cumulative(swept, model_dir, base, tmp_path):
    """Alone in another directory, with no smaller k before it, the same k gives the same adapter."""
    out, records = swept
    alone = run(a_run(model_dir, base, k=14), tmp_path)
    assert same_bits(adapter(tmp_path, alone.run_id), adapter(out, of(records, "safe_lora", 1, 14).run_id))
    assert same_bits(
        adapter(out, of(records, "by cosine", 1, 1.0).run_id), adapter(out, of(records, "safe_lora", 1, 14).run_id)
    )


def test_tau_has_a_curve_of_its_own(swept):
    _, records = swept
    found = of(records, "by cosine", 2, 0.5)
    assert (found.strength_name, found.strength) == ("tau", 0.5)
    said = found.provenance["transform"]
    assert set(said["projected"]) == {name for name, cosine in said["cosines"].items() if cosine <= 0.5}


def test_the_same_sweep_again_trains_nothing(swept, model_dir, base, monkeypatch):
    out, records = swept
    monkeypatch.setattr(local, "_start", lambda *args: pytest.fail("a worker was started"))
    again = sweep.sweep(plan.parse_sweep(a_sweep(model_dir, base)), out, num_workers=1)
    assert [r.run_id for r in again] == [r.run_id for r in records]


def test_the_saved_adapter_opens_in_plain_peft_and_in_eval(swept):
    out, records = swept
    found = of(records, "safe_lora", 1, 14)
    directory = out / found.run_id / "adapter"
    PeftModel.from_pretrained(tiny.model(), directory)
    one = opened.open_run(out / found.run_id, [])
    for point in found.points:
        assert one.measure(point.split)[0].metrics == point.metrics
    assert one.name == "safe_lora, k 14, seed 1"
    assert f"run: {found.run_id}, from the adapter of run {found.parent}" in (directory / "README.md").read_text()


def test_the_report_shows_each_strength(swept):
    out, _ = swept
    done = CliRunner().invoke(app, ["report", str(out)])
    assert done.exit_code == 0, done.output
    rows = (out / "report" / "points.csv").read_text().splitlines()
    assert sum(",safe_lora," in row for row in rows) == 2 * 4 * 2  # splits, strengths of both curves, seeds


def test_a_dry_run_counts_a_parent_once(model_dir, base, tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(a_sweep(model_dir, base)))
    runs = plan.parse_sweep(a_sweep(model_dir, base)).expand()
    sizes = [reading.size(r) for r in runs]
    assert sum(size.sequences for size in sizes) == 2 * 24
    assert {(s.steps, s.sequences) for r, s in zip(runs, sizes, strict=True) if r.is_post_hoc} == {(0, 0)}
    command = ["sweep", "-c", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "by cosine" in done.output


# -- single runs, interruptions, failures --


def test_train_carries_the_parent_out_first_and_does_not_repeat_it(model_dir, base, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(a_config(model_dir, method="kl")))
    out = tmp_path / "out"
    command = ["train", "-c", str(tmp_path / "run.yaml"), "--out", str(out), "method=safe_lora", f"method.base={base}"]
    first = CliRunner().invoke(app, [*command, "method.k=3"])
    assert first.exit_code == 0, first.output
    [parent] = [r for r in record.read_all(out) if r.method == "task_only"]
    assert f"Changed from: {out / parent.run_id}" in first.output
    second = CliRunner().invoke(app, [*command, "method.tau=0.5"])
    assert second.exit_code == 0 and "1 of 2 runs are finished already" in second.output
    found = record.read_all(out)
    assert [(r.method, r.strength_name, r.strength, r.parent) for r in found] == [
        ("safe_lora", "tau", 0.5, parent.run_id),
        ("safe_lora", "k", 3.0, parent.run_id),
        ("task_only", "epochs", None, None),
    ]
    assert [r for r in found if r.method == "task_only"] == [parent]


class Killed(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


def test_a_child_killed_and_started_again_leaves_the_same(model_dir, base, tmp_path, monkeypatch):
    parent, child = jobs_of(a_run(model_dir, base, k=9))
    execute(parent, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(card, "write", lambda *args: (_ for _ in ()).throw(Killed))
        execute(child, tmp_path)
    assert not record.is_finished(tmp_path / child.run_id)
    resumed = execute(child, tmp_path)
    whole = run(a_run(model_dir, base, k=9), tmp_path / "whole")
    assert same_bits(adapter(tmp_path, child.run_id), adapter(tmp_path / "whole", whole.run_id))
    assert [p.metrics for p in resumed.points] == [p.metrics for p in whole.points]
    assert len(list(record.read_samples(tmp_path / child.run_id, "test"))) == 12


def test_a_failed_parent_fails_its_children_and_they_say_so(model_dir, base, tmp_path):
    spec = a_run(model_dir, base, k=3)
    parent, child = jobs_of(spec.model_copy(update={"training": spec.training.model_copy(update={"max_length": 2})}))
    failed = execute(parent, tmp_path)
    assert failed.error is not None
    found = execute(child, tmp_path)
    assert found.status == "failed" and found.parent == parent.run_id
    assert found.error.type == "ParentFailed"
    assert found.error.message == f"its parent run {parent.run_id} failed: {failed.error.message}"
    assert not (tmp_path / child.run_id / "adapter").exists()


@pytest.mark.parametrize("gone", ["record.json", "adapter"])
def test_a_parent_without_a_result_is_named(model_dir, base, tmp_path, gone):
    parent, child = jobs_of(a_run(model_dir, base, k=3))
    execute(parent, tmp_path)
    (tmp_path / parent.run_id / gone).rename(tmp_path / "elsewhere")
    error = execute(child, tmp_path).error
    assert error is not None and f"parent run {parent.run_id} is " in error.message


# -- names --


def test_a_run_is_named_by_its_parent_and_by_what_its_weights_are(model_dir, base, tmp_path):
    tiny.model(seed=1).save_pretrained(tmp_path / "copy")
    tiny.model(seed=2).save_pretrained(tmp_path / "other")
    own, copied, other = (
        jobs_of(a_run(model_dir, b, k=3))[1] for b in (base, str(tmp_path / "copy"), str(tmp_path / "other"))
    )
    assert own.run_id == copied.run_id != other.run_id
    elsewhere = plan.job(own.spec, own.start, {"base": models.fingerprint(base), "aligned": None}, "another parent")
    assert elsewhere.run_id != own.run_id


def test_names_of_weights_hold_from_any_directory(model_dir, base, monkeypatch):
    monkeypatch.chdir(Path(base).parent)
    relative = Path(base).name
    assert a_run(model_dir, relative, k=3).method["base"] == base
    curve = plan.parse_sweep(a_sweep(model_dir, relative)).curves[0]
    assert curve.method["base"] == base


# -- what is refused before anything is trained --


def problems(data: dict, parse=plan.parse_sweep) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(data)
    return "\n".join(raised.value.problems)


def test_a_sweep_needs_the_runs_to_act_on(model_dir, base):
    curves = [{"method": {"name": "safe_lora", "base": base}, "vary": {"k": [1, 2]}}, {"method": "projection"}]
    assert (
        "Curve 'safe_lora': method safe_lora acts on the runs of task_only, of which there is no curve. Add one"
    ) in problems(a_sweep(model_dir, base, curves=curves))


def test_full_fine_tuning_leaves_no_adapter_to_change(model_dir, base):
    said = "lora should not be null with method safe_lora, which changes a trained adapter. Give lora.r"
    assert said in problems(a_sweep(model_dir, base, lora=None))
    assert said in problems(a_config(model_dir, method={"name": "safe_lora", "base": base}, lora=None), plan.parse_run)


def test_there_are_no_epochs_of_a_method_that_trains_nothing(model_dir, base):
    config = a_config(model_dir, method={"name": "safe_lora", "base": base}, epochs=[1, 2])
    assert "epochs should not be given with method safe_lora, which trains nothing, found [1, 2]. Vary k" in problems(
        config, plan.parse_run
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": None}, "lora should not be null with method o_lora, which fits an adapter first. Give lora.r"),
        ({"lora": {"use_dora": True}}, "lora.use_dora should be false with method o_lora: the sum of two adapters"),
    ],
)
def test_a_method_that_fits_an_adapter_first_needs_plain_ones(model_dir, changes, said):
    assert said in problems(a_config(model_dir, method="o_lora", **changes), plan.parse_run)


def test_a_first_phase_is_declared_as_budget(model_dir, base):
    curves = [{"method": "o_lora", "vary": {"weight": [0.1, 1]}}]
    said = "method o_lora trains on the alignment set before the task, unlike the other curves. Say so in budget"
    assert said in problems(a_sweep(model_dir, base, curves=curves))


def test_the_rows_of_a_first_phase_are_planned_and_counted(model_dir, tmp_path):
    spec = plan.parse_run(a_config(model_dir, method="o_lora"))
    assert reading.size(spec).sequences == 2 * (12 + 2)
    found = run(spec, tmp_path)
    assert found.status == "success" and found.sequences == 2 * (12 + 2)
    one = opened.open_run(tmp_path / found.run_id, [])
    assert [one.measure(p.split)[0].metrics for p in found.points] == [p.metrics for p in found.points]


def refused(spec: dict, tmp_path) -> str:
    with pytest.raises(ConfigError) as raised:
        sweep.sweep(plan.parse_sweep(spec), tmp_path / "out", num_workers=1)
    assert not list((tmp_path / "out").glob("*/*")), "something was carried out"
    return "\n".join(raised.value.problems)


def test_shapes_that_differ_are_refused_before_the_parent_is_trained(model_dir, tmp_path):
    tiny.model(intermediate_size=24).save_pretrained(tmp_path / "narrow")
    said = refused(a_sweep(model_dir, str(tmp_path / "narrow")), tmp_path)
    assert "method safe_lora: weights of model.layers.0.mlp.gate_proj should have one shape, found [24, 16]" in said


def test_the_start_of_a_miniature_names_its_earlier_weights(model_dir, base):
    """Which is then the default of method.base."""
    start = Start(str(model_dir), models.fingerprint(model_dir), "key", base)
    spec = plan.parse_run(a_config(model_dir, method="safe_lora"))
    assert refusals.check_methods([spec], start) == {}
    with pytest.raises(ConfigError, match="method.base should name the weights of .* before alignment, found null"):
        refusals.check_methods([spec], starting.start(spec))
