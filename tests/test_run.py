"""One run, wired: what it writes, what it measures, how it fails, and that an interruption changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from safetensors.torch import load_file

import fakes
from selgen import models, plan, record
from selgen.plan import Start
from selgen.run import execute, run
from selgen.spec import RunSpec
from selgen.work import CHECKPOINTS

TRAINING = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 0.05, "logging_steps": 1}
STEPS = 9


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


@pytest.fixture(scope="module")
def start(model_dir) -> Start:
    return Start(str(model_dir), models.fingerprint(model_dir))


def a_job(start: Start, **changes):
    data = {
        "setting": "fake",
        "model": start.path,
        "method": {"name": "kl", "beta": 0.5},
        "training": TRAINING,
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
    }
    return plan.job(plan.parse_run(data | changes), start)


def without_times(result: record.RunRecord) -> dict:
    data = result.model_dump(mode="json", exclude={"train_seconds", "provenance"})
    for point in data["points"]:
        del point["eval_seconds"]
    return data


def files_without_times(run_dir) -> dict:
    """Everything that a run leaves behind, apart from its record and the times in its metrics."""
    metrics = [{k: v for k, v in row.items() if k != "seconds"} for row in record.read_metrics(run_dir)]
    samples = {split: list(record.read_samples(run_dir, split)) for split in ("val", "test")}
    return {"metrics": metrics, "samples": samples, "spec": yaml.safe_load((run_dir / record.SPEC).read_text())}


def test_a_run_leaves_the_documented_files_and_a_record_that_says_what_it_did(start, tmp_path):
    job = a_job(start)
    units = []
    result = execute(job, tmp_path, units.append)
    run_dir = tmp_path / job.run_id
    names = {p.name for p in run_dir.iterdir()}
    assert names == {"spec.yaml", "metrics.jsonl", "samples.val.jsonl", "samples.test.jsonl", "adapter", "record.json"}
    assert result == record.read(run_dir)
    assert (result.status, result.error) == ("success", None)
    assert (result.method, result.curve, result.strength_name, result.strength) == ("kl", "kl", "beta", 0.5)
    assert (result.num_task, result.num_alignment, result.seed) == (12, 2, 1)
    assert result.sequences == job.size.sequences == 3 * (12 + 2)
    assert result.update_norm is not None and result.update_norm > 0
    assert sum(units) == job.work
    assert RunSpec.parse(yaml.safe_load((run_dir / "spec.yaml").read_text())) == job.spec
    assert result.provenance["versions"]["torch"] and result.provenance["device"].startswith(("cpu", "NVIDIA"))


def test_points_are_measured_on_both_splits_at_the_last_step(start, tmp_path):
    result = execute(a_job(start), tmp_path)
    assert [(p.step, p.epoch, p.split, p.strength) for p in result.points] == [
        (STEPS, 3.0, "val", 0.5),
        (STEPS, 3.0, "test", 0.5),
    ]
    point = result.points[0]
    assert set(point.metrics) == {"knows.gcd", "non_sycophancy.gcd", "non_sycophancy.capitals"}
    assert point.axes["alignment"] == point.metrics["non_sycophancy.gcd"]
    assert point.axes["proxy"] == point.metrics["non_sycophancy.capitals"]
    assert point.axes["capability"].n == 0
    assert point.score_y == point.axes["task"].value is not None


def test_metrics_hold_every_term_and_norm_of_every_step(start, tmp_path):
    job = a_job(start)
    execute(job, tmp_path)
    rows = record.read_metrics(tmp_path / job.run_id)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        assert {"loss", "term/task", "term/kl", "grad_norm", "learning_rate", "update_norm", "seconds"} <= set(row)


def test_samples_hold_what_was_asked_answered_and_scored(start, tmp_path):
    job = a_job(start)
    execute(job, tmp_path)
    samples = list(record.read_samples(tmp_path / job.run_id, "test"))
    assert len(samples) == 12
    where = {"step", "eval", "domain", "pair", "prompt", "gold"}
    what = {"response", "value", "answer", "reason", "raw", "counted"}
    assert all(set(sample) == where | what and sample["step"] == STEPS for sample in samples)


def test_the_base_is_evaluated_untouched(start, tmp_path):
    job = a_job(start, method="base")
    result = execute(job, tmp_path)
    assert {p.step for p in result.points} == {0}
    assert (result.sequences, result.update_norm, result.strength_name) == (0, 0.0, None)
    assert not (tmp_path / job.run_id / "adapter").exists()


def test_epochs_are_checkpoints_of_one_run_and_measuring_them_does_not_disturb_it(start, tmp_path):
    often = execute(a_job(start, method="task_only", epochs=[1, 2, 3]), tmp_path)
    once = execute(a_job(start, method="task_only"), tmp_path)
    assert [(p.step, p.strength) for p in often.points if p.split == "val"] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert (often.strength_name, often.strength) == ("epochs", None)
    weights = [load_file(tmp_path / r.run_id / "adapter" / "adapter_model.safetensors") for r in (often, once)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[1])
    assert often.points[-1].metrics == once.points[-1].metrics


def test_the_saved_adapter_opens_in_plain_peft_and_carries_a_card(start, tmp_path):
    job = a_job(start)
    execute(job, tmp_path)
    adapter = tmp_path / job.run_id / "adapter"
    models.load(adapter)
    assert json.dumps({"beta": 0.5, "direction": "policy_ref"}) in (adapter / "README.md").read_text()


def test_all_weights_train_without_lora(start, tmp_path):
    job = a_job(start, lora=None)
    result = execute(job, tmp_path)
    assert result.status == "success"
    assert (tmp_path / job.run_id / "adapter" / "model.safetensors").is_file()


def test_a_finished_run_is_read_and_not_repeated(start, tmp_path):
    job = a_job(start)
    first = execute(job, tmp_path)
    assert execute(job, tmp_path) == first
    assert run(job.spec, tmp_path) == first


class Killed(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


# Writes and reports of this run, in order: 1 spec; 2 a step; 6 an evaluation (after steps 3 and 9); 1 record.
MOMENTS = [(None, 5), (2, 18), (3, 29)]
MORE_MOMENTS = [(None, 30), (1, 4), (2, 11), (3, 12), (3, 32)]


@pytest.mark.parametrize(
    ("save_steps", "after"), [*MOMENTS, *(pytest.param(*moment, marks=pytest.mark.slow) for moment in MORE_MOMENTS)]
)
def test_a_run_killed_anywhere_and_started_again_leaves_the_same(start, tmp_path, monkeypatch, save_steps, after):
    job = a_job(start, method="task_only", training=TRAINING | {"save_steps": save_steps}, epochs=[1, 3])
    expected = execute(job, tmp_path / "undisturbed")
    left = [after]

    def countdown(action):
        def counted(*args):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return action(*args)

        return counted

    with monkeypatch.context() as patch, pytest.raises(Killed):
        for name in ("append_jsonl", "write_atomic"):
            patch.setattr(record, name, countdown(getattr(record, name)))
        execute(job, tmp_path / "killed", countdown(lambda units: None))

    result = execute(job, tmp_path / "killed")
    assert without_times(result) == without_times(expected)
    dirs = [tmp_path / out / job.run_id for out in ("undisturbed", "killed")]
    assert files_without_times(dirs[0]) == files_without_times(dirs[1])
    for kept in ("adapter", "epochs/1"):
        weights = [load_file(d / kept / "adapter_model.safetensors") for d in dirs]
        assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert not (dirs[1] / CHECKPOINTS).exists()


def test_a_loss_that_is_not_a_number_is_recorded_with_step_and_term(start, tmp_path):
    job = a_job(start, method={"name": "fake_nan", "at_step": 2})
    result = execute(job, tmp_path)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.type, result.error.step, result.error.term) == ("NonFiniteError", 2, "broken")
    assert result.points == [] and record.read(tmp_path / job.run_id) == result
    assert not (tmp_path / job.run_id / "adapter").exists()


def test_any_other_failure_is_recorded_with_its_traceback(start, tmp_path):
    job = a_job(start, training=TRAINING | {"max_length": 2})
    result = execute(job, tmp_path)
    assert result.error is not None and result.error.type == "ValueError"
    assert "Traceback" in (tmp_path / job.run_id / "error.txt").read_text()


def test_a_large_alignment_set_is_flagged(start, tmp_path):
    result = execute(a_job(start, setting={"name": "fake", "num_align": 4}, allow_large_alignment=True), tmp_path)
    assert result.flags == ["large alignment set: 4 rows for 12 task rows"]


def test_data_that_changed_since_the_run_was_planned_are_refused(start, tmp_path):
    job = replace(a_job(start), data="0" * 64)
    result = execute(job, tmp_path)
    assert result.error is not None and "changed since this run was planned. Put the files back" in result.error.message
