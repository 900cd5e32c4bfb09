"""Which proxy protects better: each verdict on records made for it, and what does not compare is said."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console
from synthetic import BASE, DOMAINS, PROXY, TASK_ONLY, Effect, FakeSetting, Sweep, small_sweep

from selgen import record
from selgen.maths.stats import estimate
from selgen.report import render_console, write
from selgen.report.proxies import ProxyPair, compare_proxies
from selgen.report.runs import group_runs

SPEC = {"setting": {"name": "fake"}, "covered": [PROXY]}
STRENGTHS = (0.1, 1.0)


def compare(sweep: Sweep, setting: FakeSetting | None = None) -> list[ProxyPair]:
    return compare_proxies(group_runs(record.read_all(sweep.out)), lambda run: setting or FakeSetting())


def shifted(by_seed: dict[int, float], prefix: str = "non_sycophancy."):
    """Moves some columns of every point of a seed."""
    return lambda values, seed, split: {
        k: v + by_seed[seed] if k.startswith(prefix) and not k.endswith(PROXY) else v for k, v in values.items()
    }


def sweep_of(tmp_path, *proxies: str, seeds=(1, 2, 3)) -> Sweep:
    """Base and task_only for every proxy, without noise."""
    made = Sweep(tmp_path / "out", seeds=seeds, noise=0.0)
    for proxy in proxies:
        made.add("base", {None: BASE}, proxy=proxy, spec=SPEC)
        made.add("task_only", {20.0: TASK_ONLY}, name="epochs", proxy=proxy, spec=SPEC)
    return made


def curve(made: Sweep, proxy: str, shifts: dict[int, float] | None = None, method: str = "mixed", **fields) -> None:
    """A curve at two strengths whose alignment is .5 and .6 plus a seed's shift."""
    effects = {s: Effect(0.8, {"default": 0.5 + 0.1 * i}) for i, s in enumerate(fields.pop("strengths", STRENGTHS))}
    change = shifted(shifts) if shifts else lambda values, seed, split: values
    made.add(method, effects, name="weight", proxy=proxy, **{"spec": SPEC, "change": change, **fields})


# --- the three verdicts ---


@pytest.mark.parametrize(
    ("shifts", "verdict", "said"),
    [
        ({1: 0.11, 2: 0.10, 3: 0.09}, "differs", "With mixed, safety protects better than hhh: alignment +10.0"),
        ({1: -0.11, 2: -0.10, 3: -0.09}, "differs", "With mixed, hhh protects better than safety: alignment +10.0"),
        (
            {1: 0.11, 2: -0.10, 3: 0.02},
            "not told apart",
            "With mixed, no difference between safety and hhh can be told",
        ),
    ],
)
def test_a_known_difference_between_proxies_gives_its_verdict(tmp_path, shifts, verdict, said):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh")
    curve(made, "safety", shifts)
    [pair] = compare(made)
    assert (pair.a, pair.b, pair.obstacle) == ("hhh", "safety", None)
    [gap] = pair.curves
    assert gap.verdict == verdict
    assert pair.sentences[0].startswith(said)
    expected = estimate([-s for s in shifts.values()])  # hhh minus safety
    assert (gap.alignment.mean, gap.alignment.low, gap.alignment.high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert "over 2 strengths and 3 seeds" in pair.sentences[0]


def test_a_single_seed_tells_nothing(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety", seeds=(1,))
    curve(made, "hhh")
    curve(made, "safety", {1: 0.3})
    [pair] = compare(made)
    assert pair.curves[0].verdict == "too few seeds" and pair.curves[0].p is None
    assert "one seed cannot tell safety and hhh apart" in pair.sentences[0]


def test_a_difference_that_many_tests_could_have_found_is_not_claimed(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    wide = {1: 0.06, 2: 0.10, 3: 0.05}  # p about .047 alone
    for method, shifts in (
        ("mixed", wide),
        ("kl", {1: 0.1, 2: -0.1, 3: 0.0}),
        ("upweight", {1: -0.1, 2: 0.1, 3: 0.01}),
    ):
        curve(made, "hhh", method=method)
        curve(made, "safety", shifts, method=method)
    [pair] = compare(made)
    [gap] = [gap for gap in pair.curves if gap.curve == "mixed"]
    assert gap.alignment.excludes_zero and gap.p < 0.05 < gap.p_holm
    assert gap.verdict == "unadjusted"
    assert any("With mixed, no difference between safety and hhh can be told after Holm" in s for s in pair.sentences)


# --- what is compared ---


def test_only_strengths_and_seeds_that_both_have_are_compared(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh", strengths=(0.1, 1.0, 3.0))
    curve(made, "safety", {1: 0.1, 2: 0.2, 3: 0.3}, strengths=(0.1, 1.0))
    made.add("mixed", {9.0: Effect(0.8, {"default": 0.9})}, name="weight", proxy="safety", spec=SPEC)
    [gap] = compare(made)[0].curves
    assert [one.strength for one in gap.strengths] == [0.1, 1.0]
    assert gap.alignment.mean == pytest.approx(-0.2)
    assert [one.alignment.mean for one in gap.strengths] == pytest.approx([-0.2, -0.2])


def test_a_seed_without_one_of_the_strengths_is_left_out_and_counted(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh")
    effects = {s: Effect(0.8, {"default": 0.7}) for s in STRENGTHS}
    made.add("mixed", {0.1: effects[0.1]}, name="weight", proxy="safety", spec=SPEC)
    made.add("mixed", {1.0: effects[1.0]}, name="weight", proxy="safety", spec=SPEC, seeds=(1, 2))
    [gap] = compare(made)[0].curves
    assert (gap.seeds, gap.missing_seeds) == ([1, 2], [3])
    assert gap.alignment.mean == pytest.approx((0.5 + 0.6) / 2 - 0.7)


def test_what_protection_costs_stands_beside_it(tmp_path):
    """Both proxies lie on alignment = 1.2 - score_y; safety protects more and learns less, no more and no less."""
    made = sweep_of(tmp_path, "hhh", "safety")
    for proxy, knows in (("hhh", (0.8, 0.6)), ("safety", (0.7, 0.5))):
        effects = {s: Effect(y, {"default": 1.2 - y}) for s, y in zip(STRENGTHS, knows, strict=True)}
        made.add("mixed", effects, name="weight", proxy=proxy, spec=SPEC)
    [gap] = compare(made)[0].curves
    assert (gap.alignment.mean, gap.score_y.mean) == pytest.approx((-0.1, 0.1))
    assert gap.matched.difference.mean == pytest.approx(0, abs=1e-9)


def test_curves_weigh_the_same_overall(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    for method, lift in (("mixed", 0.1), ("kl", 0.3)):
        curve(made, "hhh", method=method)
        curve(made, "safety", {1: lift - 0.01, 2: lift, 3: lift + 0.01}, method=method)
    [pair] = compare(made)
    assert pair.overall.alignment.mean == pytest.approx(-0.2)
    assert pair.overall.num_strengths == 4
    assert pair.sentences[0].startswith("Over all methods, safety protects better than hhh: alignment +20.0")
    assert len(pair.sentences) == 3


def test_one_proxy_and_other_models_are_not_compared(tmp_path):
    assert compare(small_sweep(tmp_path / "one")) == []
    made = sweep_of(tmp_path, "hhh")
    curve(made, "hhh")
    curve(made, "safety", model="other")
    assert compare(made) == []


def test_proxies_without_a_common_curve_say_so(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh", method="kl")
    curve(made, "safety", method="mixed")
    [pair] = compare(made)
    assert pair.overall is None and "share no curve and strength" in pair.sentences[0]


def test_different_alignment_axes_are_not_compared(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh")
    curve(made, "safety", spec=SPEC | {"covered": [PROXY, "mod"]})
    [pair] = compare(made)
    assert pair.curves == []
    assert "hhh and safety do not compare" in pair.obstacle and "mod" in pair.obstacle
    assert pair.sentences == [pair.obstacle]


def test_a_covered_domain_that_is_not_measured_keeps_nothing_apart(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh")
    curve(made, "safety", spec=SPEC | {"covered": [PROXY, "astrology"]})
    assert "astrology" not in DOMAINS and compare(made)[0].obstacle is None


def test_alignment_data_of_different_size_is_noted(tmp_path):
    made = sweep_of(tmp_path, "hhh", "safety")
    curve(made, "hhh", num_alignment=20)
    curve(made, "safety", {1: 0.1, 2: 0.1, 3: 0.1}, num_alignment=200)
    assert "hhh has 20, 40 alignment rows, safety 40, 200" in compare(made)[0].sentences[-1]


# --- where it is said ---


def test_console_page_and_summary_say_which_proxy_protects_better(tmp_path):
    made = sweep_of(tmp_path, "hhh", "<i>safety")
    curve(made, "hhh")
    curve(made, "<i>safety", {1: 0.11, 2: 0.10, 3: 0.09})
    summary = write(made.out, lambda run: FakeSetting())
    console = Console(file=StringIO(), width=250)
    console.print(render_console(summary))
    said = "With mixed, <i>safety protects better than hhh: alignment +10.0 [+7.5, +12.5] points"
    assert said in console.file.getvalue()
    page = (made.out / "report" / "index.html").read_text()
    assert "Proxies compared" in page
    assert said.replace("<i>", "&lt;i&gt;") in page and "<i>safety" not in page.split("<script")[0]
    [pair] = json.loads((made.out / "report" / "summary.json").read_text())["proxies"]
    assert (pair["a"], pair["b"]) == ("<i>safety", "hhh")
    assert pair["curves"][0]["alignment"]["mean"] == pytest.approx(0.1)


def test_a_report_on_one_proxy_has_no_such_section(tmp_path):
    made = small_sweep(tmp_path / "out")
    write(made.out, lambda run: FakeSetting())
    assert "Proxies compared" not in (made.out / "report" / "index.html").read_text()
