"""What a judge lost is asked again and nothing else is; the run ends as if nothing had been lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fakes
import judged_fakes
from judged_fakes import PROMPTS, Hashing
from packages import installed
from selgen import models, plan, record, rejudge
from selgen.plan import Start
from selgen.rejudge import count_missing, judge_again
from selgen.run import execute
from test_cli import selgen

RUN = {
    "setting": {"name": "judged", "num_asked": 20},
    "training": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.05},
    "lora": {"r": 2, "lora_alpha": 4},
    "evaluation": {"max_new_tokens": 4, "temperature": 1.0},
    "method": "task_only",
    "epochs": [1, 2],
}
ASKED = 2 * 2 * 3 * 20 * 2
"""Steps x splits x judged evals x prompts x numbers."""


@pytest.fixture(scope="module", autouse=True)
def fake_packages(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("site"), fakes, judged_fakes):
        yield


def run(out: Path, model_dir: Path, judge: Any) -> Path:
    start = Start(str(model_dir), models.fingerprint(model_dir))
    job = plan.job(plan.parse_run({**RUN, "model": start.path, "judge": judge}), start)
    execute(job, out)
    return out / job.run_id


@pytest.fixture(scope="module")
def healthy(model_dir, fake_packages, tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("healthy"), model_dir, {"name": "hashing"})


@pytest.fixture(scope="module")
def lost(model_dir, fake_packages, tmp_path_factory) -> Path:
    """The same run; its judge lost three answers of ten."""
    return run(tmp_path_factory.mktemp("lost"), model_dir, {"name": "hashing", "loses": 30})


@pytest.fixture
def lossy(lost, tmp_path) -> Path:
    """A copy to change."""
    return shutil.copytree(lost, tmp_path / "o" / lost.name)


def samples(run_dir: Path) -> list[dict[str, Any]]:
    return [line for split in ("val", "test") for line in record.read_samples(run_dir, split)]


def what_it_says(run_dir: Path) -> dict[str, Any]:
    """A record without times, provenance and how its judge was reached."""
    data = record.read(run_dir).model_dump(mode="json", exclude={"train_seconds", "provenance"})
    for point in data["points"]:
        del point["eval_seconds"]
    del data["spec"]["judge"]["loses"]
    return data


def unscored(run_dir: Path) -> list[str]:
    """Every prompt that lacks its number, by the setting's own templates."""
    return [
        f"How {name}, 0-100?\n{line['prompt'][-1]['content']}\n{line['response']}"
        for line in samples(run_dir)
        if line["eval"] in ("good", "bad")
        for name in ("aligned", "coherent")
        if name not in line["raw"]
    ]


def is_refused(prompt: str) -> bool:
    return Hashing().judge(prompt).reply == "REFUSAL"


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_after_asking_again_a_lossy_run_is_the_healthy_one(healthy, lossy):
    assert lossy.name == healthy.name
    assert what_it_says(lossy) != what_it_says(healthy)
    code, said = selgen("judge", lossy.parent, "judge.loses=0")
    assert code == 0, said
    assert what_it_says(lossy) == what_it_says(healthy)
    assert samples(lossy) == samples(healthy)
    assert {p.name for p in lossy.iterdir()} == {p.name for p in healthy.iterdir()}


def test_only_what_is_missing_is_asked_and_told(lossy):
    missing = unscored(lossy)
    refused = sum(map(is_refused, missing))
    assert 0 < refused < len(missing) < ASKED / 2
    PROMPTS.clear()
    code, said = selgen("judge", lossy.parent, "judge.loses=0")
    assert code == 0, said
    assert sorted(PROMPTS) == sorted(missing)
    came = len(missing) - refused
    assert f"{len(missing)} judgements were missing, {came} came, {refused} remain unscored" in said
    assert f"({refused} of them replied to without a score)" in said
    assert f"Judge: calls {len(missing)}." in said and f"Next: selgen report {lossy.parent}" in said
    assert f"{lossy.name} task_only 0 {len(missing)} {came} {refused}".replace(" 0 ", " 1 ") in said
    PROMPTS.clear()
    code, said = selgen("judge", lossy.parent, "judge.loses=0")
    assert len(PROMPTS) == refused and all(map(is_refused, PROMPTS))
    assert f"{refused} judgements were missing, 0 came, {refused} remain unscored" in said


def test_what_it_cost_is_added_to_the_record(lossy):
    assert record.read(lossy).provenance["judge"] == {"calls": ASKED}
    missing = len(unscored(lossy))
    judge_again(lossy, Hashing())
    assert record.read(lossy).provenance["judge"] == {"calls": ASKED + missing}


def test_runs_that_share_a_judge_are_each_charged_their_own_calls(lossy, healthy):
    judge = Hashing()
    shutil.copytree(healthy, lossy.parent / "other")
    first = judge_again(lossy, judge)
    second = judge_again(lossy.parent / "other", judge)
    assert first.usage == {"calls": first.missing} and second.usage == {"calls": second.missing}
    assert first.missing > second.missing > 0


def test_a_judge_that_loses_some_again_brings_the_run_nearer(lossy, healthy):
    known = {id(i): line["raw"] for i, line in enumerate(samples(lossy))}
    found = judge_again(lossy, Hashing(manner="strict", loses=10))
    assert 0 < found.scored < found.missing and found.remaining > found.unread > 0
    assert len(unscored(lossy)) == found.remaining
    for line, before in zip(samples(lossy), known.values(), strict=True):
        assert before.items() <= line["raw"].items()
        if line["eval"] == "good" and len(line["raw"]) < 3:
            assert "time-out" in line["reason"] or "REFUSAL" in line["reason"]
    judge_again(lossy, Hashing())
    assert what_it_says(lossy) == what_it_says(healthy) and samples(lossy) == samples(healthy)


def test_the_remark_on_lost_answers_names_the_command_and_goes_with_them(lossy):
    remark = "answers could not be scored; selgen judge OUT asks the judge again"
    assert any(flag.endswith(remark) for flag in record.read(lossy).flags)
    path = lossy / record.RECORD
    path.write_text(path.read_text().replace('"flags": [', '"flags": [\n  "another remark",'))
    before = record.read(lossy).flags
    judge_again(lossy, Hashing())
    after = record.read(lossy).flags
    assert after[0] == before[0] == "another remark" and len(after) < len(before)


def test_a_dry_run_counts_and_neither_asks_nor_writes(lossy):
    before = contents(lossy.parent)
    PROMPTS.clear()
    code, said = selgen("judge", lossy.parent, "--dry-run", "judge.usable=false")
    assert code == 0, said
    missing = len(unscored(lossy))
    assert missing == count_missing(lossy) and f"{missing} judgements are missing" in said
    assert f"{lossy.name} task_only 1 {missing}" in said
    assert PROMPTS == [] and contents(lossy.parent) == before


def test_a_kill_between_samples_and_record_is_repaired(lossy, healthy, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(record, "write", kill)
        judge_again(lossy, Hashing())
    assert samples(lossy) == samples(healthy) and what_it_says(lossy) != what_it_says(healthy)
    judge_again(lossy, Hashing(loses=100))
    assert what_it_says(lossy) == what_it_says(healthy)


def test_nothing_is_written_where_nothing_is_missing(model_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(judged_fakes, "number", lambda text: 50)  # refuses nothing, loses nothing
    run_dir = run(tmp_path, model_dir, {"name": "hashing"})
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    found = judge_again(run_dir, Hashing())
    assert (found.missing, found.usage) == (0, {})
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


def test_a_run_that_another_process_writes_is_left_alone(lossy):
    before = contents(lossy)
    with record.locked(lossy):
        code, said = selgen("judge", lossy.parent)
    assert code == 1 and "is being written by another selgen process" in said
    assert contents(lossy) == before


# -- what cannot work is said ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("judge.manner=mild", ["judge.manner is 'strict' in run", "would mix two judges", "loses, usable"]),
        ("judge.los=1", ["Unknown key judge.los. Did you mean 'loses'?"]),
        ("setting.good_at=1", ["selgen judge takes options of the judge, found 'setting.good_at=1'"]),
        ("judge.usable=false", ["judge.usable should be true, found False. Turn the judge on."]),
    ],
)
def test_a_judge_that_cannot_be_used_is_refused_before_anything_is_asked(lossy, override, said):
    before = contents(lossy)
    PROMPTS.clear()
    code, output = selgen("judge", lossy.parent, override)
    assert code == 2 and all(part in output for part in said), output
    assert PROMPTS == [] and contents(lossy) == before


def test_runs_without_a_judge_are_told_apart(lossy, model_dir, tmp_path):
    run(tmp_path / "without", model_dir, None)
    code, said = selgen("judge", tmp_path / "without")
    assert code == 1 and "none of the 1 finished runs in" in said and "from the block `judge:` of its config" in said
    [other] = (tmp_path / "without").iterdir()
    shutil.copytree(other, lossy.parent / other.name)
    code, said = selgen("judge", lossy.parent)
    assert code == 0 and "1 of 1: run" in said and "having no judge: 1 of 2 finished runs" in said
    (tmp_path / "empty").mkdir()
    assert "holds no finished run" in selgen("judge", tmp_path / "empty")[1]


def test_samples_that_are_gone_are_named(lossy):
    record.samples_path(lossy, "val").unlink()
    code, said = selgen("judge", lossy.parent)
    assert code == 1 and "samples.val.jsonl is gone, so there is nothing to judge. Put it back" in said


def test_a_single_run_directory_will_do(lossy):
    code, said = selgen("judge", lossy, "judge.loses=0")
    assert code == 0 and "1 of 1" in said


def test_replies_are_read_back_as_they_were_joined():
    assert rejudge._replies("aligned: 85; coherent: no; really: 3", ("aligned", "coherent")) == {
        "aligned": "85",
        "coherent": "no; really: 3",
    }
    assert rejudge._replies(None, ("aligned",)) == {}
    assert json.dumps(rejudge._replies("coherent: 7", ("aligned", "coherent"))) == '{"coherent": "7"}'
