"""RunSpec -> RunRecord: begin a run or go on with it, by one process or several, and put down how it ended."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path

import yaml

from selgen import launch, provenance, ranks, record, shortage, starting, storage
from selgen.plan import Job
from selgen.record import Failure, RunRecord
from selgen.spec import RunSpec
from selgen.train import NonFiniteError
from selgen.work import CHECKPOINTS, COMPLETE, Progress, Work


def run(spec: RunSpec, out_dir: Path) -> RunRecord:
    """Carry out one run, or read its record if it is finished; an interrupted one resumes from its last checkpoint.

    Args:
        spec: What to run; the runs that it starts from or acts on are carried out before.
        out_dir: The run's directory is made inside, under its run id.

    Raises:
        ConfigError: its model cannot be found or made, or does not fit the data.
    """
    starting.check_machine(spec)
    return [execute(job, out_dir) for job in starting.jobs(spec.lineage())][-1]


def execute(job: Job, out_dir: Path, progress: Progress = lambda units: None) -> RunRecord:
    """Carry out a planned run; a failure is recorded and not raised.

    Only one launch can be at it: a second one waits and then reads the record. The processes of one launch (`ranks`)
    train together; the first of them measures, changes finished adapters and writes, while the others wait.

    Raises:
        Unusable: the disk is full, or its directory or the server that answers cannot be used, which says nothing about
            the run.
    """
    run_dir = out_dir / job.run_id
    ranks.start()
    with storage.watched(run_dir), _held(run_dir):
        done = ranks.first(lambda: record.read(run_dir) if record.is_finished(run_dir) else None)
        if done is not None:
            return done
        started = provenance.now()
        checkpoint = ranks.first(lambda: _begin(job, run_dir))
        work = Work(job, run_dir, progress)
        failure = _agreed(_attempt(work, checkpoint))
        return ranks.first(lambda: _conclude(work, failure, started))


@contextmanager
def _held(run_dir: Path) -> Iterator[None]:
    """Hold the only right to a run's directory, by its first process for all of them."""

    def hold() -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        held.enter_context(record.locked(run_dir, wait=True))

    with ExitStack() as held:
        ranks.first(hold)
        yield


def _begin(job: Job, run_dir: Path) -> Path | None:
    """Write down what is to be done; the checkpoint to go on from."""
    checkpoint = _resume_point(run_dir, job.size.steps)
    record.write_atomic(run_dir / record.SPEC, yaml.safe_dump(job.spec.model_dump(mode="json"), sort_keys=False))
    return checkpoint


Outcome = Failure | storage.Unusable | None
"""Why a run failed, or why that says nothing about it, or None."""


def _attempt(work: Work, checkpoint: Path | None) -> tuple[float, Outcome]:
    """Carry a run out: when it ended in this process, and how."""
    outcome: Outcome = None
    try:
        work.carry_out(checkpoint)
    except launch.FailedElsewhere:
        return inf, Failure(type="FailedElsewhere", message="another process failed and did not say why")
    except NonFiniteError as error:
        outcome = Failure(type="NonFiniteError", message=str(error), step=error.step, term=error.term)
    except storage.Unusable as error:
        outcome = error
    except Exception as error:
        problem = storage.trouble(error, work.dir) or storage.full(work.dir)
        if problem:
            outcome = storage.StorageError(problem)
        else:
            outcome = Failure(type=type(error).__name__, message=str(error))
            if shortage.is_out_of_memory(error):
                outcome = Failure(type=shortage.NAME, message=shortage.advice(error, work.spec, work.stage))
            (work.dir / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    return time.time(), outcome


def _agreed(own: tuple[float, Outcome]) -> Failure | None:
    """How a run ended, over its processes: what failed first made the others fail.

    Raises:
        Unusable: a disk or a server is why.
    """
    failed = [ended for ended in ranks.at_the_end(own) if ended[1] is not None]
    outcome = min(failed, key=lambda ended: ended[0])[1] if failed else None
    if isinstance(outcome, storage.Unusable):
        raise outcome
    return outcome


def _conclude(work: Work, failure: Failure | None, started: str) -> RunRecord:
    """Write the record, and clear away what was kept for going on."""
    result = work.record(failure, provenance.collect(started))
    shutil.rmtree(work.dir / CHECKPOINTS, ignore_errors=True)
    record.write(work.dir, result)
    (work.dir / record.POINTS).unlink(missing_ok=True)
    return result


def _resume_point(run_dir: Path, last_step: int) -> Path | None:
    """The last whole checkpoint, with everything logged after it dropped; None, and a clean directory, without one."""
    found = [(int(p.name.split("-")[1]), p) for p in (run_dir / CHECKPOINTS).glob("checkpoint-*")]
    whole = sorted((step, p) for step, p in found if (p / COMPLETE).is_file())
    if not whole:
        for path in run_dir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return None
    step, checkpoint = whole[-1]
    for _, path in found:
        if path != checkpoint:
            shutil.rmtree(path)
    for draft in run_dir.glob(".*.tmp"):
        draft.unlink()
    for path in run_dir.glob("*.jsonl"):
        # The last step is measured when training is over, so after its checkpoint.
        record.truncate_jsonl(path, step if path.name == record.METRICS else min(step, last_step - 1))
    return checkpoint
