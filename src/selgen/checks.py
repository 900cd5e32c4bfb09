"""Conformance tests for authors of methods and settings: what every one must satisfy, on a tiny model, in seconds."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn import functional as F

from selgen import registry, texts, tiny
from selgen.averages import drawn
from selgen.core import TASK_ONLY, Batch, Method, PostHoc, Setting, Stream, Tokens
from selgen.lm import unwrap
from selgen.train import SelectiveConfig, SelectiveTrainer

STEPS = 4


def check_method(method: Method) -> list[str]:
    """Run every conformance check on a method; returns the names of the checks that applied and passed.

    Args:
        method: An instance at a strength at which all its terms act.

    Raises:
        AssertionError: the first check that fails, with what was expected and found.
    """
    if isinstance(method, PostHoc):
        return _check_post_hoc(method)
    checks: list[Callable[[Method], bool]] = [
        _trains_only_what_it_declares,
        _is_deterministic,
        _ignores_padding,
        _accumulates_exactly,
        _neutral_is_its_baseline,
        _reads_only_its_streams,
        _round_trips_through_json,
        _refuses_bad_input,
    ]
    return [check.__name__.strip("_") for check in checks if check(method)]


def check_setting(setting: Setting, seed: int = 0) -> list[str]:
    """Data and evals of a setting: deterministic, JSON-able, disjoint prompts, scored gold answers.

    Raises:
        AssertionError: the first check that fails.
    """
    first, again = setting.train(seed), setting.train(seed)
    assert first == again, "train(seed) should give the same examples each time"
    assert first["task"], "train(seed)['task'] should not be empty"
    trained = {_text(e.prompt) for examples in first.values() for e in examples}
    seen: dict[str, set[str]] = {}
    for split in ("val", "test"):
        evals = setting.evals(seed, split)
        columns = [e.column for e in evals]
        assert len(set(columns)) == len(columns), f"evals of {split} should have distinct columns, found {columns}"
        missing = {e.given for e in evals if e.given} - set(columns)
        assert not missing, f"`given` names evals that do not exist: {sorted(missing)}"
        seen[split] = {_text(x.prompt) for e in evals for x in e.examples}
        leaked = seen[split] & trained
        assert not leaked, f"{len(leaked)} prompts of {split} occur in training, e.g. {min(leaked)!r}"
        for e in evals:
            json.dumps([dict(x.meta) for x in e.examples])
            if e.kind == "likelihood" or e.of:  # no text is scored, or not here
                continue
            scorer = registry.load("scorers", e.scorer)()
            scores = scorer.score_many([(x, x.completion) for x in e.examples])
            if e.rate:  # what no text scorer reads is as good as it can be
                own = [{name: read(x.completion) for name, read in texts.MEASURES.items()} for x in e.examples]
                scores = [
                    drawn(replace(s, raw={**s.raw, **o, "nll": 0.0}), e.rate) for s, o in zip(scores, own, strict=True)
                ]
            wrong = [s for s in scores if s.value != 1.0]
            assert not wrong, f"{len(wrong)} gold answers of {e.column} ({split}) do not score 1, e.g. {wrong[0]}"
    both = seen["val"] & seen["test"]
    assert not both, f"{len(both)} prompts occur in val and in test, e.g. {min(both)!r}"
    return ["deterministic", "no_leak", "columns", "gold_scores_one", "val_test_disjoint"]


def train_tiny(
    method: Method, *, batch: int = 4, accumulation: int = 1, steps: int = STEPS, model: Any = None, **config: Any
) -> SelectiveTrainer:
    """A few steps of the real trainer on a tiny random model with a LoRA adapter; returns the finished trainer."""
    with tempfile.TemporaryDirectory() as directory:
        args = SelectiveConfig(
            **{
                "output_dir": directory,
                "max_steps": steps,
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "learning_rate": 1e-2,
                "report_to": [],
                "save_strategy": "no",
                "logging_steps": 1,
                "disable_tqdm": True,
                "use_cpu": True,
            }
            | config
        )
        trainer = SelectiveTrainer(
            tiny.model() if model is None else model,
            args,
            tiny.task_data(),
            tiny.align_data(),
            method=method,
            peft_config=_lora(),
            processing_class=tiny.tokenizer(),
            callbacks=[],
        )
        with _quiet():
            trainer.train()
    return trainer


def _lora() -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")


def model_of(trainer: SelectiveTrainer) -> nn.Module:
    """The trained model; Trainer types it as optional."""
    assert trainer.model is not None
    return trainer.model


def losses_of(trainer: SelectiveTrainer) -> list[float]:
    """The total loss of every step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _trains_only_what_it_declares(method: Method) -> bool:
    before = tiny.model().state_dict()
    trainer = train_tiny(method)
    inner = unwrap(trainer.model).state_dict()
    for name, value in before.items():
        now = inner.get(name, inner.get(f"{name.removesuffix('.weight')}.base_layer.weight"))
        assert now is not None and torch.equal(now, value), f"frozen weight {name} should not change"
    assert trainer.update_norm() > 0, "training should change the adapter"
    return True


def _is_deterministic(method: Method) -> bool:
    _assert_equal_weights(train_tiny(method), train_tiny(method), "two runs with one seed")
    return True


def _ignores_padding(method: Method) -> bool:
    trainer = train_tiny(method, steps=1)
    model_of(trainer).eval()
    batch: Batch = {s: _batch(trainer, s) for s in method.streams}
    padded_batch: Batch = {s: _pad(t) for s, t in batch.items()}
    with torch.no_grad():
        plain = method.losses(trainer.model, batch, trainer.reference)
        padded = method.losses(trainer.model, padded_batch, trainer.reference)
    for name, term in plain.items():
        torch.testing.assert_close(
            padded[name].total, term.total, rtol=1e-4, atol=1e-5, msg=f"padding changes term {name!r}"
        )
    return True


def _accumulates_exactly(method: Method) -> bool:
    whole, halves = train_tiny(method, batch=4), train_tiny(method, batch=2, accumulation=2)
    for a, b in zip(losses_of(whole), losses_of(halves), strict=True):
        assert abs(a - b) <= 1e-4 * max(abs(a), 1), f"1 x B should equal 2 x B/2, found losses {a} and {b}"
    return True


def _neutral_is_its_baseline(method: Method) -> bool:
    if method.neutral is None or method.strength is None:
        return False
    value, name = method.neutral
    neutral = dataclasses.replace(cast(Any, method), **{method.strength: value})
    baseline = registry.load("methods", name)()
    _assert_equal_weights(train_tiny(neutral), train_tiny(baseline), f"{method.strength}={value} and {name}")
    return True


def _reads_only_its_streams(method: Method) -> bool:
    read: set[Stream] = set()

    class Watched(dict):
        def __getitem__(self, stream: Stream) -> Tokens:
            read.add(stream)
            return super().__getitem__(stream)

    trainer = train_tiny(method, steps=1)
    batch: Batch = Watched({s: _batch(trainer, s) for s in method.streams})
    method.losses(trainer.model, batch, trainer.reference)
    assert read == set(method.streams), f"streams should be exactly those read: declared {method.streams}, read {read}"
    return True


def _round_trips_through_json(method: Method) -> bool:
    assert dataclasses.is_dataclass(method), "a method should be a dataclass: its fields are the hyper-parameters"
    fields = json.loads(json.dumps(dataclasses.asdict(method)))
    assert type(method)(**fields) == method, f"fields should survive JSON, found {fields}"
    return True


def _refuses_bad_input(method: Method) -> bool:
    strength = method.strength
    if strength in {f.name for f in dataclasses.fields(cast(Any, method))}:
        _assert_refused(lambda: type(method)(**{str(strength): -1.0}), strength)
    if {"align", "rejected"} & {*method.streams, *method.fits}:
        arguments = {"method": method, "processing_class": tiny.tokenizer()}
        with tempfile.TemporaryDirectory() as directory:
            args = SelectiveConfig(output_dir=directory, report_to=[], use_cpu=True)
            _assert_refused(
                lambda: SelectiveTrainer(tiny.model(), args, tiny.task_data(), [], **arguments), "alignment_dataset"
            )
    return True


@dataclass(frozen=True)
class Parent:
    """A finished run of `TASK_ONLY` on a tiny model, for post-hoc methods; made by `make`. A `core.Origin`.

    Attributes:
        path: Directory of the starting model.
        pretrained: Of another model of the same shapes, as it was before alignment.
        adapter: Of the trained adapter.
        first_epoch: Of the adapter as it was after the first epoch, which is the only one before the end.
        planned: Its numbers are there.
    """

    path: str
    pretrained: str
    adapter: str
    first_epoch: str
    planned: bool = False

    @classmethod
    def make(cls, directory: Path) -> Parent:
        start, pretrained, adapter, first = (
            str(directory / n) for n in ("start", "pretrained", "adapter", "first epoch")
        )
        made = cls(start, pretrained, adapter, first)
        tiny.model().save_pretrained(made.path)
        tiny.model(seed=1).save_pretrained(made.pretrained)
        task_only = registry.load("methods", TASK_ONLY)()
        trained = train_tiny(task_only, output_dir=str(directory / "run"), save_strategy="epoch")
        cast(PeftModel, trained.model).save_pretrained(made.adapter)
        shutil.move(directory / "run" / f"checkpoint-{trained.plan.steps_per_epoch}", made.first_epoch)
        return made

    def open(self, epoch: int | None = None) -> PeftModel:
        """The starting model with the trained adapter, at the end (None) or after epoch 1."""
        return PeftModel.from_pretrained(tiny.model(), self.adapter if epoch is None else self.first_epoch)

    def after(self, method: PostHoc) -> dict[str, torch.Tensor]:
        """The weights that a method makes of it."""
        model = self.open(method.parent_epoch)
        json.dumps(dict(method.transform(model, self)))
        return model.state_dict()


def _check_post_hoc(method: PostHoc) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        parent = Parent.make(Path(directory))
        method.check(get_peft_model(tiny.model().to("meta"), _lora()), parent)
        before, files = parent.open().state_dict(), _bytes(directory)
        after = parent.after(method)
        frozen = {name for name in before if ".lora_" not in name}
        _assert_equal(after, before, "the starting model before and after", frozen)
        assert any(not torch.equal(after[name], before[name]) for name in before), "the result should not be task-only"
        _assert_equal(parent.after(method), after, "two transformations of one adapter")
        assert _bytes(directory) == files, "no file of the parent or of the starting model should change"
        passed = ["changes_only_the_adapter", "is_deterministic", "leaves_the_parent_alone"]
        if method.neutral is not None and method.strength is not None:
            neutral = dataclasses.replace(cast(Any, method), **{method.strength: method.neutral[0]})
            _assert_equal(parent.after(neutral), before, f"{method.strength}={method.neutral[0]} and {TASK_ONLY}")
            passed.append("neutral_is_its_baseline")
    shared = [_round_trips_through_json, _refuses_bad_input]
    return passed + [check.__name__.strip("_") for check in shared if check(method)]


def _bytes(directory: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


def _assert_equal(
    a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], what: str, names: Iterable[str] | None = None
) -> None:
    for name in names or b:
        assert torch.equal(a[name], b[name]), f"{what} should end with bit-identical weights; {name} differs"


def _assert_refused(make: Callable[[], Any], field: str | None) -> None:
    try:
        make()
    except ValueError as error:
        assert str(field) in str(error), f"the message should name {field!r}, found: {error}"
        assert ". " in str(error), f"the message should end with a remedy, found: {error}"
    else:
        raise AssertionError(f"a bad {field!r} should be refused with a ValueError before training")


def _assert_equal_weights(a: SelectiveTrainer, b: SelectiveTrainer, what: str) -> None:
    _assert_equal(dict(model_of(a).named_parameters()), dict(model_of(b).named_parameters()), what)


def _batch(trainer: SelectiveTrainer, stream: Stream) -> Tokens:
    dataset: Any = trainer.train_dataset
    rows = range(min(3, len(dataset.streams[stream])))
    collated = dataset.collate([dataset[("align" if stream == "rejected" else stream, i)] for i in rows], pad_id=0)
    return collated[stream]


def _pad(tokens: Tokens, extra: int = 5) -> Tokens:
    return Tokens(
        F.pad(tokens.input_ids, (0, extra)),
        F.pad(tokens.attention_mask, (0, extra)),
        F.pad(tokens.labels, (0, extra), value=-100),
        tokens.ids,
    )


def _text(messages: Any) -> str:
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


@contextmanager
def _quiet() -> Iterator[None]:
    """Trainer prints its logs; a check's reader wants the failures only."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
