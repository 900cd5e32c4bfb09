"""Draw finished runs again from their stored samples, e.g. with another threshold. Asks nothing, never imports torch.

A sample keeps its raw numbers as they came, so that rates, means, axes and remarks can be recomputed from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

from selgen.averages import average
from selgen.config import ConfigError, build, override
from selgen.core import Eval, Example, Metric, Samples, Score, Setting, Split
from selgen.points import point_values, remarks
from selgen.record import Point, RecordError, RunRecord
from selgen.spec import canonical, make_setting

Line = Mapping[str, Any]
"""One sample: a line of `samples.<split>.jsonl`."""
L = TypeVar("L", bound=Line)
FIELDS = frozenset({"eval", "domain", "prompt", "gold", "response", "value", "answer", "reason", "raw"})
PREFIX = "setting."


@dataclass(frozen=True)
class Redrawn:
    """Runs as other options of their settings draw them.

    Attributes:
        records: With the new points and the new setting block, in the order given.
        samples: Yields their samples with the new values.
        notes: What was redrawn, a sentence for each option that differs from what the runs used.
    """

    records: list[RunRecord]
    samples: Samples
    notes: list[str]


def redraw_all(records: Sequence[RunRecord], samples: Samples, assignments: Sequence[str]) -> Redrawn:
    """Redraw runs with options of their settings overridden.

    Args:
        records: Finished runs.
        samples: Yields their stored samples.
        assignments: `setting.KEY=VALUE`, at least one.

    Raises:
        ConfigError: an assignment is for something else than an option of the setting, or one that cannot be redrawn.
        RecordError: samples are missing, or are not what the setting asks.
    """
    _only_options(assignments)
    made: dict[str, Setting] = {}
    notes: list[str] = []
    for record in records:
        block = record.spec["setting"]
        key = canonical(block)
        if key not in made:
            made[key] = build("settings", override({"setting": block}, assignments)["setting"])[0]
            notes += _notes(record, made[key])
    # Runs of one setting and seed were asked the same, so one of them with points speaks for all.
    for record in {canonical([r.spec["setting"], r.seed]): r for r in records if r.points}.values():
        check_redrawable(record, made[canonical(record.spec["setting"])])
    found = [_redrawn(record, samples, made[canonical(record.spec["setting"])]) for record in records]

    def redrawn_samples(record: RunRecord, split: Split) -> Iterator[Line]:
        evals = evals_of(make_setting(record.spec["setting"]), record.seed, split)
        for lines in by_step(samples(record, split)).values():
            yield from draw(evals, lines, _where(record, split)).lines

    return Redrawn(found, redrawn_samples, list(dict.fromkeys(notes)))


def redraw(record: RunRecord, samples: Samples, setting: Setting) -> RunRecord:
    """The record that the run would have if its setting were `setting`, from what was answered and scored.

    Only what the samples and the setting determine is replaced: points, the remarks on them, and the setting's block.

    Raises:
        ConfigError: `setting` differs from the run's own in more than how answers are drawn.
        RecordError: samples are missing, or are not what the setting asks.
    """
    check_redrawable(record, setting)
    return _redrawn(record, samples, setting)


def check_redrawable(record: RunRecord, setting: Setting) -> None:
    """Make sure that every option that differs from the run's changes how its answers are drawn, and nothing else.

    Raises:
        ConfigError: naming the options that do not.
    """
    own, splits = make_setting(record.spec["setting"]), measured_splits(record)
    before, after = options(own), options(setting)
    changed = [name for name in after if after[name] != before.get(name)]
    # One at a time, so that a threshold is not blamed for the number of questions beside it.
    found = {name: _obstacle(own, _with_option(own, setting, name), record.seed, splits) for name in changed}
    problems = [
        f"setting.{name} cannot be redrawn from stored answers, found {after[name]!r} where the runs used "
        f"{before.get(name)!r}: {obstacle}. Only options that leave the questions and the training alone can, such as "
        f"thresholds. Leave it out, or run a sweep with it into another directory."
        for name, obstacle in found.items()
        if obstacle
    ]
    if problems:
        raise ConfigError(problems)


def _obstacle(own: Setting, other: Setting, seed: int, splits: Sequence[Split]) -> str | None:
    """Why answers under one setting cannot be drawn as another does; None if they can, and it makes a difference."""
    if own.proxy_domains != other.proxy_domains or own.train(seed) != other.train(seed):
        return "it changes what was trained on"
    same = True
    for split in splits:
        old, new = evals_of(own, seed, split), evals_of(other, seed, split)
        if [_question(e) for e in old if not e.of] != [_question(e) for e in new if not e.of]:
            return "it changes what was asked"
        recorded, rated = _numbers(old), {e.column for e in old if e.rate}
        for column, names in _numbers(new).items():
            lacking = names - recorded.get(column, set())
            if lacking:
                return f"it draws {column} from {', '.join(sorted(lacking))}, which was not recorded"
        lost = [e.column for e in new if not e.rate and e.column in rated and not e.of]
        if lost:
            return f"it takes the rate from {lost[0]}, whose value without one was not recorded"
        same = same and old == new
    return "no rate or mean depends on it" if same else None


def _question(e: Eval) -> Any:
    return e.column, e.kind, e.scorer, dict(e.judge), list(e.examples)


def _numbers(evals: Sequence[Eval]) -> dict[str, set[str]]:
    """Column of an eval that asks -> raw numbers that its samples hold for the judge's sake or some rate's."""
    found = {e.column: set(e.judge) for e in evals if not e.of}
    for e in evals:
        for column in e.of or (e.column,):
            found[column] |= {condition.name for condition in e.rate}
    return found


def _with_option(own: Setting, other: Setting, name: str) -> Setting:
    """The run's setting with one option of another; all of the other's if that option cannot stand alone."""
    instance: Any = own
    try:
        return dataclasses.replace(instance, **{name: getattr(other, name)})
    except ValueError:
        return other


def options(setting: Setting) -> dict[str, Any]:
    """Option -> value of a setting, as JSON values."""
    instance: Any = setting
    return to_jsonable_python(dataclasses.asdict(instance))


def evals_of(setting: Setting, seed: int, split: Split) -> list[Eval]:
    """What the setting measures.

    Raises:
        ConfigError: it cannot say, e.g. because a data file is gone.
    """
    try:
        return setting.evals(seed, split)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([str(error)]) from error


@dataclass(frozen=True)
class Drawn:
    """One step of one split, drawn.

    Attributes:
        metrics: Column -> mean.
        lines: The samples with the values that the evals give them.
    """

    metrics: dict[str, Metric]
    lines: list[dict[str, Any]]


def draw(evals: Sequence[Eval], lines: Sequence[Line], where: str) -> Drawn:
    """Rates and means from the stored raw numbers; an eval without a rate keeps its stored values.

    Args:
        evals: Of one split.
        lines: The samples of one step of it.
        where: What the samples are of, for errors.

    Raises:
        RecordError: the samples do not answer what the evals ask.
    """
    asked = questions(evals, lines, where)
    scores: dict[str, list[Score]] = {e.column: [] for e in evals if not e.of}
    for line, (e, _) in zip(lines, asked, strict=True):
        scores[e.column].append(Score(line["value"], line["answer"], line["reason"], line["raw"]))
    found = average(evals, scores)
    drawn = [
        pair
        for column in scores
        for pair in zip((s.value for s in found.scores[column]), found.counted[column], strict=True)
    ]
    values = zip(lines, drawn, strict=True)
    return Drawn(found.metrics, [{**line, "value": value, "counted": counted} for line, (value, counted) in values])


def questions(evals: Sequence[Eval], lines: Sequence[Line], where: str) -> list[tuple[Eval, Example]]:
    """What each sample of one step answers.

    Raises:
        RecordError: the samples do not answer what the evals ask.
    """
    asked = [(e, example) for e in evals if not e.of for example in e.examples]
    wanted = [(e.name, e.domain, [dict(turn) for turn in x.prompt], x.completion) for e, x in asked]
    lacking = sorted({name for line in lines for name in FIELDS - line.keys()})
    if lacking:
        raise RecordError(f"samples of {where} lack the field {', '.join(lacking)}. Run it again.")
    found = [(line["eval"], line["domain"], line["prompt"], line["gold"]) for line in lines]
    if found != wanted:
        raise RecordError(
            f"samples of {where} ({len(found)}) are not answers to what the setting asks ({len(wanted)} prompts). They "
            "were cut short, or written by another version of the setting. Run it again."
        )
    return asked


def by_step(lines: Iterable[L]) -> dict[int | None, list[L]]:
    """Samples of a split by optimizer step, in the order in which they were written."""
    found: dict[int | None, list[L]] = {}
    for line in lines:
        found.setdefault(line["step"], []).append(line)
    return found


def measured_splits(record: RunRecord) -> list[Split]:
    return list(dict.fromkeys(point.split for point in record.points))


def _redrawn(record: RunRecord, samples: Samples, setting: Setting) -> RunRecord:
    points: dict[tuple[Split, int | None], Point] = {}
    for split in measured_splits(record):
        evals = evals_of(setting, record.seed, split)
        steps = by_step(samples(record, split))
        for point in record.points:
            if point.split != split:
                continue
            if point.step not in steps:
                raise RecordError(
                    f"samples of {_where(record, split)} do not hold step {point.step}, so its points cannot be "
                    "redrawn. Put the file back, or run it again."
                )
            found = draw(evals, steps[point.step], _where(record, split))
            values = point_values(evals, found.metrics, setting.proxy_domains, record.spec.get("covered", []))
            points[split, point.step] = point.model_copy(update=values)
    redrawn = [points[point.split, point.step] for point in record.points]
    block = {"name": record.setting, **options(setting)}
    return record.model_copy(
        update={
            "points": redrawn,
            "flags": _flags(record, redrawn, setting),
            "spec": {**record.spec, "setting": block},
        }
    )


def _flags(record: RunRecord, redrawn: Sequence[Point], setting: Setting) -> list[str]:
    """The run's remarks, those on its points made again."""
    old = remarks(record.points, judged_evals(record, make_setting(record.spec["setting"])))
    return [flag for flag in record.flags if flag not in old] + remarks(redrawn, judged_evals(record, setting))


def judged_evals(record: RunRecord, setting: Setting) -> list[Eval]:
    """The evals that the run's judge was asked about, among others; none if it has no judge."""
    if not record.points or record.spec.get("judge") is None:
        return []
    return evals_of(setting, record.seed, record.points[0].split)


def _where(record: RunRecord, split: Split) -> str:
    return f"run {record.run_id}, split {split}"


def _only_options(assignments: Sequence[str]) -> None:
    """Refuse what is no option of a setting."""
    problems = []
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if not key.startswith(PREFIX) or key in (PREFIX, f"{PREFIX}name"):
            problems.append(
                f"A report redraws options of the setting, found {assignment!r}. Write setting.OPTION=VALUE; all else "
                "is as the runs were trained, and needs a new sweep."
            )
    if problems:
        raise ConfigError(problems)


def _notes(record: RunRecord, setting: Setting) -> list[str]:
    """A sentence for each option that differs from the run's."""
    before = options(make_setting(record.spec["setting"]))
    return [
        f"Redrawn from the stored answers with setting.{name} = {value!r}; the runs were measured with "
        f"{before.get(name)!r}, which their records keep."
        for name, value in options(setting).items()
        if value != before.get(name)
    ]
