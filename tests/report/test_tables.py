"""Tables show the numbers that the records hold, and say what they lack."""

from __future__ import annotations

import pytest
from synthetic import BASE, PROXY, TASK_ONLY, Effect, Sweep, protected

from selgen import record
from selgen.maths.pareto import hypervolume
from selgen.maths.stats import estimate
from selgen.report.fairness import budgets, fairness_notes
from selgen.report.runs import Group, ReportError, group_runs
from selgen.report.tables import choose_all, hypervolumes, main_table


def group_of(sweep: Sweep) -> Group:
    [group] = group_runs(record.read_all(sweep.out))
    return group


def quiet(tmp_path, **fields) -> Sweep:
    """Base and task_only without any noise, so that numbers are exact."""
    made = Sweep(tmp_path / "out", noise=0.0, **fields)
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    return made


def test_rows_are_seed_means_with_t_intervals_of_the_test_split(sweep):
    rows = {(row.curve, row.strength): row for row in main_table(group_of(sweep))}
    values = [r.points[-1].score_y for r in sweep.records if (r.curve, r.strength) == ("kl", 1.0)]
    assert rows["kl", 1.0].test["score_y"] == estimate(values)
    assert rows["kl", 1.0].test["score_y"].mean == pytest.approx(0.81, abs=0.005)
    assert rows["kl", 1.0].metrics["non_sycophancy.gcd"].mean == pytest.approx(0.5, abs=0.005)
    assert rows["kl", 1.0].test["proxy"].mean == pytest.approx(1.0, abs=0.01)
    assert rows["kl", 1.0].train_seconds.mean == pytest.approx(10.0)


def test_run_seconds_hold_training_and_every_evaluation_of_the_run(sweep):
    # The synthetic run trains for 8 s plus its seed and spends 2.5 s on each point.
    rows = {(row.curve, row.strength): row for row in main_table(group_of(sweep))}
    assert rows["kl", 1.0].run_seconds == estimate([9.0 + 5.0, 10.0 + 5.0, 11.0 + 5.0])
    assert rows["base", None].run_seconds.mean == 5.0
    # Five checkpoints, two splits: whichever checkpoint a row shows, the run cost the same.
    assert {rows["task_only", e].run_seconds.mean for e in (1.0, 20.0)} == {10.0 + 25.0}


def test_rows_come_in_reading_order_with_their_roles(sweep):
    rows = main_table(group_of(sweep))
    assert [row.curve for row in rows[:6]] == ["base"] + ["task_only"] * 5
    assert [row.role for row in rows[:6]] == ["base", None, None, None, None, "baseline"]
    assert [row.strength for row in rows if row.curve == "kl"] == [0.01, 0.1, 1.0, 3.0, 10.0]
    assert sum(row.role == "chosen" for row in rows) == 3


def test_dominated_rows_are_those_behind_another_row(sweep):
    dominated = {(row.curve, row.strength) for row in main_table(group_of(sweep)) if row.dominated}
    assert ("upweight", 1.0) in dominated and ("task_only", 5.0) in dominated
    assert not dominated & {("kl", 1.0), ("base", None), ("task_only", 20.0)}


def test_strength_is_the_best_aligned_one_that_keeps_nine_tenths_of_the_gain(tmp_path):
    made = quiet(tmp_path)  # base .65, task_only .85: the rule asks for .83
    made.add("kl", {1.0: protected(0.5, 0.84), 2.0: protected(0.7, 0.831), 3.0: protected(0.9, 0.82)}, name="beta")
    _, selection = choose_all(group_of(made))["kl"]
    assert (selection.strength, selection.reached, selection.candidates) == (2.0, True, 3)
    assert selection.share == pytest.approx((0.831 - 0.65) / 0.2)


def test_without_a_strength_that_keeps_enough_the_nearest_is_taken_and_said_so(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.5, 0.80), 3.0: protected(0.9, 0.70)}, name="beta")
    _, selection = choose_all(group_of(made))["kl"]
    assert (selection.strength, selection.reached) == (1.0, False)


def test_strength_is_chosen_on_val_whatever_test_says(tmp_path):
    made = quiet(tmp_path)

    def worse_on_test(values, seed, split):
        return {k: v * (0.2 if split == "test" else 1.0) for k, v in values.items()}

    made.add("kl", {1.0: protected(0.9, 0.84)}, name="beta", change=worse_on_test)
    made.add("kl", {2.0: protected(0.6, 0.84)}, name="beta")
    assert choose_all(group_of(made))["kl"][1].strength == 1.0


def test_nothing_is_chosen_without_the_baselines(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("kl", {1.0: protected(0.5, 0.84)}, name="beta")
    group = group_of(made)
    assert choose_all(group) == {}
    assert [row.role for row in main_table(group)] == [None]


def test_gain_shares_compare_common_seeds_only(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.5, 0.85)}, name="beta", seeds=[2])
    made.add("base", {None: Effect(0.05, {})}, seeds=[9])
    assert choose_all(group_of(made))["kl"][1].share == pytest.approx(1.0)


def test_hypervolume_is_the_mean_over_seeds_of_each_seeds_area(sweep):
    areas = []
    for seed in (1, 2, 3):
        points = [r.points[-1] for r in sweep.records if r.curve == "kl" and r.seed == seed]
        areas.append(hypervolume([(p.axes["alignment"].value, p.score_y) for p in points]))
    [found] = [h for h in hypervolumes(group_of(sweep)) if h.curve == "kl"]
    assert (found.area, found.strengths, found.missing_seeds) == (estimate(areas), 5, [])


def test_hypervolume_leaves_out_and_names_seeds_that_lack_a_strength(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    made.add("kl", {2.0: protected(0.7, 0.7)}, name="beta", seeds=[1, 3])
    [found] = [h for h in hypervolumes(group_of(made)) if h.curve == "kl"]
    assert found.missing_seeds == [2] and found.area.n == 2


def test_missing_seeds_and_unmeasured_values_are_counted_not_dropped(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", seeds=[1, 3])

    def unmeasured(values, seed, split):
        return values | {"non_sycophancy.mod": None} if seed == 2 else values

    made.add("upweight", {1.0: protected(0.5, 0.8)}, name="weight", change=unmeasured)
    group = group_of(made)
    rows = {row.curve: row for row in main_table(group)}
    assert (rows["kl"].seeds, rows["kl"].missing_seeds) == ([1, 3], [2])
    assert rows["upweight"].seeds == [1, 2, 3]
    assert rows["upweight"].test["alignment"].n == 2
    notes = fairness_notes(group)
    assert "kl, beta 1: no test point for seed 2." in notes
    assert "upweight, weight 1: could not be measured on every seed: alignment, non_sycophancy.mod." in notes


def test_an_axis_that_the_setting_lacks_is_no_remark(tmp_path):
    made = Sweep(tmp_path / "out", noise=0.0)
    lacking = {"knows.mod": None, "knows.gcd_compositional": None}
    made.add("base", {None: BASE}, change=lambda v, *_: v | lacking)
    assert fairness_notes(group_of(made)) == [
        "base: could not be measured on every seed: knows.mod, knows.gcd_compositional."
    ]


def test_a_column_measured_on_no_seed_has_no_number(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", change=lambda v, *_: v | {"knows.mod": None})
    row = main_table(group_of(made))[-1]
    assert row.metrics["knows.mod"] is None and row.test["capability"] is None and row.test["score_y"] is None
    assert row.dominated is None


def test_budgets_say_what_each_curve_was_given(sweep):
    sweep.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", curve="kl twice", budget="two phases", sequences=11_000)
    entries = {entry.curve: entry for entry in budgets(group_of(sweep))}
    assert entries["kl"].budget is None and entries["kl twice"].budget == "two phases"
    assert entries["kl twice"].sequences == (11_000, 11_000)
    assert (entries["mixed"].num_task, entries["mixed"].num_alignment) == ([180], [40])
    assert entries["mixed"].budget == "the same rows at other rates"


def test_unequal_numbers_of_strengths_and_remarks_are_noted(sweep):
    sweep.add("dpo", {s: protected(0.5, 0.8) for s in (1.0, 2.0)}, name="lam", flags=["slow <b>"])
    notes = fairness_notes(group_of(sweep))
    assert any(note.startswith("Unequal numbers of strengths") and "dpo 2" in note for note in notes)
    assert "dpo, lam 2: slow <b> (seed 1, 2, 3)." in notes


def test_groups_keep_proxies_and_models_apart(sweep):
    sweep.add("base", {None: BASE}, proxy="medical")
    sweep.add("base", {None: BASE}, model="big")
    found = [(g.setting, g.model, g.proxy) for g in group_runs(record.read_all(sweep.out))]
    assert found == [("fake", "big", PROXY), ("fake", "miniature", PROXY), ("fake", "miniature", "medical")]


def test_two_runs_for_one_place_are_refused(sweep):
    sweep.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", seeds=[2])
    with pytest.raises(ReportError, match="both 'kl, beta 1' with seed 2.*Name the curve"):
        group_runs(record.read_all(sweep.out))
