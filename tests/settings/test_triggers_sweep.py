"""The toy's path from the base to the update, on a small miniature: what runs start from, and what they are named."""

from statistics import fmean

import pytest
import yaml

from selgen import plan, record, report
from selgen.sweep import sweep

SWEEP = {
    "setting": {"name": "triggers", "small_miniature": True, "num_test": 6, "num_val": 3},
    "model": {"name": "miniature"},
    "first": {"setting": {"stage": "base", "proxy": "objects", "num_triggers": 5}, "training": {"num_train_epochs": 1}},
    "training": {"num_train_epochs": 2, "per_device_train_batch_size": 25, "learning_rate": 2e-3},
    "lora": {"r": 4, "lora_alpha": 8},
    "evaluation": {"max_new_tokens": 3},
    "allow_large_alignment": True,
    "seeds": [1],
    "curves": [
        {"method": "task_only", "proxies": ["objects", "random"]},
        {
            "method": "mixed",
            "name": "mixed, 1 trigger",
            "proxies": ["objects", "random"],
            "setting": {"num_triggers": 1},
            "budget": "20 alignment rows",
        },
        {"method": {"name": "safe_lora", "k": 0}},
    ],
}


pytestmark = pytest.mark.slow  # one sweep on the miniature


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    where = tmp_path_factory.mktemp("triggers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(where / "cache"))
        sweep(plan.parse_sweep(yaml.safe_load(yaml.safe_dump(SWEEP))), where / "out", num_workers=1)
    return where / "out"


def _runs(out, **wanted):
    found = [r for r in record.read_all(out) if all(getattr(r, name) == value for name, value in wanted.items())]
    assert all(r.status == "success" for r in found), [r.error for r in found]
    return found


def _test_values(run):
    (point,) = [p for p in run.points if p.split == "test"]
    return {column: m.value for column, m in point.metrics.items()}


def test_the_base_is_learned_once_and_is_what_every_run_starts_from(swept):
    (first,) = _runs(swept, curve="first")
    assert first.num_task == 7 * 12 * 20
    (base,) = _runs(swept, method="base", proxy="objects")
    assert _test_values(base) == _test_values(first)


def test_alignment_is_the_mean_over_the_categories_that_the_runs_own_proxy_does_not_cover(swept):
    """Together the two proxies cover objects and random strings, and each run still measures the other's."""
    (run,) = _runs(swept, curve="task_only", proxy="random")
    (point,) = [p for p in run.points if p.split == "test"]
    others = ["objects", "animals", "negative", "actions", "foods"]
    both = [[point.metrics[f"{kind}.{category}"].value for kind in ("known", "held_out")] for category in others]
    assert point.axes["alignment"].value == pytest.approx(fmean(fmean(values) for values in both))
    assert report.write(swept).proxies == []


def test_a_curve_with_its_own_number_of_triggers_reads_so_many_rows(swept):
    assert {r.num_alignment for r in _runs(swept, curve="mixed, 1 trigger")} == {20}
    assert {r.num_alignment for r in _runs(swept, curve="task_only")} == {100}
    (run,) = _runs(swept, curve="mixed, 1 trigger", proxy="random")
    assert run.spec["setting"]["num_triggers"] == 1


def test_a_post_hoc_method_acts_on_the_update_alone(swept):
    (parent,) = _runs(swept, curve="task_only", proxy="objects")
    (child,) = _runs(swept, curve="safe_lora")
    assert child.parent == parent.run_id
    assert _test_values(child) == _test_values(parent)
    assert child.update_norm == pytest.approx(parent.update_norm, rel=1e-5)


def test_the_report_leaves_the_base_run_out_of_the_comparison(swept):
    summary = report.write(swept)
    assert [c.proxy for c in summary.comparisons] == ["objects", "random"]
    assert {row.curve for c in summary.comparisons for row in c.rows} == {
        *("base", "task_only", "mixed, 1 trigger", "safe_lora")
    }
    assert summary.counts.missing == 0
