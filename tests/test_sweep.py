"""A sweep carries out every run exactly once, however often and wherever it is killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import fakes
from selgen import models, plan, record, starting, sweep
from selgen.config import ConfigError
from sweeps import a_sweep, comparable

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return fakes.install(tmp_path_factory.mktemp("site"))


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, site):
    monkeypatch.syspath_prepend(str(site))


def jobs_of(data: dict) -> list[plan.Job]:
    runs = plan.parse_sweep(data).expand()
    start = starting.start(runs[0])
    return [plan.job(run, start) for run in runs]


class Watch:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.jobs, self.before, self.units, self.ended = [], [], 0, []

    def building(self, done, total):
        pass

    def begin(self, jobs, finished):
        self.jobs, self.before = list(jobs), list(finished)

    def progress(self, units):
        self.units += units

    def finished(self, job):
        self.ended.append(job.run_id)


def start_process(config: Path, out: Path, site: Path, num_workers: int) -> subprocess.Popen:
    path = os.pathsep.join([str(site), str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = f"-m selgen sweep -c {config} --out {out} --workers {num_workers}".split()
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def unfinished(out: Path) -> list[Path]:
    return [d for d in out.glob("*") if d.is_dir() and not record.is_finished(d)]


def in_training(out: Path) -> bool:
    return any((d / record.METRICS).is_file() and not (d / "adapter").exists() for d in unfinished(out))


def kill_and_resume(
    data: dict, tmp_path: Path, site: Path, moments: list[float | None], num_workers: int
) -> tuple[Path, int]:
    """Kill a sweep once per moment, then let it finish.

    Args:
        moments: Seconds to wait before each kill; None waits until a run is being trained.

    Returns:
        The output directory, and how many kills hit a run in training.
    """
    config, out = tmp_path / "sweep.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(data))
    hits = 0
    kept: dict[Path, bytes] = {}
    for moment in [*moments, "end"]:
        process = start_process(config, out, site, num_workers)
        assert process.stderr is not None
        if moment == "end":
            errors = process.stderr.read().decode()
            assert process.wait() == 0, errors
        elif moment is None:
            while process.poll() is None and not in_training(out):
                time.sleep(0.01)
        else:
            time.sleep(moment)
        hits += moment != "end" and process.poll() is None and in_training(out)
        workers = children_of(process) if process.poll() is None else []
        process.kill()
        process.wait()
        process.stderr.close()
        assert all_end(workers), "a worker outlived its sweep"
        now = {path: path.read_bytes() for path in out.glob(f"*/{record.RECORD}")}
        assert {path: now[path] for path in kept} == kept, "a finished run was carried out again"
        kept = now
    return out, hits


@pytest.fixture(scope="module")
def undisturbed(model_dir, site, tmp_path_factory) -> Path:
    """A sweep in worker processes that nothing disturbs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        out = tmp_path_factory.mktemp("undisturbed")
        watch = Watch()
        records = sweep.sweep(plan.parse_sweep(a_sweep(model_dir)), out, num_workers=2, watcher=watch)
        assert [r.status for r in records] == ["success"] * 8
        assert sorted(watch.ended) == sorted(r.run_id for r in records)
        assert watch.units == sum(job.work for job in watch.jobs) > 0
        assert watch.before == []
    return out


def test_a_sweep_has_each_run_once_and_nothing_else(undisturbed, model_dir):
    found = record.read_all(undisturbed)
    assert sorted(r.run_id for r in found) == sorted(job.run_id for job in jobs_of(a_sweep(model_dir)))
    assert {(r.curve, r.seed) for r in found} == {(c, s) for c in ("base", "task_only", "kl") for s in (1, 2)}
    assert sorted(r.strength for r in found if r.method == "kl" and r.seed == 1) == [0.1, 1.0]


def test_workers_compute_what_one_process_does(undisturbed, model_dir, tmp_path):
    from selgen.run import execute

    job = next(job for job in jobs_of(a_sweep(model_dir)) if job.spec.curve == "kl")
    execute(job, tmp_path)
    assert comparable(tmp_path) == [data for data in comparable(undisturbed) if data["run_id"] == job.run_id]


def test_a_finished_sweep_runs_nothing_again(undisturbed, model_dir, monkeypatch):
    monkeypatch.setattr("selgen.executors.local._start", lambda *args: pytest.fail("a worker was started"))
    before = comparable(undisturbed)
    watch = Watch()
    sweep.sweep(plan.parse_sweep(a_sweep(model_dir)), undisturbed, num_workers=2, watcher=watch)
    assert comparable(undisturbed) == before
    assert len(watch.before) == 8 and watch.ended == []


def test_its_config_is_kept_so_that_a_resume_needs_no_retyping(undisturbed, model_dir):
    kept = yaml.safe_load((undisturbed / "sweep.yaml").read_text())
    assert plan.parse_sweep(kept) == plan.parse_sweep(a_sweep(model_dir))


def test_the_directory_of_another_sweep_is_refused_with_the_difference(undisturbed, model_dir):
    other = plan.parse_sweep(a_sweep(model_dir, lora={"r": 3, "lora_alpha": 4}))
    with pytest.raises(ConfigError, match=r"holds another sweep \(lora.r: there 2, here 3\). Choose another --out"):
        sweep.sweep(other, undisturbed, num_workers=1)


def test_runs_of_other_weights_are_not_mixed_in(undisturbed, model_dir, monkeypatch):
    monkeypatch.setattr(models, "fingerprint", lambda path: "retrained since")
    with pytest.raises(ConfigError, match="8 runs of the same config with other starting weights or data"):
        sweep.sweep(plan.parse_sweep(a_sweep(model_dir)), undisturbed, num_workers=1)


def test_two_sweeps_cannot_write_one_directory(undisturbed, model_dir):
    with record.locked(undisturbed), pytest.raises(record.Busy, match="being written by another selgen process"):
        sweep.sweep(plan.parse_sweep(a_sweep(model_dir)), undisturbed, num_workers=1)


def test_a_failed_run_is_recorded_and_the_others_go_on(model_dir, tmp_path):
    """One run's loss is not a number, the worker of another dies the first time."""
    curves = [
        {"method": {"name": "fake_nan", "at_step": 4}},
        {"method": {"name": "fake_crash", "mark": str(tmp_path / "mark")}},
    ]
    spec = plan.parse_sweep(a_sweep(model_dir, curves=curves, seeds=[1]))
    found = {r.curve: r for r in sweep.sweep(spec, tmp_path / "out", num_workers=1, retry=1)}
    assert [found[c].status for c in ("base", "fake_nan", "fake_crash")] == ["success", "failed", "success"]
    failure = found["fake_nan"].error
    assert failure is not None and (failure.step, failure.term) == (4, "broken")


def test_killed_in_training_and_started_again_a_sweep_ends_the_same(undisturbed, model_dir, site, tmp_path):
    out, hits = kill_and_resume(a_sweep(model_dir), tmp_path, site, [None], num_workers=1)
    assert hits == 1
    assert comparable(out) == comparable(undisturbed)


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def all_end(pids: list[int]) -> bool:
    """Whether the processes are gone, or zombies, within five seconds."""
    deadline = time.monotonic() + 5
    while any(map(_is_running, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_killed_at_ten_random_moments_a_sweep_ends_the_same(model_dir, site, tmp_path):
    """Six kills as soon as a run is in training, four at any time from the first second on."""
    data = a_sweep(model_dir, seeds=[1, 2, 3], setting={"name": "fake", "num_task": 160, "num_align": 8})
    expected = tmp_path / "expected"
    sweep.sweep(plan.parse_sweep(data), expected, num_workers=2)
    draw = random.Random(0)
    moments = [None] * 6 + [draw.uniform(1, 30) for _ in range(4)]
    draw.shuffle(moments)
    out, hits = kill_and_resume(data, tmp_path, site, moments, num_workers=2)
    assert hits >= 5
    assert comparable(out) == comparable(expected)
