"""What data a run reads, and how much: training sets, their rows by step, and what its evaluations ask.

Nothing here loads a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from selgen.core import BASE, FIRST, Example, Split, Stream
from selgen.data.formats import DataError
from selgen.data.pairing import Plan, plan_for, streams_for
from selgen.judging import num_calls
from selgen.spec import RunSpec, canonical, make_method, make_setting

LARGEST_ALIGNMENT = 0.25
"""Most alignment rows per task row, unless `allow_large_alignment` is set."""


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


def data_problems(spec: RunSpec) -> list[str]:
    """What is wrong with the data that a run would read; reads the data, loads no model."""
    problems = size_problems(spec.setting, spec.training.seed, spec.allow_large_alignment)
    if problems or spec.method["name"] == BASE:
        return [f"first: {problem}" for problem in problems] if spec.curve == FIRST else problems
    try:
        row_plan(spec)
        streams(spec)
    except ValueError as error:
        return [f"setting {spec.setting['name']}, method {spec.method['name']}: {error}"]
    return []


def size_problems(setting: Mapping[str, Any], seed: int, allow_large_alignment: bool) -> list[str]:
    """What is wrong with a setting block's sets: they cannot be read, or there are too many alignment rows."""
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
    prompts = rows_of(spec).prompts
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
    return rows_of(spec).judge_calls * (len(spec.epochs or [None]) if spec.method["name"] != BASE else 1)


class Rows(NamedTuple):
    """Fingerprint of every row that is trained on or asked ("" if only counting), and what one evaluation asks."""

    fingerprint: str
    prompts: int
    judge_calls: int


def rows_of(spec: RunSpec) -> Rows:
    """The rows of a run and of one of its evaluations, read once per process."""
    return _rows(canonical(spec.setting), spec.training.seed, tuple(spec.evaluation.splits), _counting.get())


@lru_cache(maxsize=32)
def _rows(setting: str, seed: int, splits: tuple[Split, ...], counting: bool) -> Rows:
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
    return Rows("" if counting else digest.hexdigest(), sum(len(e.examples) for e in items), num_calls(items))
