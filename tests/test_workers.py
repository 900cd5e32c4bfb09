"""Dispatch: the longest first, each once, lost and failed runs as often as asked, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

import fake_workers
from selgen import record
from selgen.executors import local, schedule


@dataclass(frozen=True)
class FakeJob:
    run_id: str
    deed: str = "succeed"
    work: int = 1
    parent: str | None = None
    first: str | None = None


@pytest.fixture(autouse=True)
def light_workers(monkeypatch):
    monkeypatch.setattr(local, "_work", fake_workers.work)


def carry_out(tmp_path, jobs, num_workers=1, retry=0):
    """What was tried, in order; the work that was reported; the jobs reported as finished."""
    units, finished = [], []
    try:
        executor = local.Local(tmp_path, num_workers)
        schedule.run_all(jobs, tmp_path, executor, retry=retry, progress=units.append, finished=finished.append)
    finally:
        tried = (tmp_path / "order.txt").read_text().split()
    return tried, sum(units), [job.run_id for job in finished]


def test_the_longest_run_is_the_first(tmp_path):
    jobs = [FakeJob("a", work=2), FakeJob("b", work=9), FakeJob("c", work=5)]
    assert carry_out(tmp_path, jobs) == (["b", "c", "a"], 16, ["b", "c", "a"])


def test_several_workers_share_the_runs_and_each_is_done_once(tmp_path):
    jobs = [FakeJob(f"run{i}") for i in range(12)]
    tried, units, finished = carry_out(tmp_path, jobs, num_workers=3)
    assert sorted(tried) == sorted(finished) == sorted(job.run_id for job in jobs)
    assert units == 12


def test_nothing_to_do_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "_start", lambda *args: pytest.fail("a worker was started"))
    schedule.run_all([], tmp_path, local.Local(tmp_path, 2), retry=0, progress=print, finished=print)


@pytest.mark.parametrize("deed", ["die once", "fail once"])
def test_a_retry_mends_what_goes_wrong_once(tmp_path, deed):
    tried, _, finished = carry_out(tmp_path, [FakeJob("a", deed, work=2), FakeJob("b")], retry=1)
    assert Counter(tried) == {"a": 2, "b": 1}
    assert sorted(finished) == ["a", "b"]
    assert record.read(tmp_path / "a").status == "success"


def test_a_run_that_kills_its_workers_is_given_up_and_named_when_the_others_are_done(tmp_path):
    with pytest.raises(schedule.WorkerDied, match=r"1 runs died: a \(exit code 7\)\..*use fewer --workers"):
        carry_out(tmp_path, [FakeJob("a", "die", work=2), FakeJob("b")], retry=2)
    assert Counter((tmp_path / "order.txt").read_text().split()) == {"a": 3, "b": 1}
    assert record.is_finished(tmp_path / "b") and not record.is_finished(tmp_path / "a")


def test_a_run_that_keeps_failing_ends_with_its_failure_recorded(tmp_path):
    tried, _, finished = carry_out(tmp_path, [FakeJob("a", "fail")], retry=2)
    assert (tried, finished) == (["a"] * 3, ["a"])
    assert record.read(tmp_path / "a").status == "failed"


def test_a_run_that_diverges_is_not_tried_again(tmp_path):
    """It would diverge again: a run is a function of its spec."""
    assert carry_out(tmp_path, [FakeJob("a", "diverge")], retry=5)[0] == ["a"]


def test_a_run_waits_for_its_parent_however_long_it_is(tmp_path):
    """The child is the longest, and a second worker is idle: it starts last all the same."""
    jobs = [FakeJob("child", work=9, parent="parent"), FakeJob("parent", work=2), FakeJob("other", work=1)]
    tried, units, finished = carry_out(tmp_path, jobs, num_workers=2)
    assert tried.index("parent") < tried.index("child")
    assert sorted(finished) == ["child", "other", "parent"] and units == 12
    assert finished.index("parent") < finished.index("child")


def test_a_run_whose_parent_is_finished_already_does_not_wait(tmp_path):
    assert carry_out(tmp_path, [FakeJob("child", parent="earlier")])[0] == ["child"]


def test_a_run_starts_after_the_last_try_of_its_parent(tmp_path):
    jobs = [FakeJob("parent", "fail once"), FakeJob("child", work=9, parent="parent")]
    assert carry_out(tmp_path, jobs, num_workers=2, retry=1)[0] == ["parent", "parent", "child"]


def test_runs_that_waited_for_a_lost_one_are_lost_with_it(tmp_path):
    jobs = [FakeJob("parent", "die", work=2), FakeJob("child", parent="parent"), FakeJob("other")]
    with pytest.raises(
        schedule.WorkerDied, match=r"2 runs died: parent \(exit code 7\), child \(waited for parent\)\."
    ):
        carry_out(tmp_path, jobs)
    assert (tmp_path / "order.txt").read_text().split() == ["parent", "other"]
    assert not record.is_finished(tmp_path / "child")


def test_a_run_waits_for_the_run_it_starts_from_and_for_its_parent(tmp_path):
    jobs = [
        FakeJob("child", work=9, parent="parent", first="first"),
        FakeJob("parent", work=5, first="first"),
        FakeJob("first", work=2),
    ]
    assert carry_out(tmp_path, jobs, num_workers=3)[0] == ["first", "parent", "child"]


def test_what_starts_from_a_lost_run_is_lost_once_however_it_waited(tmp_path):
    jobs = [FakeJob("first", "die"), FakeJob("parent", first="first"), FakeJob("child", parent="parent", first="first")]
    with pytest.raises(schedule.WorkerDied, match=r"3 runs died: first \(exit code 7\), parent .*, child .*\."):
        carry_out(tmp_path, jobs)
    assert (tmp_path / "order.txt").read_text().split() == ["first"]


def test_a_run_that_failed_because_its_parent_did_is_not_tried_again(tmp_path):
    jobs = [FakeJob("parent", "diverge"), FakeJob("child", "fail with its parent", parent="parent")]
    assert carry_out(tmp_path, jobs, retry=5)[0] == ["parent", "child"]


def test_an_interruption_ends_the_workers(tmp_path, monkeypatch):
    pool = []
    start = local._start

    def remembered(*args):
        pool.append(start(*args))
        return pool[-1]

    def interrupt(units):
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "_start", remembered)
    with pytest.raises(KeyboardInterrupt):
        executor = local.Local(tmp_path, 2)
        schedule.run_all([FakeJob("a")], tmp_path, executor, retry=0, progress=interrupt, finished=print)
    assert pool and all(worker.process.exitcode is not None for worker in pool)
