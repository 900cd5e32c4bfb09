"""A record is there as a whole or not at all, reads back as written, and nothing else passes for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from selgen import record
from selgen.record import Failure, Measured, Point, RunRecord

METRIC = Measured(value=0.5, n=10, unscored=1, stderr=0.1)


def a_record(run_id="a", **changes) -> RunRecord:
    point = Point(
        step=4,
        epoch=2.0,
        split="val",
        strength=1.0,
        eval_seconds=0.1,
        axes={"task": METRIC},
        score_y=0.5,
        metrics={"knows.gcd": METRIC},
    )
    fields = {
        "run_id": run_id,
        "status": "success",
        "setting": "s",
        "proxy": None,
        "model": "m",
        "method": "kl",
        "curve": "kl",
        "strength_name": "beta",
        "strength": 1.0,
        "seed": 1,
        "num_task": 12,
        "num_alignment": 2,
        "sequences": 40,
        "train_seconds": 1.0,
        "update_norm": 0.5,
        "budget": None,
        "spec": {"method": {"name": "kl"}},
        "provenance": {},
        "points": [point],
    }
    return RunRecord(**fields | changes)


def test_a_record_reads_back_as_written(tmp_path):
    record.write(tmp_path / "a", a_record())
    assert record.read(tmp_path / "a") == a_record()


def test_an_unfinished_run_has_no_record(tmp_path):
    assert not record.is_finished(tmp_path)
    with pytest.raises(record.RecordError, match="the run is unfinished"):
        record.read(tmp_path)


def test_unknown_fields_are_refused(tmp_path):
    data = json.loads(a_record().model_dump_json()) | {"score": 1}
    (tmp_path / record.RECORD).write_text(json.dumps(data))
    with pytest.raises(record.RecordError, match="score: Extra inputs"):
        record.read(tmp_path)


def test_a_sweep_lists_finished_runs_only_in_a_stable_order(tmp_path):
    record.write(tmp_path / "b", a_record("b", strength=2.0))
    record.write(tmp_path / "a", a_record("a", strength=10.0))
    record.write(tmp_path / "c", a_record("c", method="base", curve="base", strength=None))
    record.write(tmp_path / "d", a_record("d", status="failed", error=Failure(type="E", message="m"), seed=0))
    (tmp_path / "unfinished").mkdir()
    assert [r.run_id for r in record.read_all(tmp_path)] == ["c", "d", "b", "a"]


def test_one_run_is_listed_by_itself(tmp_path):
    record.write(tmp_path, a_record())
    assert record.read_all(tmp_path) == [a_record()]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(record.RecordError, match="is not a directory"):
        record.read_all(tmp_path / "nothing")


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    record.write_atomic(path, "old")

    def crash(handle):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk full"):
        record.write_atomic(path, "new")
    assert path.read_text() == "old"


def test_lines_read_back_as_appended(tmp_path):
    path = record.samples_path(tmp_path, "test")
    record.append_jsonl(path, [{"step": 1, "response": "é\n"}])
    record.append_jsonl(path, [{"step": 2, "response": ""}])
    assert list(record.read_samples(tmp_path, "test")) == [{"step": 1, "response": "é\n"}, {"step": 2, "response": ""}]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / record.METRICS).write_text('{"step": 1}\n{"st')
    with pytest.raises(record.RecordError, match=r"metrics.jsonl, line 2 is not JSON"):
        record.read_metrics(tmp_path)


def test_truncation_drops_later_steps_and_a_line_cut_short(tmp_path):
    path = tmp_path / record.METRICS
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"step": 2, "lo')
    record.truncate_jsonl(path, 2)
    assert record.read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_directory_has_one_writer_and_a_killed_one_lets_go(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from selgen import record\n"
        "with record.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(record.Busy, match="is being written by another selgen process"), record.locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with record.locked(tmp_path), pytest.raises(record.Busy), record.locked(tmp_path):
        pass
    with record.locked(tmp_path):
        pass


def test_reading_records_loads_no_torch():
    code = "import sys, selgen.record; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
