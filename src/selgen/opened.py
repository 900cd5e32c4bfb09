"""Open what a run left behind, or any model, together with the starting model that it is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from selgen import config, intact, measure, models, plan, record, starting
from selgen.config import ConfigError
from selgen.core import BASE, Message, Split
from selgen.generate import Generation, answer
from selgen.lm import FrozenReference, adapter_off, unwrap
from selgen.record import Point
from selgen.spec import RunSpec


@dataclass(frozen=True)
class Opened:
    """A model, ready to be measured and talked to.

    Attributes:
        spec: The run that made it, or one of the method `base` that says what it is measured on.
        name: For people.
        model: The tuned model.
        tokenizer: Its tokenizer.
        start: The starting model; None if it is `model` with its adapter off, or `model` itself.
    """

    spec: RunSpec
    name: str
    model: Any
    tokenizer: Any
    start: Any = None

    @property
    def is_tuned(self) -> bool:
        """Whether there is a starting model beside it to compare with."""
        return self.start is not None or isinstance(self.model, PeftModel)

    def measure(self, split: Split) -> tuple[Point, list[dict[str, Any]]]:
        """Its point and samples on a split of the spec's setting; closeness is to the starting model."""
        start = self.model if self.start is None else self.start
        reference = FrozenReference(start, {}, self.tokenizer.pad_token_id, frozen=True) if self.is_tuned else None
        return measure.measure(self.model, self.tokenizer, self.spec, split, reference=reference)

    def measure_start(self, split: Split) -> tuple[Point, list[dict[str, Any]]]:
        """The same of the starting model."""
        with self._start() as model:
            return measure.measure(model, self.tokenizer, self.spec, split)

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


def open_run(run_dir: Path, overrides: Sequence[str]) -> Opened:
    """The model of a finished run, and the model that it started from.

    Args:
        run_dir: Its directory.
        overrides: Of the run's config, e.g. `setting.num_test=50`.

    Raises:
        RecordError: the run is unfinished, or failed.
        ConfigError: its model or its starting model is missing, damaged or another one.
    """
    result = record.read(run_dir)
    if result.error:
        raise record.RecordError(f"run {result.run_id} failed ({result.error.message}), so there is no model of it.")
    spec = plan.parse_run(config.override(result.spec, overrides))
    start = starting.start(spec)
    if result.method == BASE:
        return Opened(spec, BASE, *_load(start.path, spec))
    path = str(run_dir / record.ADAPTER)
    try:
        intact.check_model(path)
    except intact.ModelError as error:
        raise ConfigError([str(error)]) from error
    model, tokenizer = _load(path, spec)
    strength = "" if spec.strength is None else f", {spec.strength_name} {spec.strength:g}"
    plain = isinstance(model, PeftModel) and not (Path(start.path) / models.ADAPTER_CONFIG).is_file()
    own_start = None if plain else _load(start.path, spec)[0]
    return Opened(spec, f"{spec.curve}{strength}, seed {spec.training.seed}", model, tokenizer, own_start)


def open_model(data: Mapping[str, Any], name: str, overrides: Sequence[str]) -> Opened:
    """Any model or adapter, to be measured on the setting that a config names.

    Args:
        data: A run's or sweep's config; its methods are ignored.
        name: Model or adapter directory, or hub id.
        overrides: Of the config.

    Raises:
        ConfigError: the config is wrong, or there is no such model.
    """
    kept = {key: value for key, value in data.items() if key not in ("seeds", "curves", "epochs", "curve", "budget")}
    spec = plan.parse_run(config.override({**kept, "method": BASE, "model": name}, overrides))
    return Opened(spec, name, *_load(starting.start(spec).path, spec))


def _load(path: str, spec: RunSpec) -> tuple[Any, Any]:
    torch.manual_seed(spec.training.seed)
    return models.load(path, spec.model.dtype)
