"""What is tried again when a machine is lost, and when a sweep stops, whatever carries its runs out."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from fake_workers import a_record
from selgen import record
from selgen.config import ConfigError
from selgen.executors import make, schedule
from selgen.executors.schedule import CannotGoOn, Done, Lost, Progress
from selgen.grid import ExecutorSpec


@dataclass(frozen=True)
class FakeJob:
    run_id: str
    work: int = 1
    parent: str | None = None
    first: str | None = None


class Scripted:
    """Does with each run, one after the other, what a script says: `lost`, `died`, `refused`; else it finishes it."""

    advice = "Do something."

    def __init__(self, out_dir, script=(), most=float("inf")):
        self.out_dir, self.script, self.most = out_dir, list(script), most
        self.out, self.batches, self.open = [], [], False

    def __enter__(self):
        self.open = True
        return self

    def __exit__(self, *error):
        self.open = False

    @property
    def free(self):
        return self.most - len(self.out)

    def submit(self, jobs):
        assert self.open
        self.batches.append([job.run_id for job in jobs])
        self.out += jobs

    def events(self):
        job = self.out.pop(0)
        deed = self.script.pop(0) if self.script else "finish"
        if deed == "refused":
            raise CannotGoOn("no selgen there")
        if deed in ("lost", "died"):
            yield Lost(job, deed, machine=deed == "lost")
            return
        record.write(self.out_dir / job.run_id, a_record(job.run_id, None))
        yield Progress(job.work)
        yield Done(job)


def carry_out(executor, jobs, retry=0):
    """Units of work told, and the runs told as finished."""
    units, finished = [], []
    schedule.run_all(
        jobs, executor.out_dir, executor, retry=retry, progress=units.append, finished=lambda job: finished.append(job)
    )
    return sum(units), [job.run_id for job in finished]


def test_a_run_on_a_lost_machine_is_tried_again_without_being_asked(tmp_path):
    executor = Scripted(tmp_path, ["lost", "finish", "lost", "lost"])
    assert carry_out(executor, [FakeJob("a", 2), FakeJob("b", 1)]) == (3, ["b", "a"])
    assert not executor.open


def test_a_run_that_loses_every_machine_is_given_up(tmp_path):
    executor = Scripted(tmp_path, ["lost"] * 9)
    with pytest.raises(schedule.WorkerDied, match=r"1 runs died: a \(lost\)\. Do something\. The same command"):
        carry_out(executor, [FakeJob("a")])
    assert executor.batches == [["a"]] * (1 + schedule.MACHINE_LOSSES)


def test_a_lost_worker_counts_against_retry_and_a_lost_machine_does_not(tmp_path):
    executor = Scripted(tmp_path, ["died", "lost", "finish"])
    assert carry_out(executor, [FakeJob("a")], retry=1) == (1, ["a"])
    with pytest.raises(schedule.WorkerDied, match=r"a \(died\)"):
        carry_out(Scripted(tmp_path, ["lost", "died", "died"]), [FakeJob("a")], retry=1)


def test_what_is_ready_is_handed_over_together_and_never_more_than_is_taken(tmp_path):
    jobs = [FakeJob("a", 3), FakeJob("b", 2), FakeJob("c", 1), FakeJob("child", 9, parent="a")]
    executor = Scripted(tmp_path)
    carry_out(executor, jobs)
    assert executor.batches == [["a", "b", "c"], ["child"]]
    executor = Scripted(tmp_path, most=2)
    carry_out(executor, jobs)
    assert executor.batches == [["a", "b"], ["child"], ["c"]]


def test_a_sweep_stops_at_once_where_nothing_can_be_carried_out(tmp_path):
    executor = Scripted(tmp_path, ["finish", "refused"])
    with pytest.raises(CannotGoOn, match="no selgen there"):
        carry_out(executor, [FakeJob("a", 3), FakeJob("b", 2), FakeJob("c", 1)], retry=5)
    assert record.is_finished(tmp_path / "a") and not executor.open


@pytest.mark.parametrize(("name", "package", "extra"), [("ray", "ray", "[ray]"), ("slurm", "submitit", "[slurm]")])
def test_an_executor_without_its_package_names_what_to_install(monkeypatch, tmp_path, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"executor.name {name} needs the package {package}, found: .*'\.\{extra}'"):
        make(ExecutorSpec(name=name), tmp_path, None)
