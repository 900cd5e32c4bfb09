"""Runs that others judged, as records: averaged and drawn as the runs of a sweep, what is unknown left unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from selgen.averages import average, samples
from selgen.core import Setting
from selgen.points import point_values, remarks
from selgen.record import Point, RunRecord
from selgen.report.judge_files import TABLE, Identity, JudgeSource, Parts, find_runs
from selgen.report.runs import ReportError
from selgen.spec import EPOCHS, canonical, make_setting


@dataclass(frozen=True)
class JudgedRun:
    """A run made from judge files, and its test samples as `record.read_samples` yields them."""

    record: RunRecord
    samples: list[dict[str, Any]]


def read_judged(source: JudgeSource, covered: Iterable[str] = ()) -> tuple[list[JudgedRun], str]:
    """Read every run of a directory of judge files.

    Args:
        covered: Domains to leave out of the alignment axis beside the setting's own proxy domains.

    Returns:
        The runs, and a sentence on what was read and what was left out.

    Raises:
        ReportError: there are no files, one cannot be read, or they contradict each other.
        ConfigError: there is no such setting, or it refuses its options.
    """
    setting = make_setting(source.setting)
    runs, left_out = find_runs(source)
    files = sum(len(parts.files) for parts in runs.values())
    note = f"Judge files: {len(runs)} runs from {files} files, neither trained nor judged here."
    if left_out:
        note += f" Left out, because {TABLE} does not list them: {', '.join(left_out)}."
    covered = sorted(covered)
    return [_run(identity, parts, source, setting, covered) for identity, parts in runs.items()], note


def _run(identity: Identity, parts: Parts, source: JudgeSource, setting: Setting, covered: Sequence[str]) -> JudgedRun:
    files = ", ".join(parts.files)
    try:
        evals, scores = setting.judged(parts.rows)
    except ValueError as error:
        raise ReportError(f"{files}: {error}") from error
    averaged = average(evals, scores)
    values = point_values(evals, averaged.metrics, setting.proxy_domains, covered)
    # Nobody told how many steps were trained, or how long the evaluation took.
    point = Point(step=None, epoch=None, split="test", strength=identity.strength, eval_seconds=None, **values)
    flags = remarks([point])
    if not any("answer" in row for row in parts.rows):
        flags.append("its judge files have no column answer, so nothing but the judge tells gibberish from answers")
    flags += [
        f"its judge files have no {axis} rows" for axis in ("task", "alignment") if axis not in {e.axis for e in evals}
    ]
    content = canonical([vars(identity), parts.rows])
    record = RunRecord(
        run_id=sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12],
        status="success",
        setting=str(source.setting["name"]),
        proxy=identity.proxy,
        model=identity.model,
        method=identity.method,
        curve=identity.curve,
        strength_name=identity.strength_name,
        strength=None if identity.strength_name == EPOCHS else identity.strength,
        seed=identity.seed,
        num_task=None,
        num_alignment=None,
        sequences=None,
        train_seconds=None,
        update_norm=None,
        budget=None,
        flags=flags,
        spec={"setting": dict(source.setting), "covered": list(covered)},
        provenance={"judge files": files},
        points=[point],
    )
    said = {e.column: [example.completion for example in e.examples] for e in evals}
    # Nobody knows the right answer; an example's completion is the one that was judged.
    rows = [{"step": None, **row, "gold": None} for row in samples(evals, said, averaged)]
    return JudgedRun(record, rows)
