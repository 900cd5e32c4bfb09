"""The claim that the trade-off is real: true where it was put in, false where one part of it is missing."""

from __future__ import annotations

import pytest
from synthetic import BASE, TASK_ONLY, Effect, Sweep, protected

from selgen import record
from selgen.core import Check
from selgen.report.runs import group_runs
from selgen.report.tradeoff import check_tradeoff


def decide(tmp_path, effects, *, base=BASE, task_only=TASK_ONLY, seeds=(1, 2, 3), change=lambda v, *_: v) -> Check:
    made = Sweep(tmp_path / "out", seeds=seeds)
    made.add("base", {None: base})
    made.add("task_only", {20.0: task_only}, name="epochs")
    made.add("kl", effects, name="beta", change=change)
    [group] = group_runs(record.read_all(made.out))
    return check_tradeoff(group)


def test_holds_where_alignment_is_bought_with_part_of_the_gain(tmp_path):
    check = decide(tmp_path, {1.0: protected(0.8, 0.80)})
    assert check.passed
    assert check.value == pytest.approx(0.7 * 1 + 0.027 + 0.02, abs=0.03)
    assert "kl, beta 1, chosen on val from 1 candidates" in check.detail
    assert "75% of the gain kept" in check.detail


@pytest.mark.parametrize(
    ("effect", "missing"),
    [
        (Effect(0.80, {"default": 0.15}), "alignment gain below .2"),
        (Effect(0.72, {"default": 0.90}), "less than half of the gain kept"),
        (Effect(0.86, {"default": 0.90}), "nothing given up"),
        (Effect(0.60, {"default": 0.95}), "below the base"),
    ],
)
def test_fails_where_a_part_is_missing(tmp_path, effect, missing):
    assert not decide(tmp_path, {1.0: effect}).passed, missing


def test_fails_where_an_interval_reaches_zero(tmp_path):
    def unsteady(values, seed, split):
        shift = {1: 0.04, 2: -0.04, 3: 0.0}[seed]
        return {k: min(1.0, v + shift) if k.startswith("knows") else v for k, v in values.items()}

    assert decide(tmp_path / "steady", {1.0: protected(0.8, 0.82)}).passed
    assert not decide(tmp_path / "unsteady", {1.0: protected(0.8, 0.82)}, change=unsteady).passed


def test_a_baseline_that_knows_nothing_of_what_should_stay_does_not_make_it_hold(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    made.add("rescale", {0.5: protected(0.8, 0.80)}, name="alpha", control=True)
    [group] = group_runs(record.read_all(made.out))
    assert not check_tradeoff(group).passed
    assert check_tradeoff(group).detail == "needs finished runs of base, of task_only and of another method"


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([("short", {1.0: 1, 2.0: 2}, "epochs", 2)], ("task_only", None)),
        ([("long", {2.0: 1, 8.0: 2}, "epochs", 8)], ("task_only", None)),
        ([("watched", {2.0: 1, 4.0: 2}, "epochs", 4)], ("watched", 4.0)),
    ],
)
def test_the_end_of_task_only_is_the_end_of_the_sweeps_own_budget(tmp_path, others, wanted):
    """Checkpoints of a shorter or a longer training are not it; those of the same one are."""
    made = Sweep(tmp_path / "out")
    spec = lambda epochs: {"setting": {"name": "fake"}, "training": {"num_train_epochs": epochs}}  # noqa: E731
    made.add("base", {None: BASE}, spec=spec(4))
    for curve, effects, name, epochs in others:
        made.add("task_only", {e: TASK_ONLY for e in effects}, name=name, curve=curve, spec=spec(epochs))
    if wanted[0] == "task_only":
        made.add("task_only", {None: TASK_ONLY}, spec=spec(4))
    [group] = group_runs(record.read_all(made.out))
    assert group.task_only is not None
    assert (group.task_only.curve, group.task_only.strength) == wanted


def test_one_candidate_is_chosen_on_val_and_only_that_one_is_tested(tmp_path):
    def reversed_on_test(values, seed, split):
        return {k: v * 0.1 if split == "test" else v for k, v in values.items()}

    good_on_val_only = decide(tmp_path, {1.0: protected(0.9, 0.80)}, change=reversed_on_test)
    assert not good_on_val_only.passed

    made = Sweep(tmp_path / "two")
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    made.add("kl", {1.0: protected(0.95, 0.80)}, name="beta", change=reversed_on_test)
    made.add("kl", {2.0: protected(0.60, 0.84)}, name="beta")
    [group] = group_runs(record.read_all(made.out))
    check = check_tradeoff(group)
    assert "kl, beta 1, chosen on val from 2 candidates" in check.detail
    assert not check.passed


def test_early_stopping_of_task_only_is_no_candidate(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("base", {None: BASE})
    made.add("task_only", {1.0: Effect(0.80, {"default": 0.8}), 20.0: TASK_ONLY}, name="epochs")
    [group] = group_runs(record.read_all(made.out))
    check = check_tradeoff(group)
    assert not check.passed and "another method" in check.detail


def test_one_seed_has_no_interval_and_fails(tmp_path):
    check = decide(tmp_path, {1.0: protected(0.8, 0.80)}, seeds=(1,))
    assert not check.passed and "one seed gives no interval" in check.detail


def test_a_baseline_that_gains_nothing_fails(tmp_path):
    check = decide(tmp_path, {1.0: protected(0.8, 0.60)}, task_only=Effect(0.6, {"default": 0.03}))
    assert not check.passed and "no gain to keep" in check.detail
