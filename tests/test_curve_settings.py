"""Curves whose runs have other values of the setting's options, beside the others."""

from __future__ import annotations

import json

import pytest
import yaml
from typer.testing import CliRunner

import fakes
from selgen import plan, reading, record, sweep
from selgen.cli import app
from selgen.config import ConfigError
from selgen.core import BASE, FIRST
from selgen.report.lookup import count_planned

FEWER = {"num_align": 1}
LESS = "half of the alignment rows"


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path_factory):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path_factory.mktemp("site"))))


def a_sweep(*curves, **changes) -> dict:
    return {
        "setting": "fake",
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 4, "learning_rate": 0.05},
        "lora": {"r": 2, "lora_alpha": 4},
        "evaluation": {"max_new_tokens": 4},
        "seeds": [1],
        "curves": list(curves),
    } | changes


def kl(name: str, **changes) -> dict:
    return {"method": {"name": "kl", "beta": 1}, "name": name, **changes}


def refused(*curves, **changes) -> str:
    with pytest.raises(ConfigError) as raised:
        plan.parse_sweep(a_sweep(*curves, **changes))
    return "\n".join(raised.value.problems)


def test_only_the_curves_own_runs_have_its_options_and_the_base_is_not_repeated():
    spec = plan.parse_sweep(
        a_sweep({"method": "task_only"}, kl("kl"), kl("kl, one row", setting=FEWER, budget=LESS), seeds=[1, 2])
    )
    runs = spec.expand()
    assert [(r.curve, r.setting["num_align"]) for r in runs if r.training.seed == 2] == [
        (BASE, 2),
        ("task_only", 2),
        ("kl", 2),
        ("kl, one row", 1),
    ]
    assert [reading.size(r).num_alignment for r in runs[:4]] == [2, 2, 2, 1]
    assert len({job.run_id for job in plan.jobs(runs, plan.Start("x", "f"))}) == len(runs)


@pytest.mark.parametrize("first", [None, {"setting": {"num_task": 20}}, {"setting": {"num_align": 1}}])
def test_every_planned_run_is_counted_once(tmp_path, first):
    spec = plan.parse_sweep(
        a_sweep(
            {"method": "task_only", "proxies": ["capitals", "gcd"]},
            kl("kl, one row", setting=FEWER, budget=LESS, proxies=["gcd"]),
            kl("kl"),
            first=first,
            seeds=[1, 2],
        )
    )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep.as_data(spec)))
    runs = spec.expand()
    assert count_planned(tmp_path) == len(runs) == len({j.run_id for j in plan.jobs(runs, plan.Start("x", "f"))})
    distinct = {None: 0, "num_task": 2 * 3, "num_align": 2 * 2}[first and next(iter(first["setting"]))]
    assert sum(run.curve == FIRST for run in runs) == distinct


@pytest.mark.slow
def test_such_a_curve_stands_beside_the_others_in_one_comparison(model_dir, tmp_path):
    data = a_sweep(
        {"method": "task_only", "name": "a task_only with more rows", "setting": {"num_task": 16}, "budget": "more"},
        {"method": "task_only"},
        kl("kl"),
        kl("kl, one row", setting=FEWER, budget=LESS),
        model=str(model_dir),
    )
    records = sweep.sweep(plan.parse_sweep(data), tmp_path, num_workers=1)
    assert {r.curve: r.num_alignment for r in records}["kl, one row"] == 1
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    [comparison] = json.loads((tmp_path / "report" / "summary.json").read_text())["comparisons"]
    budgets = {b["curve"]: (b["num_alignment"], b["budget"]) for b in comparison["budgets"]}
    assert budgets["kl"] == ([2], None) and budgets["kl, one row"] == ([1], LESS)
    from selgen.report.runs import group_runs

    [group] = group_runs(record.read_all(tmp_path))
    assert group.task_only is not None and group.task_only.curve == "task_only"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"setting": FEWER}, "Curve 'x': setting should be left out without a budget, found {'num_align': 1}"),
        ({"setting": {"num_algin": 1}, "budget": LESS}, "Curve 'x': Unknown key setting.num_algin. Did you mean"),
        ({"setting": {"num_task": 0}, "budget": LESS}, "Curve 'x': setting.num_task should be >= 1, found 0"),
        ({"setting": {"name": "files"}, "budget": LESS}, "Curve 'x': setting.name should be left out, found 'files'"),
        ({"setting": {"proxy": "gcd"}, "budget": LESS}, "Curve 'x': setting.proxy should be given in proxies"),
        ({"setting": {"num_align": 9}, "budget": LESS}, "The alignment set should have at most 25%"),
    ],
)
def test_wrong_options_of_a_curve_are_refused_with_its_name(changes, said):
    assert said in refused(kl("x", **changes))


def test_a_post_hoc_curve_needs_a_parent_with_the_same_options(tmp_path):
    post_hoc = {"method": {"name": "safe_lora", "k": 1}, "setting": FEWER, "budget": LESS}
    assert "of which there is no curve with proxy capitals and setting {'num_align': 1}" in refused(
        {"method": "task_only"}, post_hoc
    )
    parent = {"method": "task_only", "name": "its parent", "setting": FEWER, "budget": LESS}
    spec = plan.parse_sweep(a_sweep({"method": "task_only"}, parent, post_hoc))
    jobs = {job.spec.curve: job for job in plan.jobs(spec.expand(), plan.Start("x", "f", pretrained="p"))}
    assert jobs["safe_lora"].parent == jobs["its parent"].run_id


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path):
    """Its sweep.yaml lacks the keys that came since."""
    spec = plan.parse_sweep(a_sweep({"method": "task_only"}))
    earlier = sweep.as_data(spec)
    del earlier["first"], earlier["curves"][0]["setting"]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(earlier))
    sweep.refuse_another(spec, tmp_path)
    with pytest.raises(ConfigError, match="holds another sweep"):
        sweep.refuse_another(plan.parse_sweep(a_sweep({"method": "task_only"}, first={})), tmp_path)
