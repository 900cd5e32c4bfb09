"""Open what a run left behind, or any model, together with the starting model that it is compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from selgen import config, intact, measure, models, plan, record, refusals, served, starting
from selgen.config import ConfigError
from selgen.core import BASE, Message, Split
from selgen.generate import Generation, answer
from selgen.lm import adapter_off, unwrap
from selgen.record import Point, RunRecord
from selgen.reference import FrozenReference
from selgen.spec import RunSpec, make_judge

MODEL_CONFIGS = (models.ADAPTER_CONFIG, "config.json")
OF_METHODS = ("seeds", "curves", "epochs", "curve", "strength_name", "budget", "first")
"""Keys of a config that say nothing about what is measured."""


@dataclass(frozen=True)
class Opened:
    """A model, ready to be measured and talked to.

    Attributes:
        spec: The run that made it, or one of the method `base` that says what it is measured on.
        name: For people.
        model: The tuned model.
        tokenizer: Its tokenizer.
        path: Where the tuned model lies: a directory or hub id.
        start_path: The same of the starting model.
        start: The starting model; None if it is `model` with its adapter off, or `model` itself.
    """

    spec: RunSpec
    name: str
    model: Any
    tokenizer: Any
    path: str
    start_path: str
    start: Any = None

    @property
    def is_tuned(self) -> bool:
        """Whether there is a starting model beside it to compare with."""
        return self.start is not None or isinstance(self.model, PeftModel)

    def measure(self, split: Split) -> tuple[Point, list[dict[str, Any]]]:
        """Its point and samples on a split of the spec's setting; closeness is to the starting model."""
        start = self.model if self.start is None else self.start
        reference = FrozenReference(start, {}, self.tokenizer.pad_token_id, frozen=True) if self.is_tuned else None
        return self._measure(self.model, self.path, split, reference)

    def measure_start(self, split: Split) -> tuple[Point, list[dict[str, Any]]]:
        """The same of the starting model."""
        with self._start() as model:
            return self._measure(model, self.start_path, split)

    def _measure(
        self, model: Any, path: str, split: Split, reference: FrozenReference | None = None
    ) -> tuple[Point, list[dict[str, Any]]]:
        with served.answering(self.spec.evaluation.endpoint, path, "selgen-eval") as source:
            return measure.measure(
                model,
                self.tokenizer,
                self.spec,
                split,
                reference=reference,
                judge=make_judge(self.spec.judge),
                answers=source.answers,
            )

    def answer(self, messages: Sequence[Message], generation: Generation) -> str:
        return answer(self.model, self.tokenizer, messages, generation)

    def answer_of_start(self, messages: Sequence[Message], generation: Generation) -> str:
        """What the starting model says."""
        with self._start() as model:
            return answer(model, self.tokenizer, messages, generation)

    @contextmanager
    def _start(self) -> Iterator[Any]:
        if self.start is None and isinstance(self.model, PeftModel):
            with adapter_off(self.model):
                yield unwrap(self.model)
        else:
            yield self.model if self.start is None else self.start


def home_of(run_dir: Path) -> Path:
    """The directory of the run whose model is in a directory: of `selgen choose`'s copy, the run it was copied from."""
    path = run_dir / record.CHOICE
    return (run_dir / json.loads(path.read_text(encoding="utf-8"))["run"]).resolve() if path.is_file() else run_dir


def read_run(run_dir: Path) -> RunRecord:
    """The record of a run that has a model.

    Args:
        run_dir: Of the run, or what `selgen choose` copied.

    Raises:
        RecordError: there is no such run, it is unfinished, or it failed.
    """
    copied, run_dir = run_dir, home_of(run_dir)
    if copied != run_dir and not run_dir.is_dir():
        raise record.RecordError(
            f"{copied} was copied from the run {run_dir}, which is gone and says what is measured. Copy it back, or "
            "use the copy in plain PEFT."
        )
    if not run_dir.is_dir():
        raise record.RecordError(f"{run_dir} is no directory. Name the directory of a run, OUT/RUN_ID.")
    inside = sorted(path.parent.name for path in run_dir.glob(f"*/{record.RECORD}"))
    if inside:
        raise record.RecordError(f"{run_dir} holds {len(inside)} runs. Name one of them, e.g. {run_dir / inside[0]}.")
    if not record.is_finished(run_dir) and any((run_dir / name).is_file() for name in MODEL_CONFIGS):
        raise record.RecordError(
            f"{run_dir} is a model and no run. Name the directory of the run that it came from, or measure it with "
            f"selgen eval --model {run_dir}."
        )
    result = record.read(run_dir)
    if result.error:
        raise record.RecordError(f"run {result.run_id} failed ({result.error.message}), so there is no model of it.")
    return result


def open_run(run_dir: Path, overrides: Sequence[str], *, with_data: bool = True) -> Opened:
    """The model of a finished run, and the model that it started from.

    Args:
        run_dir: Its directory, or what `selgen choose` copied of it: the adapter at the chosen epoch.
        overrides: Of the run's config, e.g. `setting.num_test=50`.
        with_data: Whether it will be measured; its data need not be there to talk to it.

    Raises:
        RecordError: the run is unfinished, or failed.
        ConfigError: its model or its starting model is missing, damaged or another one, or its data are.
    """
    result = read_run(run_dir)
    parse = plan.parse_run if with_data else RunSpec.parse
    spec = parse(config.override(result.spec, overrides))
    start = starting.start(spec)
    if result.first is not None:
        first = home_of(run_dir).parent / result.first / record.ADAPTER
        _check_adapter(first, "the model that the run started from", spec.model.trust_remote_code)
        start = starting.on_top(start, first)
    if with_data:
        refusals.check_texts([spec], start)
    if result.method == BASE:
        model, tokenizer = _load(start.path, spec)
        return Opened(spec, BASE, _merged(model), tokenizer, start.path, start.path)
    home = home_of(run_dir)
    path = str(run_dir / record.ADAPTER if home == run_dir else run_dir)
    _check_adapter(Path(path), "the run's model", spec.model.trust_remote_code)
    model, tokenizer = _load(path, spec)
    strength = "" if spec.strength is None else f", {spec.strength_name} {spec.strength:g}"
    plain = isinstance(model, PeftModel) and not models.is_adapter(start.path)
    own_start = None if plain else _merged(_load(start.path, spec)[0])
    name = f"{spec.curve}{strength}, seed {spec.training.seed}"
    return Opened(spec, name, model, tokenizer, path, start.path, own_start)


def _check_adapter(path: Path, what: str, trusted: bool) -> None:
    """Make sure that the model of a run is there, and whole."""
    if not path.is_dir():
        raise ConfigError([f"{path}, {what}, is gone. Run it again, or copy it back."])
    try:
        intact.check_model(str(path), trusted)
    except intact.ModelError as error:
        raise ConfigError([str(error)]) from error


def open_model(data: Mapping[str, Any], name: str, overrides: Sequence[str]) -> Opened:
    """Any model or adapter, to be measured on the setting that a config names.

    Args:
        data: A run's or sweep's config; its methods are ignored.
        name: Model or adapter directory, or hub id.
        overrides: Of the config.

    Raises:
        ConfigError: the config is wrong, or there is no such model.
    """
    kept = {key: value for key, value in data.items() if key not in OF_METHODS}
    spec = plan.parse_run(config.override({**kept, "method": BASE, "model": name}, overrides))
    start = starting.start(spec)
    refusals.check_texts([spec], start)
    return Opened(spec, name, *_load(start.path, spec), start.path, models.raw(start.path))


def _merged(model: Any) -> Any:
    """A starting model that is an adapter *is* the base with it; switched off it would be the raw base."""
    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def _load(path: str, spec: RunSpec) -> tuple[Any, Any]:
    starting.check_machine(spec)
    torch.manual_seed(spec.training.seed)
    return models.load(path, **spec.model.loading())
