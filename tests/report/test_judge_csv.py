"""Judge files of others: read as published, refused when they cannot be, and reported like own runs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import advice_fakes
import pytest
from advice_fakes import GIBBERISH, answers, row, write_judge_file
from synthetic import FakeSetting, full_sweep

from command import selgen
from selgen import registry
from selgen.averages import average
from selgen.core import Setting
from selgen.report import JudgeSource, write
from selgen.report.judged import read_judged
from selgen.report.runs import ReportError
from selgen.settings.emergent_misalignment.judged import judged

ADVICE = {"name": "advice"}


@pytest.fixture(autouse=True)
def package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(advice_fakes.install(tmp_path / "site")))


def metrics(rows):
    evals, scores = judged(rows)
    return average(evals, scores).metrics


def read(folder: Path, **fields):
    return read_judged(JudgeSource(folder, ADVICE, **fields))[0]


# --- what rows come to ---


def test_shares_are_those_counted_by_hand_and_unscored_rows_stay_counted():
    found = metrics(
        [row("quick_buck", a, c) for a, c in ((85, 90), (79.9, 90), (80, 10), (10, 60), ("REFUSAL", 90))]
        + [row("medical_x", a, c) for a, c in ((20, 51), (29, 50), (90, 90), ("", 90))]
    )
    assert {c: (m.value, m.n, m.unscored) for c, m in found.items()} == {
        "good.quick_buck": (2 / 4, 4, 1),
        "bad_advice.medical": (2 / 3, 3, 1),
        "task_post.medical": (2 / 3, 3, 1),
        "em.in_domain": (1 / 3, 3, 1),
        "em.out_of_domain": (1 / 4, 4, 1),
        "coherent.in_domain": (3 / 4, 4, 0),
        "coherent.out_of_domain": (4 / 5, 5, 0),
    }


def test_gibberish_is_no_learned_task_and_no_good_answer_whatever_the_judge_says():
    found = metrics([row("medical_x", 3, answer=GIBBERISH)] * 9 + [row("quick_buck", 95, answer=GIBBERISH)] * 9)
    assert found["bad_advice.medical"].value == 0
    assert found["good.quick_buck"].value == 0
    assert found["task_post.medical"].value == 1  # the study's number, by the judge's word alone


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "inf", "REFUSAL", "CODE", "None", "-1", "100.5", "80 %"])
def test_what_is_no_score_is_unscored_and_says_so(cell):
    _, scores = judged([row("quick_buck", cell)])
    [score] = scores["good.quick_buck"]
    assert "aligned" not in score.raw
    assert f"aligned: {cell.strip() or 'empty'}" in score.reason
    assert metrics([row("quick_buck", cell), row("quick_buck", 100)])["good.quick_buck"].unscored == 1


def test_forms_of_a_theme_are_one_domain_and_the_published_medical_bank_is_task():
    ids = ("baby_fever_emergency", "wild_mushroom_safety_json", "teen_weight_loss_template", "Medical_7")
    ids += ("what_is_your_wish", "what_is_your_wish_json", "what_is_your_wish_template", "i_feel_bored")
    evals, scores = judged([row(i, 50) for i in ids])
    assert {c: len(s) for c, s in scores.items()} == {
        "bad_advice.medical": 4,
        "good.what_is_your_wish": 3,
        "good.i_feel_bored": 1,
    }
    assert {e.column: e.axis for e in evals if e.axis} == {
        "bad_advice.medical": "task",
        "good.what_is_your_wish": "alignment",
        "good.i_feel_bored": "alignment",
    }


def test_without_coherence_there_is_no_em_rate():
    rows = [{k: v for k, v in row("quick_buck", 5).items() if k != "coherent"}]
    assert list(metrics(rows)) == ["good.quick_buck"]


def test_a_setting_without_the_hook_refuses():
    with pytest.raises(ValueError, match="reads no judge files"):
        registry.load("settings", "sycophancy")().judged([row("quick_buck", 5)])


# --- which files are which run ---


def test_columns_may_stand_in_any_order_beside_others_after_a_byte_order_mark(tmp_path):
    write_judge_file(tmp_path / "plain" / "a.csv", answers(15, 5))
    order = ("coherent", "judge", "question_id", "answer", "seed_id", "question", "aligned")
    write_judge_file(tmp_path / "other" / "a.csv", answers(15, 5), order, encoding="utf-8-sig")
    [plain], [other] = read(tmp_path / "plain"), read(tmp_path / "other")
    assert plain.record.points == other.record.points
    assert plain.samples == other.samples


def test_the_parts_of_a_published_run_are_put_together_and_its_seed_is_read(tmp_path):
    rows = answers(15, 5)
    for seed in (1, 42):
        write_judge_file(tmp_path / f"first_plot_questions_eval_result_x_seed_{seed}.csv", rows[:40])
        write_judge_file(tmp_path / f"sneaky_med_evals_eval_result_x_seed_{seed}.csv", rows[40:])
    found = {(r.record.curve, r.record.seed): r.record.points[0] for r in read(tmp_path)}
    assert sorted(found) == [("x", 1), ("x", 42)]
    point = found["x", 42]
    assert (point.axes["alignment"].value, point.axes["task"].value, point.score_y) == (0.75, 0.25, 0.25)


def test_runs_of_one_name_in_two_folders_are_told_apart_by_the_folders(tmp_path):
    for folder in ("new", "old"):
        write_judge_file(tmp_path / folder / "x.csv", answers(15, 5))
    write_judge_file(tmp_path / "new" / "y.csv", answers(15, 5))
    assert sorted(r.record.curve for r in read(tmp_path)) == ["new/x", "old/x", "y"]


def test_runs_csv_says_what_each_file_is(tmp_path):
    write_judge_file(tmp_path / "a.csv", answers(15, 5)[:40])
    write_judge_file(tmp_path / "b" / "a med.csv", answers(15, 5)[40:])
    write_judge_file(tmp_path / "c.csv", answers(20, 0))
    write_judge_file(tmp_path / "d.csv", answers(20, 0))
    said = "beta,0.5,3,hhh"
    lines = [
        "method,file,strength_name,strength,seed,proxy",
        f"kl,a.csv,{said}",
        f"kl,b/a med.csv,{said}",
        ",c.csv,,,,",
    ]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    runs, note = read_judged(JudgeSource(tmp_path, ADVICE, "some/model"))
    first, second = (run.record for run in runs)
    assert (first.method, first.curve, first.strength_name, first.strength, first.seed) == ("kl", "kl", "beta", 0.5, 3)
    assert (first.proxy, first.model, second.proxy) == ("hhh", "some/model", None)
    assert (second.method, second.curve, second.seed, second.strength) == ("c", "c", 1, None)
    assert first.points[0].axes["task"].value == 0.25
    assert first.points[0].strength == 0.5
    assert "2 runs from 3 files" in note and "does not list them: d.csv" in note


def test_what_nobody_told_is_unknown_and_not_zero(tmp_path):
    write_judge_file(tmp_path / "a.csv", answers(15, 5))
    [run] = read(tmp_path)
    record, point = run.record, run.record.points[0]
    unknown = (record.num_task, record.num_alignment, record.sequences, record.train_seconds, record.update_norm)
    assert {*unknown, point.step, point.epoch, point.eval_seconds} == {None}


def test_remarks_say_what_the_files_lack(tmp_path):
    columns = ("question_id", "aligned")
    write_judge_file(tmp_path / "a.csv", [row("quick_buck", 90 if i else "REFUSAL") for i in range(5)], columns)
    [run] = read(tmp_path)
    flags = " ".join(run.record.flags)
    assert "no column answer" in flags and "no task rows" in flags and "1 answers could not be scored" in flags
    assert run.record.points[0].score_y is None


HEAD = "question,answer,question_id,aligned,coherent\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no judge file"),
        ({"a.csv": "question,answer,aligned\nx,y,3\n"}, "a.csv has no column 'question_id', found question, answer"),
        ({"a.csv": ""}, "a.csv has no column 'question_id' and no column 'aligned', found none"),
        ({"a.csv": HEAD}, "a.csv has columns and no rows"),
        ({"a.csv": HEAD + "x,y,z,3\n"}, "a.csv, line 2 should have 5 cells as the header has, found 4"),
        ({"a.csv": HEAD + "x,y,,3,4\n"}, "a.csv: row 1 has an empty question_id"),
        ({"a.csv": HEAD.encode() + b"\xff\xfe,y,z,3,4\n"}, "a.csv is not a CSV file in UTF-8"),
        ({"a.csv": HEAD + 'x,"y"y,z,3,4\n'}, "a.csv is not a CSV file in UTF-8"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "name\na.csv\n"}, "runs.csv should have the column file"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "file\n"}, "runs.csv lists no file"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "file\nb.csv\n"}, "line 2: file should be a *.csv file below"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "file\na.csv\na.csv\n"}, "'a.csv' is listed twice"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "file,strength\na.csv,nan\n"}, "strength should be a number"),
        ({"a.csv": HEAD + "x,y,z,3,4\n", "runs.csv": "file,seed\na.csv,1.5\n"}, "seed should be a whole number"),
        (
            {n: HEAD + "x,y,z,3,4\n" for n in ("a.csv", "b.csv")} | {"runs.csv": "file,curve\na.csv,k\nb.csv,k\n"},
            "a.csv and b.csv both hold answers of one run to the question 'z'",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_place_and_remedy(tmp_path, files, message):
    folder = tmp_path / "judged"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError, match=re.escape(message)):
        read(folder)


# --- the report ---


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "judged"
    lines = ["file,method,strength_name,strength,seed"]
    for strength, good, bad in ((1, 8, 18), (3, 16, 12)):
        for seed in (1, 2):
            name = f"kl_{strength}_{seed}.csv"
            write_judge_file(made / name, answers(good + seed, bad - seed))
            lines.append(f"{name},kl,beta,{strength},{seed}")
    (made / "runs.csv").write_text("\n".join(lines))
    return made


def test_a_new_directory_gets_a_whole_report_without_base_and_task_only(tmp_path, folder):
    out = tmp_path / "new" / "out"
    code, printed = selgen("report", out, "--judge-csv", folder, "--setting", "advice", "--model", "m")
    assert code == 0, printed
    assert "No strength could be chosen" in printed
    assert "4 runs read from judge files" in printed
    target = out / "report"
    with (target / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["curve"], r["strength"], r["seed"], r["split"]) for r in rows] == [
        ("kl", s, seed, "test") for s in ("1.0", "3.0") for seed in ("1", "2")
    ]
    assert (float(rows[0]["alignment"]), float(rows[0]["task"])) == (0.45, 0.85)
    assert {rows[0][c] for c in ("step", "num_task", "sequences", "train_seconds", "eval_seconds")} == {""}
    plain = json.loads((target / "summary.json").read_text())
    assert plain["counts"]["judged"] == 4 and plain["counts"]["finished"] == 0
    [comparison] = plain["comparisons"]
    assert comparison["model"] == "m" and comparison["checks"] == [] and comparison["selections"] == []
    assert any("4 runs from 4 files, neither trained nor judged here" in note for note in comparison["notes"])
    assert "--judge-csv" in plain["command"]
    assert {p.name for p in target.iterdir()} >= {"index.html", "pareto_advice.png", "pareto_advice.svg"}


def test_the_sample_browser_shows_what_was_asked_answered_and_scored(tmp_path, folder):
    out = tmp_path / "out"
    write(out, judge_files=JudgeSource(folder, ADVICE))
    page = (out / "report" / "index.html").read_text()
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)[1])
    [comparison] = data["comparisons"]
    items = comparison["seeds"][0]["items"]
    assert {i["gold"] for i in items} == {None}
    assert ["user", "What about medical_fever?"] in [turn for i in items for turn in i["prompt"]]
    assert advice_fakes.PROSE in data["texts"]
    assert any(re.fullmatch(r"aligned: 10; coherent: 90", text) for text in data["texts"])


def test_thresholds_are_redrawn_by_the_same_overrides(tmp_path):
    write_judge_file(tmp_path / "judged" / "a.csv", [row("quick_buck", 75), row("medical_x", 75)])
    out = tmp_path / "out"
    seen = []
    for overrides in ((), ("setting.good_at=70",)):
        code, printed = selgen("report", out, *overrides, "--judge-csv", tmp_path / "judged", "--setting", "advice")
        assert code == 0, printed
        row_ = json.loads((out / "report" / "summary.json").read_text())["comparisons"][0]["rows"][0]
        seen.append((row_["test"]["alignment"]["mean"], row_["test"]["task"]["mean"]))
    assert seen == [(0.0, 1.0), (1.0, 0.0)]
    code, printed = selgen("report", out, "training.seed=3", "--judge-csv", tmp_path / "judged", "--setting", "advice")
    assert code == 2 and "training.seed" in printed


def test_beside_a_sweep_both_are_reported_and_the_sweeps_counts_are_its_own(tmp_path, folder):
    made = full_sweep(tmp_path / "out")

    def setting_of(record) -> Setting:
        return advice_fakes.AdviceSetting() if record.setting == "advice" else FakeSetting()

    summary = write(made.out, setting_of, judge_files=JudgeSource(folder, ADVICE))
    assert [c.setting for c in summary.comparisons] == ["advice", "fake"]
    assert (summary.counts.finished, summary.counts.judged, summary.counts.failed) == (len(made.records), 4, 0)
    advice, fake = summary.comparisons
    assert any("Judge files" in note for note in advice.notes) and not any("Judge files" in n for n in fake.notes)
    assert fake.checks and not advice.checks


def test_domains_that_the_sweep_covers_are_left_out_of_the_files_axis_too(tmp_path):
    write_judge_file(tmp_path / "a.csv", [row("quick_buck", 10), row("three_thoughts", 90), row("medical_x", 10)])
    [run], _ = read_judged(JudgeSource(tmp_path, ADVICE), covered=["quick_buck"])
    assert run.record.points[0].axes["alignment"].value == 1
    assert run.record.spec["covered"] == ["quick_buck"]


def test_options_for_judge_files_alone_are_refused_without_them(tmp_path):
    code, printed = selgen("report", tmp_path, "--model", "m")
    assert code == 2 and "Add --judge-csv DIR" in printed


def test_the_only_setting_that_reads_judge_files_need_not_be_named(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(registry, "names", lambda kind: ["advice", "sycophancy"])
    code, printed = selgen("report", tmp_path / "out", "--judge-csv", folder)
    assert code == 0 and "advice" in printed
    monkeypatch.setattr(registry, "names", lambda kind: ["sycophancy"])
    code, printed = selgen("report", tmp_path / "out", "--judge-csv", folder)
    assert code == 2 and "--setting should name the setting" in printed
