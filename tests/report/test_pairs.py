"""Pairs of methods: known differences are found, equal methods are not told apart, and what is missing is said."""

from __future__ import annotations

import json
from dataclasses import astuple
from io import StringIO

import pytest
from rich.console import Console
from synthetic import BASE, DOMAINS, PROXY, TASK_ONLY, Effect, FakeSetting, Sweep, protected

from selgen import record
from selgen.maths.curves import mean_gap
from selgen.maths.stats import detectable_difference, estimate, holm, paired_t_p
from selgen.report import render_console, write
from selgen.report.pairs import Pair, compare_pairs, headline, remainder
from selgen.report.runs import Group, group_runs

HELD_OUT = [domain for domain in DOMAINS if domain != PROXY]


def group_of(sweep: Sweep) -> Group:
    [group] = group_runs(record.read_all(sweep.out))
    return group


def line(lift: float, knows: tuple[float, ...]) -> dict[float | None, Effect]:
    """Points on alignment = 1.2 - score_y + lift: all columns of an axis are equal, so the axes are what is written."""
    return {float(i): Effect(y, {"default": 1.2 - y + lift}) for i, y in enumerate(knows, 1)}


def by_seed(shifts: dict[int, float]):
    """Moves the alignment of every point of a seed, and leaves score_y where it is."""

    def change(values, seed, split):
        columns = {f"non_sycophancy.{d}" for d in HELD_OUT}
        return {k: v + shifts[seed] if k in columns else v for k, v in values.items()}

    return change


def quiet(tmp_path, **fields) -> Sweep:
    made = Sweep(tmp_path / "out", noise=0.0, **fields)
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    return made


def test_a_known_difference_is_found_whatever_strengths_the_points_come_from(tmp_path):
    made = quiet(tmp_path)
    made.add("dpo", line(0.0, (0.5, 0.62, 0.8)), name="beta", change=by_seed({1: 0.01, 2: 0.0, 3: -0.01}))
    made.add("kl", line(0.1, (0.45, 0.55, 0.7, 0.75)), name="beta")
    [pair] = compare_pairs(group_of(made))
    assert (pair.a, pair.b, pair.verdict) == ("dpo", "kl", "differs")
    assert astuple(pair.difference) == pytest.approx(astuple(estimate([-0.09, -0.10, -0.11])))
    assert pair.overlap == pytest.approx(0.25)  # .5 to .75
    assert (pair.p, pair.p_holm) == (paired_t_p(pair.difference), pair.p)
    assert pair.detectable == detectable_difference(pair.difference)
    assert (pair.seeds, pair.apart, pair.missing_seeds) == ([1, 2, 3], [], [])


def test_equal_methods_are_not_told_apart(tmp_path):
    made = quiet(tmp_path)
    for method in ("kl", "mixed"):
        made.add(method, line(0.0, (0.5, 0.8)), name="beta")
    [pair] = compare_pairs(group_of(made))
    assert (pair.difference.mean, pair.p, pair.verdict) == (0.0, 1.0, "not told apart")
    assert pair.detectable == 0.0


def test_a_difference_that_seeds_disagree_on_is_not_told_apart(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", line(0.0, (0.5, 0.8)), name="beta", change=by_seed({1: 0.1, 2: -0.05, 3: 0.02}))
    made.add("mixed", line(0.0, (0.5, 0.8)), name="rows")
    [pair] = compare_pairs(group_of(made))
    assert pair.difference.mean == pytest.approx(0.07 / 3) and pair.p > 0.05
    assert pair.verdict == "not told apart" and pair.detectable > 0.1


def test_base_and_task_only_do_not_compete(sweep):
    names = {name for pair in compare_pairs(group_of(sweep)) for name in (pair.a, pair.b)}
    assert names == {"kl", "mixed", "upweight"}


def test_pairs_use_every_test_point_and_adjust_over_all_pairs(sweep):
    pairs = compare_pairs(group_of(sweep))
    [pair] = [pair for pair in pairs if (pair.a, pair.b) == ("kl", "upweight")]

    def points(curve, seed):
        found = [r.points[-1] for r in sweep.records if (r.curve, r.seed) == (curve, seed)]
        assert len(found) == 5
        return [p.score_y for p in found], [p.axes["alignment"].value for p in found]

    gaps = [mean_gap(*points("kl", seed), *points("upweight", seed)) for seed in (1, 2, 3)]
    assert pair.difference == estimate(gaps)
    assert [p.p_holm for p in pairs] == holm([p.p for p in pairs])
    assert [p.p for p in pairs] == sorted(p.p for p in pairs)


def test_holm_decides_between_differs_and_unadjusted(tmp_path):
    made = quiet(tmp_path)
    # p about .035 alone; with the two pairs that it makes with others it is no longer below .05.
    made.add("a", line(0.1, (0.5, 0.8)), name="beta", change=by_seed({1: 0.03, 2: 0.0, 3: -0.03}))
    made.add("b", line(0.0, (0.5, 0.8)), name="beta")
    made.add("c", line(0.0, (0.5, 0.8)), name="beta", change=by_seed({1: 0.3, 2: -0.1, 3: -0.2}))
    found = {(pair.a, pair.b): pair for pair in compare_pairs(group_of(made))}
    close = found["a", "b"]
    assert close.p < 0.05 and close.difference.excludes_zero and close.p_holm == pytest.approx(3 * close.p)
    assert close.verdict == "unadjusted"
    assert found["a", "c"].verdict == found["b", "c"].verdict == "not told apart"


def test_swapping_a_and_b_negates_and_changes_nothing_else(tmp_path):
    shifts, others = {1: 0.05, 2: 0.02, 3: -0.01}, {1: 0.0, 2: 0.0, 3: 0.0}
    found = []
    for out, (first, second) in {"one": (shifts, others), "two": (others, shifts)}.items():
        made = quiet(tmp_path / out)
        made.add("a", line(0.0, (0.5, 0.7, 0.8)), name="beta", change=by_seed(first))
        made.add("b", line(0.0, (0.5, 0.7, 0.8)), name="beta", change=by_seed(second))
        found += compare_pairs(group_of(made))
    one, two = found
    assert one.difference.mean == pytest.approx(0.02)
    assert (two.difference.mean, two.difference.low) == (-one.difference.mean, -one.difference.high)
    assert (two.p, two.detectable, two.verdict) == (one.p, one.detectable, one.verdict)


def test_curves_that_reach_no_common_score_y_are_not_compared(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", line(0.0, (0.4, 0.5)), name="beta")
    made.add("mixed", line(0.3, (0.7, 0.8)), name="rows")
    [pair] = compare_pairs(group_of(made))
    assert (pair.verdict, pair.difference, pair.p, pair.p_holm, pair.overlap) == ("no overlap", None, None, None, None)
    assert (pair.seeds, pair.apart) == ([], [1, 2, 3])


def test_a_method_without_strengths_is_compared_at_its_point(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", line(0.0, (0.4, 0.8)), name="beta")
    made.add("orthogonal", {None: Effect(0.6, {"default": 0.9})})
    [pair] = compare_pairs(group_of(made))
    assert pair.difference.mean == pytest.approx(0.6 - 0.9) and pair.overlap == 0.0


def test_missing_and_unmeasured_seeds_are_counted(tmp_path):
    made = quiet(tmp_path, seeds=(1, 2, 3, 4))

    def unmeasured(values, seed, split):
        return values | {"non_sycophancy.mod": None} if seed == 2 and split == "test" else values

    made.add("kl", line(0.1, (0.4, 0.8)), name="beta", seeds=[1, 2, 3], change=unmeasured)
    made.add("mixed", line(0.0, (0.4, 0.8)), name="rows")
    [pair] = compare_pairs(group_of(made))
    assert (pair.seeds, pair.missing_seeds, pair.difference.n) == ([1, 3], [2, 4], 2)


def test_one_seed_gives_a_difference_and_no_verdict_on_it(tmp_path):
    made = quiet(tmp_path, seeds=[1])
    for method, lift in {"kl": 0.1, "mixed": 0.0}.items():
        made.add(method, line(lift, (0.4, 0.8)), name="beta")
    [pair] = compare_pairs(group_of(made))
    assert pair.difference.mean == pytest.approx(0.1)
    assert (pair.verdict, pair.p, pair.detectable) == ("too few seeds", None, None)


def test_pairs_that_cannot_be_judged_do_not_weigh_on_the_others(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", line(0.1, (0.5, 0.8)), name="beta", change=by_seed({1: 0.01, 2: 0.0, 3: -0.01}))
    made.add("mixed", line(0.0, (0.5, 0.8)), name="beta")
    made.add("far", line(0.0, (0.1, 0.2)), name="beta")
    pairs = compare_pairs(group_of(made))
    assert [pair.verdict for pair in pairs] == ["differs", "no overlap", "no overlap"]
    assert pairs[0].p_holm == pairs[0].p


def pair(verdict, detectable=None) -> Pair:
    return Pair("a", "b", None, None, [], [], [], None, None, detectable, verdict)


def test_sentences_count_pairs_and_state_what_could_have_been_found():
    pairs = [
        pair("differs", 0.02),
        pair("unadjusted", 0.02),
        *(pair("not told apart", x) for x in (0.05, 0.1, 0.3)),
        pair("no overlap"),
        pair("too few seeds"),
    ]
    assert headline(pairs) == (
        "1 of 7 pairs differs in alignment at matched score_y (Holm); 1 more differs before correction."
    )
    assert remainder(pairs) == (
        "3 cannot be told apart; smallest detectable difference: median 10.0, largest 30.0 points (80 % power, alpha "
        "0.05); 1 reach no common score_y on two seeds; 1 could not be judged on two seeds."
    )
    assert headline([]).startswith("No two methods") and remainder([]) is None


def test_report_states_the_pairs_in_json_console_and_page(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {1.0: protected(0.8, 0.7), 2.0: protected(0.7, 0.8)}, name="beta")
    made.add("mixed", {1.0: protected(0.6, 0.7), 2.0: protected(0.5, 0.8)}, name="rows")
    made.add("upweight", {1.0: protected(0.6, 0.7), 2.0: protected(0.5, 0.8)}, name="weight")
    summary = write(made.out, lambda record: FakeSetting())
    [comparison] = json.loads((made.out / "report" / "summary.json").read_text())["comparisons"]
    assert [p["verdict"] for p in comparison["pairs"]] == ["differs", "differs", "not told apart"]
    assert comparison["pairs"][0]["difference"]["mean"] == pytest.approx(0.2, abs=0.01)
    console = Console(file=StringIO(), width=200)
    console.print(render_console(summary))
    printed, page = console.file.getvalue(), summary.page.read_text()
    for shown in (printed, page):
        assert "2 of 3 pairs differ in alignment at matched score_y (Holm); 0 more differ" in shown
        assert "1 cannot be told apart; smallest detectable difference: median" in shown
    assert "kl - mixed" in printed and "mixed - upweight" not in printed
    assert page.count("not told apart</td>") == 1 and page.count("differs</td>") == 2
