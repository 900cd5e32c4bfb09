"""Ask a run's judge for the numbers that its samples lack, and redraw its points. Never imports torch.

The verdicts of the first time are in the samples, and a judge keeps its own in a cache: only what is missing costs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selgen import record
from selgen.config import ConfigError, build, override
from selgen.core import Judge, Judgement, Split
from selgen.judging import as_score, judge_prompt
from selgen.record import RecordError, RunRecord
from selgen.redraw import by_step, draw, evals_of, measured_splits, questions, redraw
from selgen.spec import canonical, make_setting

PREFIX = "judge."
Lines = Mapping[Split, list[dict[str, Any]]]
"""All samples of a run, in the order of their files."""


@dataclass(frozen=True)
class Gap:
    """A raw number that a sample should have from the judge, and lacks.

    Attributes:
        line: The sample.
        name: Of the number.
        names: All numbers that the judge gives this sample, in the order of the eval.
        prompt: For the judge.
    """

    line: dict[str, Any]
    name: str
    names: tuple[str, ...]
    prompt: str


@dataclass(frozen=True)
class Rejudged:
    """What asking again came to.

    Attributes:
        record: As it is now.
        missing: Judgements that were missing before.
        scored: Those that came.
        unread: Those to which the judge replied without a number.
        usage: What it cost, under the judge's names; empty if the judge does not say.
    """

    record: RunRecord
    missing: int
    scored: int
    unread: int
    usage: dict[str, float]

    @property
    def remaining(self) -> int:
        return self.missing - self.scored


def judged_runs(out_dir: Path) -> tuple[list[tuple[Path, RunRecord]], int]:
    """Directory and record of every successful run that has a judge, and the number of those that have none.

    Raises:
        RecordError: `out_dir` is no directory, holds no finished run, or none of them has a judge.
    """
    records = [r for r in record.read_all(out_dir) if r.status == "success"]
    if not records:
        raise RecordError(f"{out_dir} holds no finished run. Name the output directory of a sweep or of a run.")
    found = [r for r in records if r.spec.get("judge") is not None]
    if not found:
        raise RecordError(
            f"none of the {len(records)} finished runs in {out_dir} has a judge: their settings scored the answers "
            "themselves. A run gets one from the block `judge:` of its config, before it starts."
        )
    dirs = [out_dir if record.is_finished(out_dir) else out_dir / r.run_id for r in found]
    return list(zip(dirs, found, strict=True)), len(records) - len(found)


def judges_of(records: Sequence[RunRecord], assignments: Sequence[str] = ()) -> list[Judge]:
    """The judge of each run, reached in another way if need be; runs with the same judge share it.

    Args:
        records: All with a judge.
        assignments: `judge.KEY=VALUE` for options that say how it is reached (`Judge.unhashed`).

    Raises:
        ConfigError: an assignment is for anything else, or the judge refuses it.
    """
    made = {canonical(r.spec["judge"]): r for r in records}
    judges = {key: _judge_of(r, assignments) for key, r in made.items()}
    return [judges[canonical(r.spec["judge"])] for r in records]


def _judge_of(result: RunRecord, assignments: Sequence[str]) -> Judge:
    wrong = [a for a in assignments if not a.startswith(PREFIX)]
    if wrong:
        problem = "selgen judge takes options of the judge, found {!r}. Write judge.OPTION=VALUE."
        raise ConfigError([problem.format(assignment) for assignment in wrong])
    own, block = build("judges", result.spec["judge"])
    judge, changed = build("judges", override({"judge": block}, assignments)["judge"])
    free = type(own).unhashed
    problems = [
        f"judge.{key} is {block.get(key)!r} in run {result.run_id} and decides what the judge says, so that a run with "
        f"{value!r} would mix two judges. Only how it is reached can change: {', '.join(free) or 'nothing here'}. For "
        "another judge run a sweep into another directory."
        for key, value in changed.items()
        if value != block.get(key) and key not in free
    ]
    if problems:
        raise ConfigError(problems)
    return judge


def count_missing(run_dir: Path) -> int:
    """Judgements that a run lacks; asks nothing and writes nothing.

    Raises:
        RecordError: its samples are gone or are not what its setting asks.
    """
    result = record.read(run_dir)
    return len(find_gaps(result, _read(run_dir, result)))


def judge_again(run_dir: Path, judge: Judge) -> Rejudged:
    """Ask for what a finished run lacks; its samples and its record are replaced, each by a whole new file.

    The points are redrawn from the samples whether anything was missing or not: a process that died between the two
    files left the samples ahead, and this repairs it.

    Raises:
        Busy: another process writes this run.
        RecordError: its samples are gone or are not what its setting asks.
    """
    with record.locked(run_dir):
        result = record.read(run_dir)
        lines = _read(run_dir, result)
        gaps = find_gaps(result, lines)
        before = dict(judge.usage)
        said = judge.judge_many([gap.prompt for gap in gaps]) if gaps else []
        usage = {name: value - before.get(name, 0) for name, value in judge.usage.items()} if gaps else {}
        _fill(gaps, said)
        setting = make_setting(result.spec["setting"])
        new = redraw(result, lambda _, split: lines[split], setting)
        if usage:
            earlier = result.provenance.get("judge", {})
            total = {name: earlier.get(name, 0) + usage.get(name, 0) for name in {**earlier, **usage}}
            new = new.model_copy(update={"provenance": {**result.provenance, "judge": total}})
        if gaps:
            for split, rows in lines.items():
                evals = evals_of(setting, result.seed, split)
                drawn = [x for step in by_step(rows).values() for x in draw(evals, step, result.run_id).lines]
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in drawn)
                record.write_atomic(record.samples_path(run_dir, split), text)
        if new != result:
            record.write(run_dir, new)
    scored = sum(judgement.score is not None for judgement in said)
    unread = sum(judgement.score is None and judgement.reply is not None for judgement in said)
    return Rejudged(new, len(gaps), scored, unread, usage)


def find_gaps(result: RunRecord, lines: Lines) -> list[Gap]:
    """Every number that the evals ask the judge for and a sample lacks.

    Raises:
        RecordError: the samples are not what the setting asks.
    """
    setting = make_setting(result.spec["setting"])
    gaps = []
    for split, rows in lines.items():
        evals = evals_of(setting, result.seed, split)
        for step in by_step(rows).values():
            asked = questions(evals, step, f"run {result.run_id}, split {split}")
            for line, (e, example) in zip(step, asked, strict=True):
                for name, template in e.judge.items() if e.kind == "generate" else ():
                    if line["raw"].get(name) is None:
                        prompt = judge_prompt(template, example, str(line["response"]))
                        gaps.append(Gap(line, name, tuple(e.judge), prompt))
    return gaps


def _read(run_dir: Path, result: RunRecord) -> Lines:
    found: dict[Split, list[dict[str, Any]]] = {}
    for split in measured_splits(result):
        path = record.samples_path(run_dir, split)
        if not path.is_file():
            raise RecordError(f"{path} is gone, so there is nothing to judge. Put it back, or run it again.")
        found[split] = list(record.read_samples(run_dir, split))
    return found


def _fill(gaps: Sequence[Gap], said: Sequence[Judgement]) -> None:
    """Write what came into the samples, as if it had come the first time."""
    by_line: dict[int, tuple[Gap, dict[str, Judgement]]] = {}
    for gap, judgement in zip(gaps, said, strict=True):
        by_line.setdefault(id(gap.line), (gap, {}))[1][gap.name] = judgement
    for gap, new in by_line.values():
        line = gap.line
        old = _replies(line["answer"], gap.names)
        known = {name: Judgement(line["raw"].get(name), old.get(name)) for name in gap.names}
        score = as_score({**known, **new})
        line |= {"answer": score.answer, "reason": score.reason, "raw": {**line["raw"], **score.raw}}


def _replies(answer: str | None, names: Sequence[str]) -> dict[str, str]:
    """Name -> reply in a sample's answer, which holds them as `name: reply; name: reply`."""
    parts = re.split(rf"(?:^|; )({'|'.join(map(re.escape, names))}): ", answer or "")
    return dict(zip(parts[1::2], parts[2::2], strict=True))
