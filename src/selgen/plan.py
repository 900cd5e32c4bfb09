"""From a spec to jobs: the data is checked and counted, and every run gets its id.

Nothing here loads a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, Field, ValidationError

from selgen.blocks import ModelSpec, SettingBlock
from selgen.config import ConfigError
from selgen.core import BASE, FIRST, TASK_ONLY, Example, PostHoc, Split, Stream
from selgen.data.formats import DataError
from selgen.data.pairing import Plan, plan_for, streams_for
from selgen.grid import SweepSpec
from selgen.identity import run_id
from selgen.judging import num_calls
from selgen.spec import RunSpec, canonical, make_method, make_setting

LARGEST_ALIGNMENT = 0.25
"""Most alignment rows per task row, unless `allow_large_alignment` is set."""


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
class Size:
    """How much a run reads.

    Attributes:
        num_task: Rows of the task set.
        num_alignment: Rows of the alignment set.
        steps: Optimizer steps; 0 for a run that acts on another's result.
        steps_per_epoch: Optimizer steps of one pass over the task set.
        sequences: Rows that it trains on, counted as often as seen, those of fitted streams (`Method.fits`) included.
        prompts: Prompts answered in its evaluations.
    """

    num_task: int
    num_alignment: int
    steps: int
    steps_per_epoch: int
    sequences: int
    prompts: int


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
    return [p for seed in part.seeds for p in _size_problems(part.setting, seed, part.allow_large_alignment)]


def data_problems(spec: RunSpec) -> list[str]:
    """What is wrong with the data that a run would read; reads the data, loads no model."""
    problems = _size_problems(spec.setting, spec.training.seed, spec.allow_large_alignment)
    if problems or spec.method["name"] == BASE:
        return [f"first: {problem}" for problem in problems] if spec.curve == FIRST else problems
    try:
        row_plan(spec)
        streams(spec)
    except ValueError as error:
        return [f"setting {spec.setting['name']}, method {spec.method['name']}: {error}"]
    return []


def _size_problems(setting: Mapping[str, Any], seed: int, allow_large_alignment: bool) -> list[str]:
    try:
        sets = load_sets(setting, seed)
    except DataError as error:
        return error.problems
    except ValueError as error:
        return [str(error)]
    num_task, num_align = len(sets["task"]), len(sets["align"])
    if allow_large_alignment or num_align <= LARGEST_ALIGNMENT * num_task:
        return []
    return [
        f"The alignment set should have at most {LARGEST_ALIGNMENT:.0%} of the task set's rows, found {num_align} of "
        f"{num_task} ({num_align / num_task:.0%}). Use fewer, or set allow_large_alignment: true; the report says so."
    ]


def load_sets(setting: Mapping[str, Any], seed: int) -> dict[Stream, list[Example]]:
    """The task and alignment sets of a setting block."""
    return _sets(canonical(dict(setting)), seed, _counting.get())


@lru_cache(maxsize=32)
def _sets(setting: str, seed: int, counting: bool) -> dict[Stream, list[Example]]:
    instance = make_setting(json.loads(setting))
    return instance.planned(seed) if counting else instance.train(seed)


_counting: ContextVar[bool] = ContextVar("counting", default=False)


@contextmanager
def only_counting() -> Iterator[None]:
    """Inside, data are read to count them alone: for a dry run where the files need not be here."""
    token = _counting.set(True)
    try:
        yield
    finally:
        _counting.reset(token)


def streams(spec: RunSpec) -> dict[Stream, list[Example]]:
    """The training examples that a run's method reads.

    Raises:
        ValueError: the data lack a stream that it reads.
    """
    sets, seed = load_sets(spec.setting, spec.training.seed), spec.training.seed
    return streams_for(make_method(spec.method), sets["task"], sets["align"], seed)


def row_plan(spec: RunSpec) -> Plan:
    """Which rows the trainer will read at which step.

    Raises:
        ValueError: the data does not give what the method reads.
    """
    sets = load_sets(spec.setting, spec.training.seed)
    training = spec.training
    return plan_for(
        make_method(spec.method),
        len(sets["task"]),
        len(sets["align"]),
        micro_batch=training.per_device_train_batch_size,
        accumulation=training.gradient_accumulation_steps,
        pairing=training.pairing,
        seed=training.seed,
    )


def size(spec: RunSpec) -> Size:
    """How much a run will read."""
    sets = load_sets(spec.setting, spec.training.seed)
    prompts = _rows_of(spec).prompts
    counts = {"num_task": len(sets["task"]), "num_alignment": len(sets["align"])}
    if spec.method["name"] == BASE:
        return Size(**counts, steps=0, steps_per_epoch=1, sequences=0, prompts=prompts)
    plan, epochs = row_plan(spec), spec.training.num_train_epochs
    if spec.is_post_hoc:
        return Size(**counts, steps=0, steps_per_epoch=plan.steps_per_epoch, sequences=0, prompts=prompts)
    steps = plan.steps_per_epoch * epochs
    fitted = sum(len(streams(spec)[stream]) for stream in make_method(spec.method).fits)
    return Size(
        **counts,
        steps=steps,
        steps_per_epoch=plan.steps_per_epoch,
        sequences=plan.num_sequences(steps) + fitted * epochs,
        prompts=prompts * len(spec.epochs or [steps]),
    )


def judge_calls(spec: RunSpec) -> int:
    """Judgements that a run asks for, at most: equal ones are asked once; 0 without a judge."""
    if spec.judge is None:
        return 0
    return _rows_of(spec).judge_calls * (len(spec.epochs or [None]) if spec.method["name"] != BASE else 1)


class _Rows(NamedTuple):
    """Fingerprint of every row that is trained on or asked ("" if only counting), and what one evaluation asks."""

    fingerprint: str
    prompts: int
    judge_calls: int


def _rows_of(spec: RunSpec) -> _Rows:
    return _rows(canonical(spec.setting), spec.training.seed, tuple(spec.evaluation.splits), _counting.get())


@lru_cache(maxsize=32)
def _rows(setting: str, seed: int, splits: tuple[Split, ...], counting: bool) -> _Rows:
    instance = make_setting(json.loads(setting))
    evals = [(split, item) for split in splits for item in instance.evals(seed, split)]
    digest = hashlib.sha256()
    if not counting:
        for stream, examples in sorted(_sets(setting, seed, counting).items()):
            for example in examples:
                digest.update(canonical([stream, example]).encode())
        for split, item in evals:
            digest.update(canonical([split, item]).encode())
    items = [item for _, item in evals]
    return _Rows("" if counting else digest.hexdigest(), sum(len(e.examples) for e in items), num_calls(items))


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
    data = _rows_of(spec).fingerprint
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
    found = _rows_of(job.spec).fingerprint
    if found != job.data:
        raise ValueError(
            f"the data of setting {job.spec.setting['name']} changed since this run was planned. Put the files back, "
            "or start again with another --out, so that one report does not mix two data sets."
        )
