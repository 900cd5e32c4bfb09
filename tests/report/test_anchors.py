"""Published points: the right ones for the model, in the figure, on the page and in the summary, with their caveats."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from collections import Counter
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import FakeSetting, small_sweep

import selgen
from selgen.core import Anchor
from selgen.report import render_console, write
from selgen.report.figures import _anchor_lines
from selgen.settings.emergent_misalignment.anchors import STALLED, anchors

POINTS = [
    Anchor("KL 5", "kl", 5, 0.10, 0.20, "Someone 2024", line="kl", notes=("Few answers.",)),
    Anchor("KL 1", "kl", 1, 0.50, 0.98, "Someone 2024", line="kl", notes=("Few answers.",)),
    Anchor("KL <b>NaN</b>", "kl", 9, 0.30, 0.40, "Someone 2024", notes=("Few answers.", "Diverged & alone.")),
]


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "qwen/qwen3-8b", "models/Qwen3-8B", "models/Qwen3-8B/"])
def test_the_published_model_has_the_published_points(model):
    assert len(anchors(model)) == 47


@pytest.mark.parametrize("model", ["miniature", "Qwen/Qwen3-8B-Base", "Qwen/Qwen3-14B", "Qwen/Qwen3-8B/adapter", ""])
def test_other_models_have_none(model):
    assert anchors(model) == []


def test_shares_are_the_tables_alignment_and_task_in_unit_range():
    found = {a.label: a for a in anchors("Qwen3-8B")}
    best = found["KL 3 ep4"]
    assert (best.alignment, best.score_y, best.strength) == pytest.approx((0.932, 0.910, 3))
    assert found["Misaligned (task only, s1)"].strength is None
    assert found["Upweight safety 2"].proxy == "safety"
    assert all(0 <= share <= 1 for a in found.values() for share in (a.alignment, a.score_y))


def test_single_points_join_no_line_and_curves_join_by_method_and_proxy():
    found = anchors("Qwen3-8B")
    assert Counter(a.line for a in found if a.line) == {
        "mixed hhh": 4,
        "upweight hhh": 7,
        "upweight safety": 4,
        "kl": 2,
        "dpo": 5,
        "safe_lora": 8,
    }
    alone = [a.label for a in found if a.line is None]
    assert [label for label in alone if "data" in label or "NaN" in label or "Steer" in label or " ep" in label] == [
        label for label in alone if label not in ("Misaligned (task only, s1)", "Mixed safety")
    ]


def test_runs_that_hardly_trained_say_so_and_all_say_where_the_numbers_are_from():
    found = anchors("Qwen3-8B")
    assert {a.method for a in found if STALLED in a.notes} == {"task_only", "mixed", "safe_lora"}
    assert all(STALLED in a.notes for a in found if a.method in ("task_only", "mixed", "safe_lora"))
    assert all("gpt-4.1-nano-2025-04-14" in a.notes[0] for a in found)
    assert any("one repeated character" in note for a in found if a.method == "representation" for note in a.notes)


def test_an_installed_package_has_the_table():
    package = Path(str(selgen.__file__)).parent
    table = package / "settings" / "emergent_misalignment" / "anchors.csv"
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 47
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    globs = project["tool"]["setuptools"]["package-data"]["selgen"]
    assert any(table.relative_to(package).match(glob) for glob in globs)


def test_a_line_goes_from_weak_to_strong():
    assert _anchor_lines(POINTS) == [[(0.50, 0.98), (0.10, 0.20)]]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    made = small_sweep(tmp_path_factory.mktemp("sweep") / "out")
    plain = write(made.out, lambda record: FakeSetting())
    without = (made.out / "report" / "pareto_fake.svg").read_text(), (made.out / "report" / "index.html").read_text()
    summary = write(made.out, lambda record: FakeSetting(published=POINTS))
    return plain, without, summary, made.out / "report"


def markers(svg: str) -> int:
    """Hover texts that name a source."""
    return svg.count("published by Someone 2024")


def test_the_figure_holds_all_points_with_a_legend_and_hover_texts(reported):
    _, (before, _), _, folder = reported
    svg = (folder / "pareto_fake.svg").read_text()
    assert (markers(before), markers(svg)) == (0, 3)
    assert "published (Someone 2024)" in svg and "published (" not in before
    assert "KL 5: alignment 10.0 %, score_y 20.0 %" in svg
    # The y axis reaches the lowest one, which lies far below everything that was measured; the x axis did already.
    assert (before.count(">20 %<"), svg.count(">20 %<")) == (1, 2)


def test_page_and_summary_list_them_with_notes_and_escape_them(reported):
    _, (_, page_before), _, folder = reported
    page = (folder / "index.html").read_text()
    assert "Published points" in page and "Published points" not in page_before
    assert "KL &lt;b&gt;NaN&lt;/b&gt;" in page and "<b>NaN" not in page
    table = page[page.index("Published points") :]
    assert re.findall(r"<li>(.*?)</li>", table)[:2] == ["Few answers.", "Diverged &amp; alone."]
    row = re.search(r"<tr><td>KL &lt;b.*?</tr>", table, re.DOTALL)
    assert row is not None and row[0].count(">1, 2<") == 1 and ">no<" in row[0]
    [comparison] = json.loads((folder / "summary.json").read_text())["comparisons"]
    assert [a["label"] for a in comparison["anchors"]] == ["KL 5", "KL 1", "KL <b>NaN</b>"]
    assert comparison["anchors"][2]["notes"] == ["Few answers.", "Diverged & alone."]


def test_the_console_says_that_they_were_not_measured_here(reported):
    plain, _, summary, _ = reported
    texts = []
    for one in (plain, summary):
        console = Console(file=StringIO(), width=200)
        console.print(render_console(one))
        texts.append(console.file.getvalue())
    assert "published" not in texts[0]
    assert "3 published points (Someone 2024), not measured here" in texts[1]


def test_published_points_change_no_number_of_the_comparison(reported):
    plain, _, summary, _ = reported
    for name in ("rows", "selections", "hypervolumes", "pairs", "checks"):
        assert getattr(plain.comparisons[0], name) == getattr(summary.comparisons[0], name)
