"""Stand-ins for a worker process that start without torch: what a job does is written in its curve's name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from selgen import record
from selgen.record import Failure, RunRecord


def work(pipe: Any, out_dir: Path, number: int) -> None:
    """Carry out jobs that succeed, fail, diverge or die, some of them the first time only."""
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        with (out_dir / "order.txt").open("a") as file:
            file.write(f"{job.run_id}\n")
        tried = (out_dir / "order.txt").read_text().split().count(job.run_id)
        if job.deed == "die" or (job.deed == "die once" and tried == 1):
            os._exit(7)
        pipe.send(job.work)
        failure = None
        if job.deed == "diverge":
            failure = Failure(type="NonFiniteError", message="NaN", step=1, term="task")
        if job.deed == "fail with its parent":
            failure = Failure(type="ParentFailed", message="its parent run failed")
        if job.deed == "fail" or (job.deed == "fail once" and tried == 1):
            failure = Failure(type="OSError", message="disk full")
        record.write(out_dir / job.run_id, a_record(job.run_id, failure))
        pipe.send(job.run_id)


def a_record(run_id: str, failure: Failure | None) -> RunRecord:
    names = {"setting": "s", "model": "m", "method": "x", "curve": "x", "run_id": run_id}
    missing = dict.fromkeys(
        ["proxy", "strength_name", "strength", "sequences", "train_seconds", "update_norm", "budget"]
    )
    counts = {"seed": 1, "num_task": 1, "num_alignment": 1}
    return RunRecord(
        **names,
        **missing,
        **counts,
        status="failed" if failure else "success",
        error=failure,
        spec={},
        provenance={},
        points=[],
    )
