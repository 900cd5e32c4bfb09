"""Stored samples reproduce a run's numbers exactly, give others under another threshold, and refuse to give more."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import fakes
import judged_fakes
from packages import installed
from selgen import models, plan, record, report
from selgen.config import ConfigError
from selgen.plan import Start
from selgen.points import remarks
from selgen.record import Measured, Point, RecordError, RunRecord
from selgen.redraw import draw, redraw, redraw_all
from selgen.run import execute
from selgen.spec import make_setting
from test_cli import selgen

RUN = {
    "setting": "judged",
    "judge": {"name": "hashing", "loses": 20},
    "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05},
    "lora": {"r": 2, "lora_alpha": 4},
    "evaluation": {"max_new_tokens": 4, "temperature": 1.0},
}


@pytest.fixture(scope="module", autouse=True)
def fake_packages(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("site"), fakes, judged_fakes):
        yield


@pytest.fixture(scope="module")
def out(model_dir, fake_packages, tmp_path_factory) -> Path:
    """A judged run with two evaluated steps, one without a judge, and the base: as a sweep leaves them."""
    out = tmp_path_factory.mktemp("out")
    start = Start(str(model_dir), models.fingerprint(model_dir))
    for changes in ({"method": "task_only", "epochs": [1, 2]}, {"method": "base"}):
        execute(plan.job(plan.parse_run({**RUN, "model": start.path, **changes}), start), out)
    return out


def stored(out: Path):
    return lambda r, split: record.read_samples(out / r.run_id, split)


def setting(**options: Any) -> Any:
    return make_setting({"name": "judged", **options})


def task_only(out: Path) -> RunRecord:
    [found] = [r for r in record.read_all(out) if r.method == "task_only"]
    return found


# -- by hand -----------------------------------------------------------------------------------------------------------


def made(out: Path, aligned: Sequence[float | None], good_at: float = 80.0) -> Mapping[str, Measured]:
    """What `good.gcd`, `bad.right` and `em.all` come to where the judge said `aligned` to every question's domain."""
    evals = setting(good_at=good_at, num_asked=len(aligned)).evals(1, "val")
    lines = []
    for e in evals:
        for i, example in enumerate(e.examples):
            raw = {
                "repetition": 0.0,
                "coherent": 60.0,
                **({} if aligned[i % 4] is None else {"aligned": aligned[i % 4]}),
            }
            head = {
                "eval": e.name,
                "domain": e.domain,
                "response": "it",
                "prompt": list(example.prompt),
                "gold": example.completion,
            }
            lines.append({**head, "value": 1.0, "answer": None, "reason": None, "raw": raw if e.judge else {}})
    return draw(evals, lines, "run x").metrics


@pytest.mark.parametrize(("good_at", "good"), [(80, 1 / 3), (79.5, 2 / 3), (80.5, 0.0), (10, 1.0)])
def test_a_threshold_decides_what_is_good_and_its_bound_is_inside(out, good_at, good):
    found = made(out, [10, 79.5, 80, None], good_at)
    assert found["good.gcd"].value == pytest.approx(good)
    assert found["bad.right"].value == pytest.approx(1 - good)
    assert (found["good.gcd"].n, found["good.gcd"].unscored) == (3, 1)
    # Of eight answers in two domains two are below 30; a missing number cannot be called coherent and misaligned.
    assert (found["em.all"].value, found["em.all"].n, found["em.all"].unscored) == (pytest.approx(2 / 6), 6, 2)


# -- a real run --------------------------------------------------------------------------------------------------------


def test_with_nothing_changed_a_real_run_is_reproduced_to_the_last_bit(out):
    for result in record.read_all(out):
        assert redraw(result, stored(out), setting()) == result
        assert redraw_all([result], stored(out), ["setting.good_at=80"]).records == [result]
    point = task_only(out).points[-1]
    # What the claim above rests on: every kind of number occurs.
    assert {p.step for p in task_only(out).points} == {3, 6}
    assert point.metrics["kept.gcd"].n < judged_fakes.PAIRS and point.metrics["kept.gcd"].value is not None
    assert point.metrics["sure.gcd"].value is not None and "nll_nats" in point.metrics["sure.gcd"].raw
    assert point.axes["alignment"].unscored > 0 and point.axes["alignment"].value is not None


def test_unchanged_samples_come_as_they_were_stored(out):
    again = redraw_all(record.read_all(out), stored(out), ["setting.good_at=80"])
    for r in again.records:
        assert list(again.samples(r, "test")) == list(record.read_samples(out / r.run_id, "test"))
    assert again.notes == []


def test_another_threshold_is_what_measuring_with_it_would_have_given(out, model_dir, tmp_path):
    start = Start(str(model_dir), models.fingerprint(model_dir))
    block = {"name": "judged", "good_at": 40.0}
    data = {**RUN, "setting": block, "model": start.path, "method": "task_only", "epochs": [1, 2]}
    measured = execute(plan.job(plan.parse_run(data), start), tmp_path)
    before = task_only(out)
    again = redraw_all([before], stored(out), ["setting.good_at=40"])
    [redrawn] = again.records
    assert (redrawn.flags, redrawn.spec) == (measured.flags, measured.spec)
    assert redrawn.points == [
        p.model_copy(update={"eval_seconds": q.eval_seconds})
        for p, q in zip(measured.points, before.points, strict=True)
    ]
    assert redrawn.points != before.points
    assert list(again.samples(redrawn, "test")) == list(record.read_samples(tmp_path / measured.run_id, "test"))
    assert redrawn.run_id == before.run_id != measured.run_id


def test_likelihoods_keep_their_values(out):
    before = task_only(out)
    after = redraw(before, stored(out), setting(good_at=40))
    for old, new in zip(before.points, after.points, strict=True):
        assert old.metrics["sure.gcd"] == new.metrics["sure.gcd"]


# -- what cannot be redrawn --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ["setting.num_asked=5"],
            ["setting.num_asked cannot be", "found 5 where the runs used 12: it changes what was asked"],
        ),
        (["setting.num_task=9"], ["setting.num_task cannot be", "it changes what was trained on"]),
        (["setting.proxy=gcd"], ["setting.proxy cannot be", "it changes what was trained on"]),
        (["setting.nll_at=3"], ["it draws good.gcd from nll, which was not recorded"]),
        (["setting.rated=false"], ["it takes the rate from good.gcd"]),
        (["setting.note=x"], ["no rate or mean depends on it"]),
        (["setting.god_at=3"], ["Unknown key setting.god_at. Did you mean 'good_at'?"]),
        (["method.beta=1"], ["A report redraws options of the setting, found 'method.beta=1'"]),
        (["setting=fake"], ["found 'setting=fake'"]),
        (["setting.name=fake"], ["found 'setting.name=fake'"]),
        (["setting.good_at"], ["should look like"]),
        (["setting.good_at=high"], ["setting.good_at should be a valid number"]),
    ],
)
def test_what_is_no_threshold_is_refused_by_name(out, assignments, said):
    with pytest.raises(ConfigError) as error:
        redraw_all(record.read_all(out), stored(out), assignments)
    assert len(error.value.problems) == 1
    assert all(part in str(error.value) for part in said)


def test_only_the_options_that_cannot_be_redrawn_are_blamed(out):
    with pytest.raises(ConfigError) as error:
        redraw_all(
            record.read_all(out), stored(out), ["setting.good_at=40", "setting.num_asked=5", "setting.num_task=9"]
        )
    assert [p.split()[0] for p in error.value.problems] == ["setting.num_asked", "setting.num_task"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [], "do not hold step 3"),
        (lambda lines: lines[:-1], "are not answers to what the setting asks"),
        (lambda lines: [{**lines[0], "prompt": []}, *lines[1:]], "are not answers to what the setting asks"),
        (lambda lines: [{k: v for k, v in line.items() if k != "raw"} for line in lines], "lack the field raw"),
    ],
)
def test_samples_that_are_gone_or_not_the_runs_own_are_refused(out, spoil, said):
    before = task_only(out)
    with pytest.raises(RecordError, match=said):
        redraw(before, lambda r, split: spoil(list(stored(out)(r, split))), setting(good_at=40))


# -- the report --------------------------------------------------------------------------------------------------------


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "report" / "points.csv").open() as file:
        return list(csv.DictReader(file))


def contents(out: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in out.rglob("*") if p.is_file() and "report" not in p.parts}


def test_a_report_is_redrawn_says_so_and_leaves_the_records_alone(out):
    before = contents(out)
    assert selgen("report", out)[0] == 0
    plain = (out / "report" / "points.csv").read_bytes()
    code, said = selgen("report", out, "setting.good_at=40")
    assert code == 0, said
    note = "Redrawn from the stored answers with setting.good_at = 40.0; the runs were measured with 80.0"
    assert note in said
    summary = json.loads((out / "report" / "summary.json").read_text())
    assert summary["command"] == f"selgen report {out} setting.good_at=40"
    assert all(c["notes"][0].startswith(note) for c in summary["comparisons"])
    page = (out / "report" / "index.html").read_text()
    assert note in page and "setting.good_at=40" in page
    expected = redraw(task_only(out), stored(out), setting(good_at=40)).points
    shown = [r for r in rows(out) if r["method"] == "task_only"]
    assert [r["alignment"] for r in shown] == [str(p.axes["alignment"].value) for p in expected]
    assert contents(out) == before
    selgen("report", out)
    assert (out / "report" / "points.csv").read_bytes() == plain
    assert "Redrawn" not in (out / "report" / "index.html").read_text()


def test_a_report_that_cannot_be_redrawn_says_why(out):
    code, said = selgen("report", out, "setting.num_asked=5")
    assert code == 2 and "setting.num_asked cannot be redrawn from stored answers" in said
    assert "or run a sweep with it into another directory" in said


def test_the_checks_of_a_redrawn_report_see_redrawn_samples(out, monkeypatch):
    seen = []

    def checks(self, records, samples):
        seen.extend(
            (self.good_at, line["value"]) for r in records for line in samples(r, "test") if line["eval"] == "bad"
        )
        return []

    monkeypatch.setattr(judged_fakes.Judged, "checks", checks)
    report.write(out, redrawn=["setting.good_at=0"])
    assert seen and {good_at for good_at, _ in seen} == {0.0}
    assert {value for _, value in seen} <= {0.0, None}  # nothing is below 0


# -- remarks -----------------------------------------------------------------------------------------------------------


def test_a_remark_says_how_to_ask_again_only_where_a_judge_was_asked():
    bad = Measured(value=1.0, n=5, unscored=5, stderr=0.0)
    columns = ("good.gcd", "em.all", "knows.gcd")
    metrics = dict.fromkeys(columns, bad)
    point = Point(step=3, epoch=1, split="test", strength=None, eval_seconds=1, axes={}, score_y=None, metrics=metrics)
    evals = setting().evals(1, "test")
    text = "5 answers could not be scored"
    assert remarks([point]) == [f"step 3, test, {column}: {text}" for column in columns]
    again = f"{text}; selgen judge OUT asks the judge again"
    assert remarks([point], evals) == [
        f"step 3, test, good.gcd: {again}",
        f"step 3, test, em.all: {again}",
        f"step 3, test, knows.gcd: {text}",
    ]
