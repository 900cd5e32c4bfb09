"""Whole curves: what is read at 90 % of the gain and against what, areas and their test, and the attainment figure."""

from __future__ import annotations

import json
from io import StringIO
from itertools import product

import numpy as np
import pytest
import yaml
from rich.console import Console
from synthetic import BASE, DOMAINS, PROXY, TASK_ONLY, Effect, FakeSetting, Sweep, full_sweep, small_sweep

from selgen import record
from selgen.config import ConfigError
from selgen.maths.pareto import attainment, hypervolume
from selgen.maths.stats import estimate
from selgen.report import attainment as drawing
from selgen.report import render_console, write
from selgen.report.fronts import Against, against, at_gain, attained, sentences, yardsticks
from selgen.report.runs import Group, group_runs
from selgen.report.style import save
from selgen.report.tables import hypervolumes

HELD_OUT = [domain for domain in DOMAINS if domain != PROXY]
AT_90 = 0.65 + 0.9 * 0.2
"""score_y at which quiet sweeps are read: base has .65, task_only .85."""


def group_of(sweep: Sweep) -> Group:
    [group] = group_runs(record.read_all(sweep.out))
    return group


def line(points: list[tuple[float, float]]) -> dict[float | None, Effect]:
    """A curve through points (score_y, alignment)."""
    return {float(i): Effect(y, {"default": x}) for i, (y, x) in enumerate(points, 1)}


def lifted(shifts: dict[int, float]):
    """Moves the alignment of every point of a seed."""

    def change(values, seed, split):
        return {k: v + shifts[seed] if k.split(".")[-1] in HELD_OUT and k[0] == "n" else v for k, v in values.items()}

    return change


def quiet(tmp_path, **fields) -> Sweep:
    made = Sweep(tmp_path / "out", noise=0.0, **fields)
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs")
    return made


def derive(made: Sweep, curve: str, effects, change=lambda values, *_: values, **fields) -> None:
    """Add a curve whose runs change the adapters of task_only's."""
    ends = {run.seed: run.run_id for run in made.records if run.method == "task_only"}
    for seed in made.seeds:
        made.add(curve, effects, name="alpha", seeds=[seed], parent=ends[seed], change=change, **fields)


# alignment at .83 is .4 on the first and .6 on the second
LOW, HIGH = line([(0.81, 0.6), (0.85, 0.2)]), line([(0.80, 0.9), (0.84, 0.5)])


def test_alignment_is_read_at_nine_tenths_of_each_seeds_own_gain(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", LOW, name="beta", change=lifted({1: 0.1, 2: 0.0, 3: -0.1}))
    [entry] = at_gain(group_of(made))
    assert entry.by_seed == pytest.approx({1: 0.5, 2: 0.4, 3: 0.3})
    assert entry.alignment == estimate(list(entry.by_seed.values())) and entry.impossible == 0


def test_seeds_on_which_it_cannot_be_read_are_counted_by_their_reason(tmp_path):
    made = Sweep(tmp_path / "out", seeds=(1, 2, 3, 4, 5, 6), noise=0.0)
    made.add("base", {None: BASE})
    made.add("task_only", {20.0: TASK_ONLY}, name="epochs", seeds=[1, 2, 3, 5, 6])
    made.add("task_only", {20.0: BASE}, name="epochs", seeds=[4])
    made.add("kl", LOW, name="beta", seeds=[1, 4, 6])
    made.add("kl", line([(0.7, 0.9), (AT_90 - 0.01, 0.8)]), name="beta", seeds=[2])
    made.add("kl", line([(AT_90 + 0.01, 0.5), (0.9, 0.4)]), name="beta", seeds=[3])
    [entry] = at_gain(group_of(made))
    assert list(entry.by_seed) == [1, 6] and entry.alignment.n == 2
    assert (entry.below, entry.above, entry.no_gain, entry.missing) == ([2], [3], [4], [5])
    assert entry.impossible == 4


def test_task_only_is_read_only_where_its_checkpoints_make_a_curve(sweep, tmp_path):
    assert [entry.curve for entry in at_gain(group_of(sweep))] == ["task_only", "kl", "mixed", "upweight"]
    assert [entry.curve for entry in at_gain(group_of(small_sweep(tmp_path / "small")))] == ["kl"]
    made = Sweep(tmp_path / "other")
    made.add("kl", LOW, name="beta")
    assert at_gain(group_of(made)) == []


def test_yardsticks_are_curves_that_change_task_onlys_adapter_or_else_its_own_checkpoints(sweep, tmp_path):
    assert yardsticks(group_of(sweep)) == ["task_only"]
    derive(sweep, "shrunk", LOW)
    sweep.add("kl", HIGH, name="beta", curve="continued", parent="another run")
    assert yardsticks(group_of(sweep)) == ["shrunk"]
    assert yardsticks(group_of(small_sweep(tmp_path / "small"))) == []


def test_yardsticks_know_nothing_of_what_should_stay_if_there_are_such_and_are_no_single_points(tmp_path):
    made = quiet(tmp_path)
    derive(made, "projected", LOW)
    derive(made, "at one scale", line([(0.83, 0.4)]), control=True)
    assert yardsticks(group_of(made)) == ["projected"]
    derive(made, "scaled", LOW, control=True)
    assert yardsticks(group_of(made)) == ["scaled"]


def compared(made: Sweep, **fields) -> list[Against]:
    group = group_of(made)
    return against(group, at_gain(group), **fields)


def test_a_method_that_keeps_more_than_a_smaller_update_is_said_to(tmp_path):
    made = quiet(tmp_path)
    derive(made, "shrunk", LOW)
    made.add("kl", HIGH, name="beta", change=lifted({1: 0.01, 2: 0.0, 3: -0.01}))
    [pair] = compared(made)
    assert (pair.curve, pair.yardstick, pair.impossible) == ("kl", "shrunk", 0)
    assert pair.alignment.mean == pytest.approx(0.2)
    assert (pair.alignment.low, pair.alignment.high) == pytest.approx(
        (estimate([0.19, 0.2, 0.21]).low, estimate([0.19, 0.2, 0.21]).high)
    )
    assert sentences([pair], 3) == ["kl: more alignment than shrunk, +20.0 [+17.5, +22.5] points (3 seeds)."]


def test_a_method_that_only_shrinks_the_update_is_not_told_apart_from_that(tmp_path):
    made = quiet(tmp_path)
    derive(made, "shrunk", LOW)
    made.add("kl", LOW, name="beta", change=lifted({1: 0.04, 2: -0.03, 3: -0.01}))
    made.add("worse", line([(0.81, 0.3), (0.85, 0.1)]), name="beta")
    told, worse = sentences(compared(made), 3)
    assert told.startswith("kl: not told apart from shrunk, ") and told.endswith("(3 seeds).")
    assert worse == "worse: less alignment than shrunk, -20.0 [-20.0, -20.0] points (3 seeds)."


def test_seeds_that_only_one_of_both_reaches_are_impossible(tmp_path):
    made = quiet(tmp_path)
    derive(made, "shrunk", LOW)
    made.add("kl", HIGH, name="beta", seeds=[1, 2])
    made.add("kl", line([(0.7, 0.9), (0.8, 0.9)]), name="beta", seeds=[3])
    made.add("never", line([(0.7, 0.9), (0.8, 0.9)]), name="beta")
    made.add("once", HIGH, name="beta", seeds=[2])
    pairs = compared(made)
    assert [pair.impossible for pair in pairs] == [1, 3, 2]
    said = sentences(pairs, 3)
    assert said[0].endswith("+20.0 [+20.0, +20.0] points (2 of 3 seeds).")
    assert said[1] == "never: cannot be compared with shrunk (impossible on all 3 seeds)."
    assert said[2] == "once: no verdict from one seed, against shrunk, +20.0 points (1 of 3 seeds)."


def test_every_trained_curve_meets_every_yardstick_in_one_sentence(tmp_path):
    made = quiet(tmp_path)
    for curve in ("projected", "shrunk"):
        derive(made, curve, LOW)
    for curve in ("dpo", "kl"):
        made.add(curve, HIGH, name="beta")
    pairs = compared(made)
    assert [(p.curve, p.yardstick) for p in pairs] == list(product(("dpo", "kl"), ("projected", "shrunk")))
    assert (
        len(sentences(pairs, 3)) == 2 and "projected" in sentences(pairs, 3)[0] and "shrunk" in sentences(pairs, 3)[0]
    )


def front(made: Sweep, curve: str, seed: int) -> list[tuple[float, float]]:
    runs = [run for run in made.records if (run.curve, run.seed) == (curve, seed)]
    return [(p.axes["alignment"].value, p.score_y) for run in runs for p in run.points if p.split == "test"]


def test_areas_are_measured_from_the_reference_and_tested_by_exchanging_whole_fronts(tmp_path):
    made = full_sweep(tmp_path / "out")
    five = line([(0.81 + i / 100, 0.6 - i / 10) for i in range(5)])
    derive(made, "shrunk", five, lifted({1: 0.3, 2: -0.2, 3: 0.1}))
    reference = (0.2, 0.5)
    [pair] = [p for p in compared(made, reference=reference) if p.curve == "kl"]
    fronts = [(front(made, "kl", seed), front(made, "shrunk", seed)) for seed in made.seeds]
    gaps = [hypervolume(a, reference) - hypervolume(b, reference) for a, b in fronts]
    assert pair.area.mean == pytest.approx(np.mean(gaps)) and pair.area.n == 3
    every = [sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)) for signs in product((1, -1), repeat=3)]
    assert pair.p == pytest.approx(np.mean([abs(total) >= abs(sum(gaps)) - 1e-12 for total in every]))
    assert pair.smallest_p == 0.25
    areas = {h.curve: h.area for h in hypervolumes(group_of(made), reference)}
    assert areas["kl"].mean - areas["shrunk"].mean == pytest.approx(pair.area.mean)
    assert areas["kl"].mean < {h.curve: h.area for h in hypervolumes(group_of(made))}["kl"].mean


def test_areas_of_curves_with_different_numbers_of_strengths_are_not_compared(tmp_path):
    made = quiet(tmp_path)
    derive(made, "shrunk", LOW)
    made.add("kl", line([(0.81, 0.6), (0.83, 0.5), (0.85, 0.2)]), name="beta")
    [pair] = compared(made)
    assert pair.area is None and pair.p is None and pair.smallest_p is None
    assert pair.alignment is not None


def test_a_bootstrap_stands_beside_the_interval_from_twenty_seeds_on(tmp_path):
    made = quiet(tmp_path, seeds=range(1, 21))
    derive(made, "shrunk", LOW)
    made.add("kl", HIGH, name="beta", change=lifted({seed: 0.02 * (seed % 4) for seed in made.seeds}))
    [pair] = compared(made)
    assert pair.resampled == pytest.approx((pair.alignment.low, pair.alignment.high), abs=0.003)
    write(made.out, lambda run: FakeSetting())
    assert "a bootstrap over them can be shown" in (made.out / "report" / "index.html").read_text()


def test_surfaces_are_those_of_the_seeds_that_have_every_strength(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", HIGH, name="beta", change=lifted({1: 0.05, 2: 0.0, 3: -0.05}))
    made.add("dpo", {1.0: Effect(0.8, {"default": 0.5})}, name="beta")
    made.add("mixed", {1.0: Effect(0.8, {"default": 0.5})}, name="rows")
    made.add("mixed", {2.0: Effect(0.7, {"default": 0.6})}, name="rows", seeds=[2])
    kl, mixed = attained(group_of(made))
    assert (kl.curve, kl.seeds, mixed.curve, mixed.seeds) == ("kl", [1, 2, 3], "mixed", [2])
    assert kl.surfaces == attainment([front(made, "kl", seed) for seed in (1, 2, 3)])
    assert np.asarray(kl.surfaces.median) == pytest.approx(np.asarray([(0.5, 0.84), (0.9, 0.8)]))


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are when they are saved."""
    figures = []

    def keep(figure, stem, tips):
        figures.append(figure)
        save(figure, stem, tips)

    monkeypatch.setattr(drawing, "save", keep)
    return figures


def test_each_panel_holds_its_band_its_median_the_common_grey_line_and_both_baselines(tmp_path, drawn):
    made = full_sweep(tmp_path / "out")
    derive(made, "weak", line([(0.8, 0.2), (0.85, 0.1)]))
    derive(made, "shrunk", LOW)
    summary = write(made.out, lambda run: FakeSetting())
    [comparison], [figure] = summary.comparisons, drawn
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["kl", "mixed", "shrunk", "upweight", "weak"]
    assert comparison.strongest_yardstick.curve == "shrunk"
    surfaces = {one.curve: one.surfaces for one in comparison.attained}
    assert len({axes.get_xlim() + axes.get_ylim() for axes in panels.values()}) == 1
    for curve, axes in panels.items():
        grey, median, *marks = [shown for shown in axes.get_lines() if len(shown.get_xdata())]

        def corners(vertices):
            return {tuple(np.round(vertex, 9)) for vertex in vertices}

        for drawn_line, surface in ((grey, surfaces["shrunk"].median), (median, surfaces[curve].median)):
            vertices = corners(np.column_stack([drawn_line.get_xdata(), drawn_line.get_ydata()]).astype(float))
            assert corners(surface) <= vertices
        band = next(patch for patch in axes.patches if len(patch.get_xy()) > 2)
        assert corners(surfaces[curve].best) | corners(surfaces[curve].worst) <= corners(band.get_xy())
        ends = [comparison.rows[0], next(row for row in comparison.rows if row.role == "baseline")]
        places = [(row.test["alignment"].mean, row.test["score_y"].mean) for row in ends]
        assert [(mark.get_xdata()[0], mark.get_ydata()[0]) for mark in marks] == places
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "base" in legend and "task_only, epochs 20" in legend and any("shrunk" in text for text in legend)


def test_the_line_around_a_surface_goes_through_its_inner_corners():
    xs, ys = drawing._stairs([(0.2, 0.9), (0.6, 0.4)], left=0.0, bottom=0.1)
    assert list(zip(xs, ys, strict=True)) == [(0.0, 0.9), (0.2, 0.9), (0.2, 0.4), (0.6, 0.4), (0.6, 0.1)]


def test_no_curve_of_several_strengths_gives_no_figure(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("base", {None: BASE})
    made.add("task_only", {1.0: BASE, 20.0: TASK_ONLY}, name="epochs")
    write(made.out, lambda run: FakeSetting())
    assert not list((made.out / "report").glob("attainment*"))


def test_the_report_prints_reference_areas_and_sentences(tmp_path):
    made = quiet(tmp_path)
    derive(made, "shrunk", LOW)
    made.add("kl", HIGH, name="beta")
    (made.out / "sweep.yaml").write_text(yaml.safe_dump({"seeds": [1], "curves": [], "reference": [-0.25, 0.125]}))
    summary = write(made.out, lambda run: FakeSetting())
    [found] = json.loads((made.out / "report" / "summary.json").read_text())["comparisons"]
    assert found["reference"] == [-0.25, 0.125]
    [kl] = [h["area"]["mean"] for h in found["hypervolumes"] if h["curve"] == "kl"]
    assert kl == pytest.approx(hypervolume(front(made, "kl", 1), (-0.25, 0.125)))
    sentence = "kl: more alignment than shrunk, +20.0 [+20.0, +20.0] points (3 seeds)."
    page = (made.out / "report" / "index.html").read_text()
    console = Console(file=StringIO(), width=200)
    console.print(render_console(summary))
    for text in (page, console.file.getvalue()):
        assert sentence in text and "Is it more than a smaller update?" in text
    assert "(-0.25, 0.125)" in page and "smallest p" in page


@pytest.mark.parametrize("bad", [[1.0, 0.0], [0.5], "low", [None, 0], 3])
def test_a_reference_that_no_area_can_be_measured_from_is_refused(tmp_path, bad):
    made = quiet(tmp_path)
    (made.out / "sweep.yaml").write_text(yaml.safe_dump({"seeds": [1], "curves": [], "reference": bad}))
    with pytest.raises(ConfigError, match="reference should be two numbers"):
        write(made.out, lambda run: FakeSetting())
