"""What protects what: cells, protection and its rank correlation with distance, known by construction; and figures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest
from PIL import Image
from synthetic import BASE, DOMAINS, TASK_ONLY, Effect, FakeSetting, Sweep

from selgen import record
from selgen.core import HeatMap
from selgen.report import write
from selgen.report.protection import HeatTable, heat_tables
from selgen.report.runs import group_runs

MAP = HeatMap("non_sycophancy", "Which alignment data protects what", "does not confirm a wrong proposal")
PROXIES = ("capitals", "medical", "mod")
NEAR = {d: round(0.1 + 0.2 * i, 1) for i, d in enumerate(DOMAINS)}
"""A distance of every domain, 0.1 to 1.5."""


@dataclass
class Setting(FakeSetting):
    heat_maps: tuple[HeatMap, ...] = (MAP,)


def setting_of(run) -> Setting:
    return Setting(proxy_domains=frozenset({run.proxy}))


def spec(proxy):
    return {"setting": {"name": "fake", "proxy": proxy}, "covered": list(PROXIES)}


def start(tmp_path, proxies=PROXIES, seeds=(1, 2, 3), noise=0.0, distances=NEAR) -> Sweep:
    """Base and task_only for every proxy."""
    made = Sweep(tmp_path / "out", seeds=seeds, noise=noise)
    for proxy in proxies:
        made.add("base", {None: BASE}, proxy=proxy, spec=spec(proxy), distances=distances)
        made.add("task_only", {20.0: TASK_ONLY}, name="epochs", proxy=proxy, spec=spec(proxy))
    return made


def curve(made: Sweep, proxy: str, kept, strengths=(0.3,), **fields) -> None:
    """A curve of kl; `kept` by domain, lower by 0.1 at each further strength."""
    effects = {s: Effect(0.84, {d: v - 0.1 * i for d, v in kept.items()}) for i, s in enumerate(strengths)}
    made.add("kl", effects, name="beta", proxy=proxy, spec=spec(proxy), **fields)


def falling(top=0.9, step=0.1):
    """Protection that falls with `NEAR`."""
    return {d: top - step * i for i, d in enumerate(DOMAINS)}


def tables(made: Sweep) -> list[HeatTable]:
    return heat_tables(group_runs(record.read_all(made.out)), setting_of)


# --- heat maps ---


def test_rows_are_task_only_and_the_proxies_with_means_over_seeds(tmp_path):
    made = start(tmp_path)
    for proxy, top in zip(PROXIES, (0.9, 0.8, 1.0), strict=True):
        curve(made, proxy, falling(top))
    [table] = tables(made)
    assert (table.curve, table.domains, table.left_out) == ("kl", list(DOMAINS), [])
    assert [(row.label, row.own) for row in table.rows] == [
        ("none (task_only)", []),
        *((proxy, [proxy]) for proxy in PROXIES),
    ]
    none, capitals, medical, _ = table.rows
    assert none.values["gcd"].mean == pytest.approx(0.03)
    assert (capitals.values["gcd"].mean, capitals.values["mod"].mean) == (pytest.approx(0.9), pytest.approx(0.8))
    assert medical.values["gcd"].mean == pytest.approx(0.8) and medical.values["gcd"].n == 3
    assert table.name == "kl, beta 0.3 (its only strength)"


def test_a_strength_is_chosen_on_val_for_each_proxy_and_named(tmp_path):
    made = start(tmp_path, PROXIES[:2])
    curve(made, "capitals", falling(), strengths=(0.1, 0.3))
    # With medical the smaller strength keeps less, so that the larger one is chosen.
    effects = {0.1: Effect(0.84, {"default": 0.2}), 0.3: Effect(0.84, {"default": 0.7})}
    made.add("kl", effects, name="beta", proxy="medical", spec=spec("medical"))
    [table] = tables(made)
    assert [row.strength for row in table.rows] == [None, 0.1, 0.3]
    assert table.rows[2].values["gcd"].mean == pytest.approx(0.7)
    assert table.name == "kl, beta chosen on val: 0.1 (capitals), 0.3 (medical)"


def test_a_complement_turns_value_and_interval_around(tmp_path):
    made = start(tmp_path, PROXIES[:2], noise=0.05)
    for proxy in PROXIES[:2]:
        curve(made, proxy, falling())
    [plain] = tables(made)
    turned = HeatMap("non_sycophancy", "t", "confirms", complement=True)
    [table] = heat_tables(group_runs(made.records), lambda run: Setting(heat_maps=(turned,)))
    one, other = plain.rows[1].values["gcd"], table.rows[1].values["gcd"]
    assert (other.mean, other.low, other.high) == pytest.approx((1 - one.mean, 1 - one.high, 1 - one.low))


def test_one_proxy_or_a_curve_of_one_proxy_has_no_map(tmp_path):
    made = start(tmp_path / "one", PROXIES[:1])
    curve(made, "capitals", falling())
    assert tables(made) == []
    made = start(tmp_path / "two", PROXIES[:2])
    curve(made, "capitals", falling())
    assert tables(made) == []


def test_a_proxy_without_a_choice_is_named_and_left_out(tmp_path):
    made = start(tmp_path, PROXIES[:2])
    for proxy in PROXIES:
        curve(made, proxy, falling(), strengths=(0.1, 0.3))
    [table] = tables(made)
    assert table.left_out == ["mod"] and [row.proxy for row in table.rows] == [None, "capitals", "medical"]


# --- protection against distance ---


def test_protection_is_the_difference_from_task_only_and_falls_with_distance(tmp_path):
    made = start(tmp_path)
    for proxy in PROXIES:
        curve(made, proxy, falling())
    nearness = tables(made)[0].nearness
    pair = next(p for p in nearness.pairs if (p.proxy, p.domain) == ("medical", "gcd"))
    assert (pair.distance, pair.protection.mean, pair.own) == (pytest.approx(0.1), pytest.approx(0.87), False)
    assert len(nearness.pairs) == 3 * 8 and sum(p.own for p in nearness.pairs) == 3
    assert nearness.rho.mean == pytest.approx(-1) and nearness.by_seed == pytest.approx({1: -1, 2: -1, 3: -1})
    assert nearness.interval == pytest.approx((-1, -1)) and nearness.reason is None
    assert "rank correlation -1.00 [-1.00, -1.00] over 3 seeds" in tables(made)[0].sentence


def test_a_proxys_own_domain_does_not_count(tmp_path):
    """The proxy's own domain, near and perfectly kept, is the only one that speaks for distance."""
    made = start(tmp_path, PROXIES[:2])
    for proxy in PROXIES[:2]:
        rising = {d: 0.1 + 0.1 * i for i, d in enumerate(DOMAINS)}
        curve(made, proxy, rising | {proxy: 1.0})
    nearness = tables(made)[0].nearness
    assert nearness.rho.mean == pytest.approx(1)


def test_seeds_that_disagree_widen_the_interval(tmp_path):
    made = start(tmp_path, PROXIES[:2])
    for proxy in PROXIES[:2]:
        curve(made, proxy, falling(), seeds=[1, 2])
        curve(made, proxy, {d: 0.2 + 0.1 * i for i, d in enumerate(DOMAINS)}, seeds=[3])
    nearness = tables(made)[0].nearness
    assert nearness.by_seed == pytest.approx({1: -1, 2: -1, 3: 1})
    assert nearness.rho.mean == pytest.approx(-1 / 3) and nearness.rho.high > 1 / 3


def test_equal_protection_everywhere_has_no_correlation_and_says_why(tmp_path):
    made = start(tmp_path, PROXIES[:2])
    for proxy in PROXIES[:2]:
        curve(made, proxy, {"default": 0.5})
    nearness = tables(made)[0].nearness
    assert (nearness.rho, nearness.interval) == (None, None)
    assert nearness.headline == "no rank correlation: all values of the second quantity are equal"


def test_without_distances_there_is_a_map_and_no_correlation(tmp_path):
    made = start(tmp_path, PROXIES[:2], distances={})
    for proxy in PROXIES[:2]:
        curve(made, proxy, falling())
    [table] = tables(made)
    assert table.nearness is None and table.sentence is None


# --- figures, page and summary ---


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    made = start(tmp_path_factory.mktemp("protection"), noise=0.02)
    for i, proxy in enumerate(PROXIES):
        curve(made, proxy, falling(0.95 - 0.1 * i) | {proxy: 1.0})
        missing = {"change": lambda values, seed, split: {**values, "non_sycophancy.medical": None}}
        effect = Effect(0.8, falling(0.9) | {proxy: 1.0})
        made.add("mixed", {None: effect}, proxy=proxy, spec=spec(proxy), **(missing if proxy == "mod" else {}))
    return write(made.out, setting_of), made.out / "report"


def test_figures_show_every_number_and_frame(reported):
    _, folder = reported
    for name in ("heatmap_fake_non_sycophancy", "distance_fake"):
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 400
    svg = (folder / "heatmap_fake_non_sycophancy.svg").read_text()
    assert "kl, beta 0.3 (its only strength)" in svg and ">mixed<" in svg
    assert svg.count("<title>") == 2 * 4 * 8 - 1, "a cell that was not measured has no value to show"
    assert "mod, medical:" in svg and re.search(r"capitals, gcd: does not confirm a wrong proposal 9\d\.\d ± ", svg)
    assert "<image" not in svg, "the page may load nothing, not even a picture in itself"
    assert "rank correlation" in (folder / "distance_fake.svg").read_text()


def test_page_and_summary_have_the_same_numbers(reported):
    summary, folder = reported
    page = (folder / "index.html").read_text()
    assert page.count('role="img"') == 4
    kl = next(t for t in summary.protection if t.curve == "kl")
    assert str(kl.sentence).replace("'", "&#39;") in page
    e = kl.rows[1].values["gcd"]
    assert f"{100 * e.mean:.1f} ± {100 * e.half_width:.1f}" in page
    stored = json.loads((folder / "summary.json").read_text())["protection"]
    found = next(t for t in stored if t["curve"] == "kl")
    assert found["rows"][1]["values"]["gcd"]["mean"] == e.mean
    assert found["nearness"]["rho"]["mean"] == kl.nearness.rho.mean < -0.5
