"""From a spec to jobs: the data is checked and counted, and every run gets its id.

Nothing here loads a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from selgen.blocks import ModelSpec, SettingBlock
from selgen.config import ConfigError
from selgen.core import BASE, FIRST, TASK_ONLY, PostHoc
from selgen.grid import SweepSpec
from selgen.identity import run_id
from selgen.reading import Size, data_problems, rows_of, size, size_problems
from selgen.spec import RunSpec, canonical, make_method, make_setting


@dataclass(frozen=True)
class Start:
    """The weights that runs start from.

    Attributes:
        path: Model or adapter directory, or a hub id at its commit (`id@commit`).
        fingerprint: Hash of its files, or hub commit.
        miniature: Key of the miniature's corpus and recipe; None for other models.
        pretrained: What they were before alignment: a miniature's weights before instruction training, the raw model
            under an adapter; None if that is not known.
        planned: The adapter in question is not trained yet: only names and shapes are those of `path`.
        trust_remote_code: Whether code beside the weights may be run.
    """

    path: str
    fingerprint: str
    miniature: str | None = None
    pretrained: str | None = None
    planned: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Job:
    """A run that is ready to be carried out by any process.

    Attributes:
        data: Fingerprint of every row that it trains on or asks, as planned.
        parent: Name of the run whose result it acts on, which must be finished before; None for others.
        first: Name of the run whose adapter it starts from on top of `start`, which must be finished before; None for
            others.
    """

    spec: RunSpec
    run_id: str
    start: Start
    size: Size
    data: str
    parent: str | None = None
    first: str | None = None

    @property
    def work(self) -> int:
        """A rough measure of how long it takes: rows trained on and prompts answered."""
        return self.size.sequences + self.size.prompts


S = TypeVar("S", RunSpec, SweepSpec)


def parse_run(data: Mapping[str, Any]) -> RunSpec:
    """Check a run's config and its data together.

    Raises:
        ConfigError: with every problem found in either.
    """
    return _checked(RunSpec.parse, data, RunSpec.lineage)


def parse_sweep(data: Mapping[str, Any]) -> SweepSpec:
    """Check a sweep's config and its data together.

    Raises:
        ConfigError: with every problem found in either.
    """
    return _checked(SweepSpec.parse, data, SweepSpec.expand)


def _checked(
    parse: Callable[[Mapping[str, Any]], S], data: Mapping[str, Any], runs: Callable[[S], Iterable[RunSpec]]
) -> S:
    try:
        spec = parse(data)
    except ConfigError as error:
        raise ConfigError([*error.problems, *_problems_despite(data)]) from error
    spec = _with_absolute_paths(spec)
    problems = [problem for run in runs(spec) for problem in data_problems(run)]
    if problems:
        raise ConfigError(problems)
    return spec


def _with_absolute_paths(spec: S) -> S:
    """The same spec from any working directory, so that a run can be opened again; names that are no path stay."""
    paths = make_setting(spec.setting).paths

    def absolute(options: Mapping[str, Any]) -> dict[str, Any]:
        return {key: _absolute(value) if key in paths else value for key, value in options.items()}

    # The default names no directory, whatever lies in the working directory.
    name = spec.model.name if spec.model.name == ModelSpec().name else _absolute(spec.model.name)
    model = spec.model.model_copy(update={"name": name})
    changes: dict[str, Any] = {"setting": absolute(spec.setting), "model": model}
    if spec.first is not None:
        changes["first"] = spec.first.model_copy(update={"setting": absolute(spec.first.setting)})
    if isinstance(spec, RunSpec):
        changes["method"] = {**spec.method, **_absolute(named_weights(spec.method))}
    else:
        curves = spec.curves
        own = [_absolute(named_weights(c.blocks()[0])) for c in curves]
        changes["curves"] = [
            c.model_copy(
                update={
                    "method": {**c.method, **{k: v for k, v in weights.items() if v is not None}},
                    "setting": absolute(c.setting),
                }
            )
            for c, weights in zip(curves, own, strict=True)
        ]
    return spec.model_copy(update=changes)


def named_weights(method: Mapping[str, Any]) -> dict[str, str | None]:
    """The fields of a method block that name weights, with what they name; none but for a post-hoc method."""
    made = None if method["name"] == BASE else make_method(method)
    return {field: getattr(made, field) for field in made.paths} if isinstance(made, PostHoc) else {}


def _absolute(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute(inner) for key, inner in value.items()}
    return str(Path(value).resolve()) if value and Path(value).exists() else value


class _DataPart(BaseModel):
    """What of a config that is wrong elsewhere says about its data."""

    setting: SettingBlock
    seeds: list[int] = Field(default=[1], min_length=1)
    allow_large_alignment: bool = False


def _problems_despite(data: Mapping[str, Any]) -> list[str]:
    try:
        part = _DataPart.model_validate(data)
    except ValidationError:  # among the problems already found
        return []
    return [p for seed in part.seeds for p in size_problems(part.setting, seed, part.allow_large_alignment)]


def jobs(runs: Sequence[RunSpec], weights: Start, fingerprints: Mapping[str, str] | None = None) -> list[Job]:
    """Give every run its id and its size, and the names of the runs that it needs, in the order of the runs.

    Args:
        runs: With those that others start from, and the runs of `TASK_ONLY` on which post-hoc ones act.
        weights: That they all start from, or that those do from which they start.
        fingerprints: Of the other weights that methods name, by name.
    """
    firsts: dict[str, str] = {}

    def first_of(run: RunSpec) -> str | None:
        first = run.first_run()
        if first is None:
            return None
        content = canonical(first.model_dump(mode="json"))
        if content not in firsts:
            firsts[content] = job(first, weights).run_id
        return firsts[content]

    parents: dict[str, list[RunSpec]] = {}
    for run in runs:
        if run.method["name"] == TASK_ONLY and run.curve != FIRST:
            parents.setdefault(_conditions(run), []).append(run)
    found = []
    for run in runs:
        named = {field: name and (fingerprints or {})[name] for field, name in named_weights(run.method).items()}
        parent = None
        if run.is_post_hoc:
            able = next(p for p in parents[_conditions(run)] if p.keeps(run.parent_epoch))
            parent = job(able, weights, first=first_of(able)).run_id
        found.append(job(run, weights, named, parent, first_of(run)))
    return found


def _conditions(run: RunSpec) -> str:
    """What a post-hoc run has in common with the run that it acts on."""
    return canonical([run.setting, run.training.model_dump(mode="json")])


def job(
    spec: RunSpec,
    weights: Start,
    named: Mapping[str, str | None] | None = None,
    parent: str | None = None,
    first: str | None = None,
) -> Job:
    """Give one run its id and its size; `jobs` finds the last three arguments."""
    setting = make_setting(spec.setting)
    data = rows_of(spec).fingerprint
    name = run_id(
        spec,
        setting=setting,
        data=data,
        weights=weights.fingerprint,
        miniature=weights.miniature,
        named=named,
        parent=parent,
        first=first,
    )
    return Job(spec, name, weights, size(spec), data, parent, first)


def check_data(job: Job) -> None:
    """Make sure that the data are still those that the run was planned with.

    Raises:
        ValueError: a file changed in between.
    """
    found = rows_of(job.spec).fingerprint
    if found != job.data:
        raise ValueError(
            f"the data of setting {job.spec.setting['name']} changed since this run was planned. Put the files back, "
            "or start again with another --out, so that one report does not mix two data sets."
        )
