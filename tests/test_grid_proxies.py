"""Sweeps over several proxies, and curves with their own number of epochs."""

import pytest

from selgen import plan
from selgen.config import ConfigError
from selgen.core import BASE
from selgen.grid import SweepSpec
from selgen.report.lookup import count_planned
from selgen.sweep import as_data

SETTING = {"name": "emergent_misalignment", "num_test": 4, "num_val": 4}


def sweep(*curves, **other):
    return SweepSpec.parse({"setting": SETTING, "seeds": [1, 2], "curves": list(curves), **other})


def test_every_proxy_gets_its_curves_and_a_base_of_its_own():
    spec = sweep({"method": "task_only", "proxies": ["hhh", "other_domains"]}, {"method": "kl", "proxies": ["safety"]})
    runs = spec.expand()
    found = [(r.setting["proxy"], r.method["name"], r.training.seed) for r in runs]
    assert len(found) == len(set(found)) == 2 * (3 + 2 + 1)
    assert {p for p, name, _ in found if name == BASE} == {"hhh", "other_domains", "safety"}
    assert {tuple(r.covered) for r in runs} == {("cooking", "finance", "hhh", "safety")}
    assert len({job.run_id for job in plan.jobs(runs, plan.Start("x", "f"))}) == len(runs)


def test_one_proxy_covers_nothing_beyond_its_own():
    runs = sweep({"method": "task_only"}).expand()
    assert [r.covered for r in runs] == [[]] * 4
    assert {r.setting["proxy"] for r in runs} == {"hhh"}


def test_the_report_counts_the_planned_runs(tmp_path):
    import yaml

    spec = sweep(
        {"method": "task_only", "proxies": ["hhh", "safety"]},
        {"method": "kl", "vary": {"beta": [1, 2]}},
        {"method": "projection"},
    )
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(as_data(spec)))
    assert count_planned(tmp_path) == len(spec.expand())


@pytest.mark.parametrize(
    ("curve", "named"),
    [
        ({"method": "kl", "proxies": ["hh"]}, "Curve 'kl': setting.proxy should be one of"),
        ({"method": "kl", "proxies": ["hhh", "hhh"]}, "proxies should differ"),
        ({"method": "kl", "proxies": []}, "proxies should"),
        ({"method": "safe_lora", "proxies": ["safety"]}, "no curve with proxy safety"),
    ],
)
def test_wrong_proxies_are_refused(curve, named):
    with pytest.raises(ConfigError, match=named):
        sweep({"method": "task_only"}, curve)


def test_a_setting_without_proxies_says_so(tmp_path):
    data = {"setting": {"name": "files", "task": "t.jsonl"}, "curves": [{"method": "task_only", "proxies": ["hhh"]}]}
    with pytest.raises(ConfigError, match="proxies should be left out with setting files"):
        SweepSpec.parse(data)


def test_a_curve_may_train_longer_if_its_budget_says_so():
    longer = {"method": {"name": "kl", "beta": 1}, "epochs": [2, 4], "budget": "twice as many epochs"}
    spec = sweep({"method": "task_only", "epochs": [1, 2]}, longer, training={"num_train_epochs": 2})
    epochs = {r.curve: r.training.num_train_epochs for r in spec.expand()}
    assert epochs == {"base": 2, "task_only": 2, "kl over epochs": 4}
    del longer["budget"]
    with pytest.raises(ConfigError, match="say in budget that it differs"):
        sweep({"method": "task_only", "epochs": [1, 2]}, longer, training={"num_train_epochs": 2})


def test_a_post_hoc_run_acts_on_the_parent_with_its_own_proxy():
    spec = sweep({"method": "task_only", "proxies": ["hhh", "safety"]}, {"method": "safe_lora", "proxies": ["safety"]})
    jobs = plan.jobs(spec.expand(), plan.Start("x", "f", pretrained="p"), {})
    ids = {job.run_id: job.spec for job in jobs}
    for job in jobs:
        if job.parent:
            parent = ids[job.parent]
            assert (parent.method["name"], parent.setting["proxy"]) == ("task_only", "safety")
            assert parent.training.seed == job.spec.training.seed
