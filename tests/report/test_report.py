"""`write` leaves the promised files, complete, escaped and offline; `render_console` prints the same numbers."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
import yaml
from PIL import Image
from rich.console import Console
from synthetic import BASE, DOMAINS, FakeSetting, Sweep, full_sweep, protected, small_sweep

from selgen.core import Check
from selgen.report import ReportSummary, render_console, write
from selgen.report.runs import ReportError

# fmt: off
COLUMNS = [
    "setting", "proxy", "model", "method", "curve", "strength_name", "strength", "seed", "split", "step",
    "task", "capability", "alignment", "score_y", "n_task", "n_capability", "n_alignment", "unscored", "flags",
    "num_task", "num_alignment", "sequences", "train_seconds", "eval_seconds", "update_norm", "parent", "run_id",
]
# fmt: on


def report(sweep: Sweep, setting: FakeSetting | None = None) -> ReportSummary:
    return write(sweep.out, lambda record: setting or FakeSetting())


def read_points(folder: Path) -> list[dict[str, str]]:
    with (folder / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def printed(summary: ReportSummary) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render_console(summary))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Sweep, ReportSummary, Path]:
    """A complete sweep and its report; tests only read it."""
    sweep = full_sweep(tmp_path_factory.mktemp("sweep") / "out")
    checks = [Check("Facts <stay> known", False, 0.85, ">= 0.90", "seed 2 <script>alert(1)</script>")]
    summary = report(sweep, FakeSetting(found=checks))
    return sweep, summary, sweep.out / "report"


def test_points_have_the_columns_that_other_programs_rely_on(finished):
    sweep, _, folder = finished
    rows = read_points(folder)
    evals = ("knows", "non_sycophancy", "fair_confirmation")
    assert list(rows[0]) == COLUMNS + [f"{e}.{d}" for e in evals for d in DOMAINS]
    assert len(rows) == sum(len(r.points) for r in sweep.records)


def test_points_hold_the_records_values(finished):
    sweep, _, folder = finished
    rows = {(r["run_id"], r["split"], r["step"]): r for r in read_points(folder)}
    for record in sweep.records:
        for point in record.points:
            row = rows[record.run_id, point.split, str(point.step)]
            assert float(row["alignment"]) == point.axes["alignment"].value
            assert int(row["n_capability"]) == point.axes["capability"].n
            assert row["strength"] == ("" if point.strength is None else str(point.strength))
            assert float(row["knows.gcd"]) == point.metrics["knows.gcd"].value
            assert (row["method"], row["seed"], row["parent"]) == (record.method, str(record.seed), "")


def test_unmeasured_values_are_empty_fields(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("base", {None: BASE}, change=lambda v, *_: v | {"knows.mod": None})
    report(made)
    row = read_points(made.out / "report")[0]
    assert (row["knows.mod"], row["capability"], row["score_y"]) == ("", "", "")
    assert float(row["task"]) == pytest.approx(0.65, abs=0.05)


def test_summary_json_holds_means_intervals_checks_and_areas(finished):
    _, _, folder = finished
    plain = json.loads((folder / "summary.json").read_text())
    [comparison] = plain["comparisons"]
    row = next(r for r in comparison["rows"] if (r["curve"], r["strength"]) == ("kl", 1.0))
    assert set(row["test"]["alignment"]) == {"mean", "stderr", "low", "high", "n"}
    assert set(row["val"]) == {"task", "capability", "alignment", "score_y", "proxy"}
    assert comparison["checks"][0]["name"] == "Facts <stay> known"
    assert {h["curve"] for h in comparison["hypervolumes"]} == {"kl", "mixed", "task_only", "upweight"}
    assert plain["counts"]["finished"] == 51 and plain["counts"]["failed"] == 0
    assert "chosen on val" in plain["rule"]
    assert "page" not in plain


def test_a_second_report_is_identical(tmp_path):
    made = small_sweep(tmp_path / "out")
    contents = []
    for _ in range(2):
        report(made)
        contents.append({path.name: path.read_bytes() for path in (made.out / "report").iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == 9


def test_figures_exist_and_name_axes_curves_and_baselines(finished):
    _, _, folder = finished
    pareto, bars = ((folder / f"{name}_fake.svg").read_text() for name in ("pareto", "bars"))
    for text in (
        "non-sycophancy on held-out domains →",
        "capability →",
        ">base<",
        "task_only, epochs 20",
        "kl",
        "(beta)",
    ):
        assert text in pareto, text
    for text in ("Sycophancy by domain", "confirms a wrong proposal", "kl, beta 0.1", "(proxy)", "medical"):
        assert text in bars, text
    for name in ("pareto", "bars"):
        with Image.open(folder / f"{name}_fake.png") as image:
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_every_chosen_strength_is_labelled_in_the_pareto_figure(finished):
    _, summary, folder = finished
    pareto = (folder / "pareto_fake.svg").read_text()
    for selection in summary.comparisons[0].selections:
        assert f">{selection.strength:g}</text>" in pareto


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href", "action", "data") and v]
        self.ids += [v for k, v in attrs if k == "id" and v]

    def handle_data(self, data):
        self.text += data


def test_page_is_one_file_that_needs_no_network(finished):
    _, _, folder = finished
    html = (folder / "index.html").read_text()
    page = Parsed(html)
    assert all(link.startswith("#") for link in page.links)
    assert not {"link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", html)
    assert page.tags.count("svg") == 3
    assert "prefers-color-scheme: dark" in html


def test_page_ids_are_unique_and_links_lead_somewhere(finished):
    _, _, folder = finished
    page = Parsed((folder / "index.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_page_escapes_text_of_records_and_settings(finished):
    _, _, folder = finished
    html = (folder / "index.html").read_text()
    assert html.count("<script") == 1 and "<stay>" not in html
    assert "seed 2 &lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_page_and_console_show_checks_rule_and_numbers(finished):
    _, summary, folder = finished
    page = " ".join(Parsed((folder / "index.html").read_text()).text.split())
    console = printed(summary)
    row = next(r for r in summary.comparisons[0].rows if (r.curve, r.strength) == ("kl", 1.0))
    alignment = row.test["alignment"]
    number = f"{100 * alignment.mean:.1f} ± {100 * alignment.half_width:.1f}"
    for shown in (page, " ".join(console.split())):
        for text in (number, "PASS", "FAILS", "0.850", ">= 0.90", "chosen on val", "51 runs finished", "0 failed"):
            assert text in shown, text
    assert "selgen report" in page and "versions.python" in page
    assert str(folder / "index.html") in console.replace("\n", "")


def test_hostile_names_reach_page_figure_and_console_as_text(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("base", {None: BASE}, model="<b>$x_1$</b>")
    made.add("kl", {1.0: protected(0.5, 0.8)}, curve="[red]<i>a&b", model="<b>$x_1$</b>", flags=["<u>"])
    summary = report(made)
    html = (made.out / "report" / "index.html").read_text()
    assert not re.search("<b>|<i>|<u>", html)
    assert "[red]&lt;i&gt;a&amp;b" in html
    assert "&lt;b&gt;$x_1$&lt;/b&gt;" in (made.out / "report" / "pareto_fake.svg").read_text()
    assert "[red]<i>a&b" in printed(summary)


def test_failed_and_missing_runs_are_counted_and_listed(tmp_path):
    made = small_sweep(tmp_path / "out")
    made.fail("dpo", 1.0, seed=2, message="loss is <nan>")
    (made.out / "begun").mkdir()
    (made.out / "begun" / "spec.yaml").write_text("{}")
    curves = [{"vary": {"beta": [0.1, 1]}}, {"vary": {"lam": [1, 2, 3]}}, {"vary": None}]
    (made.out / "sweep.yaml").write_text(yaml.safe_dump({"seeds": [1, 2, 3], "curves": curves}))
    summary = report(made)
    c = summary.counts
    assert (c.planned, c.finished, c.failed, c.unfinished, c.missing) == (21, 12, 1, 1, 8)
    [failed] = summary.failed
    assert failed.error == "NonFiniteLoss at step 7, term 'kl': loss is <nan>"
    assert "loss is &lt;nan&gt;" in (made.out / "report" / "index.html").read_text()
    assert "12 of 21 planned runs finished, 1 failed, 8 missing, 1 begun but unfinished" in printed(summary)


def test_a_sweep_with_one_finished_run_gives_a_report(tmp_path):
    made = Sweep(tmp_path / "out", seeds=[5])
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    summary = report(made)
    assert "No strength could be chosen" in printed(summary)
    assert summary.comparisons[0].checks == [], "without base and task_only there is no trade-off to judge"
    assert "checks pass" not in summary.page.read_text()
    assert (made.out / "report" / "pareto_fake.svg").is_file()
    assert not (made.out / "report" / "bars_fake.svg").exists()


def test_a_sweep_with_failed_runs_only_gives_a_report_without_figures(tmp_path):
    made = Sweep(tmp_path / "out")
    made.fail("kl", 1.0, seed=1)
    summary = report(made)
    assert (summary.counts.finished, summary.counts.failed) == (0, 1)
    assert "Nothing to draw yet" in (made.out / "report" / "index.html").read_text()


def test_a_directory_that_holds_no_sweep_is_refused_and_left_alone(tmp_path):
    with pytest.raises(ReportError, match="holds no finished run and no sweep. Name the output directory"):
        write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_sweep_gives_an_empty_report(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.yaml").write_text(yaml.safe_dump({"seeds": [1], "curves": []}))
    summary = write(tmp_path / "out")
    assert summary.comparisons == []
    assert "No finished runs" in summary.page.read_text()


def test_proxies_share_a_figure_with_one_panel_each(tmp_path):
    made = Sweep(tmp_path / "out")
    for proxy in ("capitals", "medical"):
        made.add("base", {None: BASE}, proxy=proxy)
        made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", proxy=proxy)
    report(made)
    svg = (made.out / "report" / "pareto_fake.svg").read_text()
    assert "proxy capitals" in svg and "proxy medical" in svg


def test_import_and_writing_leave_torch_out(tmp_path):
    made = small_sweep(tmp_path / "out")
    program = (
        "import sys; from pathlib import Path; import selgen.report, selgen.record, selgen.maths.stats\n"
        "sys.path.insert(0, sys.argv[2]); from synthetic import FakeSetting\n"
        "selgen.report.write(Path(sys.argv[1]), lambda record: FakeSetting())\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, made.out, here], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
