"""Runs with an adapter keep it at every epoch measured, and early_stop and rescale act on what is kept."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

import fakes
from selgen import choose as choosing
from selgen import models, opened, plan, reading, record, starting, sweep, tiny
from selgen.config import ConfigError
from selgen.run import execute, run

TRAINING = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 0.05, "logging_steps": 1}
STEPS_PER_EPOCH = 3
TASK = {"method": "task_only", "epochs": [1, 2, 4]}
FREE = [
    {"method": "early_stop", "vary": {"epoch": [1, 2, 4]}},
    {"method": "rescale", "vary": {"alpha": [0, 0.5, 1]}},
]


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))


def a_config(model_dir, **changes) -> dict:
    return {
        "setting": "fake",
        "model": str(model_dir),
        "training": TRAINING,
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
    } | changes


def a_run(model_dir, **changes):
    return plan.parse_run(a_config(model_dir, **changes))


def swept_with(model_dir, out, curves):
    spec = plan.parse_sweep(a_config(model_dir, seeds=[1, 2], curves=curves))
    found = sweep.sweep(spec, out, num_workers=1)
    assert {r.status for r in found} == {"success"}
    return found


@pytest.fixture(scope="module")
def sweeps(model_dir, tmp_path_factory):
    """Directory and records of the same sweep without and with the two methods that train nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))
        made = {}
        for name, curves in (("without", [TASK]), ("with", [*FREE, TASK])):
            out = tmp_path_factory.mktemp(name)
            made[name] = out, swept_with(model_dir, out, curves)
    return made


def adapter(run_dir, epoch=None):
    return load_file(record.adapter_dir(run_dir, epoch) / "adapter_model.safetensors")


def same_bits(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of(records, method, seed, strength=None):
    [found] = [r for r in records if (r.method, r.seed, r.strength) == (method, seed, strength)]
    return found


def measured(run_record, epoch=None):
    points = [p for p in run_record.points if epoch in (None, p.epoch)]
    return [(p.split, p.step, p.epoch, p.metrics) for p in points]


@pytest.mark.slow
def test_each_epoch_is_the_adapter_that_was_measured_then(sweeps, model_dir):
    out, records = sweeps["without"]
    parent = out / of(records, "task_only", 1).run_id
    assert sorted(p.name for p in (parent / "epochs").iterdir()) == ["1", "2"]
    assert not same_bits(adapter(parent, 1), adapter(parent, 2))
    for epoch in (1, 2):
        directory = record.adapter_dir(parent, epoch)
        card = (directory / "README.md").read_text()
        assert f"- epochs: {epoch} of 4" in card and f"- run: {parent.name}" in card
        PeftModel.from_pretrained(models.load(model_dir)[0], directory)


@pytest.mark.slow
def test_early_stop_is_the_task_only_run_at_that_epoch(sweeps):
    out, records = sweeps["with"]
    for seed in (1, 2):
        parent = of(records, "task_only", seed)
        for epoch in (1, 2, 4):
            child = of(records, "early_stop", seed, epoch)
            assert child.parent == parent.run_id
            kept = adapter(out / parent.run_id, None if epoch == 4 else epoch)
            assert same_bits(adapter(out / child.run_id), kept)
            assert measured(child) == measured(parent, epoch)
            assert child.sequences == 12 * epoch
            assert {(p.step, p.strength) for p in child.points} == {(epoch * STEPS_PER_EPOCH, epoch)}


@pytest.mark.slow
def test_a_kept_epoch_opens_as_any_run(sweeps):
    out, records = sweeps["with"]
    child = of(records, "early_stop", 1, 2)
    one = opened.open_run(out / child.run_id, [])
    assert [one.measure(p.split)[0].metrics for p in child.points] == [p.metrics for p in child.points]


@pytest.mark.slow
def test_a_chosen_epoch_opens_as_it_was_then(sweeps, tmp_path):
    out, records = sweeps["with"]
    parent = of(records, "task_only", 1)
    home = out / parent.run_id
    choice = choosing.choose(out, ["alignment>=0%"])
    choice = replace(choice, run_id=parent.run_id, home=home, adapter=record.adapter_dir(home, 2))
    copied = choosing.copy_adapter(choice, tmp_path / "chosen").copied
    assert copied is not None
    one = opened.open_run(copied, [])
    then = [p for p in parent.points if p.epoch == 2]
    assert [one.measure(p.split)[0].metrics for p in then] == [p.metrics for p in then]
    with pytest.raises(record.RecordError, match="was copied from the run .*, which is gone"):
        shutil.copytree(copied, tmp_path / "deep" / "elsewhere")
        opened.open_run(tmp_path / "deep" / "elsewhere", [])


@pytest.mark.slow
def test_alpha_1_measures_as_the_parent_and_alpha_0_as_the_base(sweeps):
    _, records = sweeps["with"]
    for seed in (1, 2):
        parent, base = of(records, "task_only", seed), of(records, "base", seed)
        assert measured(of(records, "rescale", seed, 1)) == measured(parent, 4)
        still = of(records, "rescale", seed, 0)
        assert [p.metrics for p in still.points] == [p.metrics for p in base.points] and still.update_norm == 0
        half = of(records, "rescale", seed, 0.5)
        assert half.update_norm == pytest.approx(parent.update_norm / 2, rel=1e-5)


@pytest.mark.slow
def test_they_add_no_training_to_a_sweep(sweeps):
    """The same runs take the same optimizer steps on the same rows, under the same ids."""

    def trained(name):
        out, records = sweeps[name]
        logged = {r.run_id: [row["step"] for row in record.read_metrics(out / r.run_id)] for r in records}
        return {run_id: steps for run_id, steps in logged.items() if steps}

    assert trained("with") == trained("without")
    assert list(trained("with").values()) == [list(range(1, 4 * STEPS_PER_EPOCH + 1))] * 2  # task_only, two seeds
    sizes = {}
    for name, curves in (("without", [TASK]), ("with", [*FREE, TASK])):
        runs = plan.parse_sweep(a_config("miniature", seeds=[1, 2], curves=curves)).expand()
        sizes[name] = [reading.size(r) for r in runs]
    assert len(sizes["with"]) == len(sizes["without"]) + 2 * 6
    for count in ("steps", "sequences"):
        assert sum(getattr(s, count) for s in sizes["with"]) == sum(getattr(s, count) for s in sizes["without"])


def test_all_act_on_the_one_run_that_keeps_what_they_need(model_dir):
    """A second curve of task_only that keeps less is not trained for anybody."""
    curves = [{"method": "task_only", "name": "end"}, *FREE, TASK]
    spec = plan.parse_sweep(a_config(model_dir, seeds=[1], curves=curves))
    found = starting.jobs(spec.expand())
    ids = {str(j.spec.curve): j.run_id for j in found}
    parents = {(j.spec.curve, j.spec.strength): j.parent for j in found if j.parent}
    assert {parents["early_stop", epoch] for epoch in (1, 2)} == {ids["task_only"]}
    assert set(parents.values()) <= {ids["task_only"], ids["end"]}


def test_alone_it_trains_a_parent_that_keeps_the_epoch(model_dir, tmp_path):
    found = run(a_run(model_dir, method={"name": "early_stop", "epoch": 3}), tmp_path)
    [parent] = [r for r in record.read_all(tmp_path) if r.method == "task_only"]
    assert parent.spec["epochs"] == [3, 4] and found.parent == parent.run_id
    assert same_bits(adapter(tmp_path / found.run_id), adapter(tmp_path / parent.run_id, 3))
    last = run(a_run(model_dir, method={"name": "early_stop", "epoch": 4}), tmp_path)
    plain = run(a_run(model_dir, method="task_only"), tmp_path)
    assert last.parent == plain.run_id and measured(last) == measured(plain)


def test_a_kept_epoch_that_is_gone_is_named(model_dir, tmp_path):
    spec = a_run(model_dir, method={"name": "early_stop", "epoch": 2})
    parent, child = starting.jobs(spec.lineage())
    execute(parent, tmp_path)
    (tmp_path / parent.run_id / "epochs" / "2").rename(tmp_path / "elsewhere")
    error = execute(child, tmp_path).error
    assert error is not None
    assert error.message.startswith(f"the adapter after epoch 2 of its parent run {parent.run_id} is gone. Copy it")


def test_whole_models_of_every_epoch_are_not_kept(model_dir, tmp_path):
    found = run(a_run(model_dir, method="task_only", epochs=[1, 4], lora=None), tmp_path)
    assert found.status == "success" and not (tmp_path / found.run_id / "epochs").exists()


def test_epochs_of_an_adapter_on_an_adapter_are_kept_as_their_sum(model_dir, tmp_path):
    first = run(a_run(model_dir, method="task_only"), tmp_path / "first")
    start = tmp_path / "first" / first.run_id / "adapter"
    second = run(a_run(start, method="task_only", epochs=[2, 4]), tmp_path / "second")
    kept = record.adapter_dir(tmp_path / "second" / second.run_id, 2)
    model = PeftModel.from_pretrained(tiny.model(), kept)
    assert model.peft_config["default"].r == 4  # both of rank 2


# -- what is refused before anything is trained --


def problems(data: dict, parse=plan.parse_sweep) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(data)
    return "\n".join(raised.value.problems)


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ([FREE[0]], "method early_stop acts on the runs of task_only, of which there is no curve. Add one"),
        (
            [{"method": "early_stop", "vary": {"epoch": [1, 2, 3]}}, TASK],
            "method early_stop acts on task_only after epoch 3, whose adapter is not kept: task_only keeps those after "
            "1, 2, 4. Add 3 to the epochs of the curve of task_only, or choose among them.",
        ),
        (
            [{"method": "early_stop"}, {"method": "task_only"}],
            "after epoch 1, whose adapter is not kept: task_only keeps those after 4. Add 1 to the epochs",
        ),
        (
            [{"method": {"name": "early_stop", "epoch": 5}}, {"method": "task_only"}],
            "method early_stop acts on task_only after epoch 5, but training.num_train_epochs is 4. Choose an earlier",
        ),
        (
            [{"method": {"name": "early_stop", "epoch": 0}}, {"method": "task_only"}],
            "method.epoch should be a whole number >= 1, found 0. Use the method base",
        ),
    ],
)
def test_a_sweep_without_the_epoch_is_refused(curves, said):
    assert said in problems(a_config("miniature", curves=curves))


def test_an_epoch_after_the_end_is_refused():
    config = a_config("miniature", method={"name": "early_stop", "epoch": 9})
    assert "after epoch 9, but training.num_train_epochs is 4" in problems(config, plan.parse_run)
