"""Within one run: the only place that wires setting, model, method, training and evaluation together."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from selgen import adapters, card, launch, models, plan, ranks, reading, record, served, shortage, starting
from selgen.core import BASE, PostHoc
from selgen.measure import measure, semantic_distances
from selgen.plan import Job, Start
from selgen.points import remarks
from selgen.record import ADAPTER, Failure, Point, RunRecord
from selgen.reference import FrozenReference
from selgen.spec import RunSpec, make_judge, make_method, make_setting
from selgen.train import SelectiveConfig, SelectiveTrainer

CHECKPOINTS = "checkpoints"
COMPLETE = "complete"
"""Empty file in a checkpoint directory, made when all others are written: one without it was cut short."""


GATHERED = "gathered"
"""What processes of which each has a part of the weights save together, to be measured; gone when it is."""


class ParentFailed(RuntimeError):
    """There is no finished run to start from or to act on."""


Progress = Callable[[int], None]
"""Told how many units of work (`Job.work`) were just done."""


class Work(TrainerCallback):
    """One run in progress: evaluates at the chosen steps, and writes what is logged and measured as it comes."""

    def __init__(self, job: Job, run_dir: Path, progress: Progress) -> None:
        self.job, self.spec, self.dir, self.progress = job, job.spec, run_dir, progress
        self.steps_per_epoch = job.size.steps_per_epoch
        last = job.size.steps
        self.measured_steps = {e * self.steps_per_epoch for e in job.spec.epochs or []} - {last}
        self.start = job.start
        self.stage: shortage.Stage = "loading"
        self.loaded: dict[str, Any] = {}
        self.model: Any = None
        self.tokenizer: Any = None
        self.reference: FrozenReference | None = None
        self.judge = make_judge(job.spec.judge)
        self.sequences: int | None = None
        self.update_norm: float | None = None
        self.transformed: dict[str, Any] = {}
        self.distances: dict[str, float] = {}
        self.answered: dict[str, Any] = {}
        self.train_seconds: float | None = None
        self._update_norm: Callable[[], float] = lambda: 0.0
        self._save: Callable[[str], None] = lambda directory: None
        self._seconds_before = 0.0
        self._clock = 0.0
        self._seen = 0

    def carry_out(self, checkpoint: Path | None) -> None:
        plan.check_data(self.job)
        self._clock = time.perf_counter()
        self.start = self._find_start()
        if self.spec.method["name"] == BASE or self.job.parent is not None:
            ranks.first(self._carry_out_untrained)
            return
        self._load()
        self._train(checkpoint)

    def _load(self) -> None:
        self.model, self.tokenizer = models.load(self.start.path, **self.spec.model.loading())
        self.loaded = models.described(self.model)

    def _carry_out_untrained(self) -> None:
        self._load()
        if torch.cuda.is_available() and self.spec.model.quantization is None:
            self.model.to("cuda")  # what is trained, the trainer moves; quantized weights are there
        if self.job.parent is not None:
            self._transform(self.job.parent)
            return
        self.sequences, self.update_norm, self.train_seconds = 0, 0.0, 0.0
        self._measure(0, self.start.path)
        self._measure_distances()

    def _find_start(self) -> Start:
        """The weights that it starts from: planned ones, or what the run before left on top of them."""
        if self.job.first is None:
            return self.job.start
        _, adapter = _read_result(self.dir.parent / self.job.first, "the run that it starts from")
        return starting.on_top(self.job.start, adapter)

    def _transform(self, parent: str) -> None:
        """Change the parent's trained adapter. Rows seen and steps are the parent's, seconds are its own."""
        before, adapter = _read_result(self.dir.parent / parent, "its parent run", self.spec.parent_epoch)
        self._clock = time.perf_counter()
        method = make_method(self.spec.method)
        assert isinstance(method, PostHoc)
        self.model, below = models.reopen(self.model, adapter)
        self.transformed = {"transform": dict(method.transform(self.model, self.start))}
        self.train_seconds = self._train_seconds_so_far()
        last = max(point.step or 0 for point in before.points)
        step = last if self.spec.parent_epoch is None else self.spec.parent_epoch * self.steps_per_epoch
        self.sequences = before.sequences if step == last else reading.row_plan(self.spec).num_sequences(step)
        self.update_norm = adapters.update_norm(self.model, {})
        self.reference = FrozenReference(self.model, {}, self.tokenizer.pad_token_id, frozen=True)
        models.save(self.model, self.tokenizer, self.dir / ADAPTER, below)
        self._measure(step, str(self.dir / ADAPTER))
        card.write(self.dir / ADAPTER, self.job, self.points())

    def _train(self, checkpoint: Path | None) -> None:
        logged = record.read_metrics(self.dir)
        self._seconds_before = logged[-1]["seconds"] if logged else 0.0
        self._clock = time.perf_counter()
        sets = reading.load_sets(self.spec.setting, self.spec.training.seed)
        self.stage = "training"
        lora = self.spec.lora and models.lora_config(self.spec.lora.model_dump())
        trainer = SelectiveTrainer(
            self.model,
            _training_arguments(self.spec, self.dir),
            sets["task"],
            sets["align"],
            method=make_method(self.spec.method),
            peft_config=lora,
            processing_class=self.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        self.reference = trainer.reference
        self._update_norm, self._save = trainer.update_norm, trainer.save_model
        if self.spec.evaluation.endpoint is not None:
            # A server that refuses the adapter should do so now, and not after hours of training.
            self._save(str(untrained := self.dir / CHECKPOINTS / "untrained"))
            ranks.first(lambda: self._try_server(str(untrained)))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.train_seconds = self._train_seconds_so_far()
        self.model = trainer.model
        self.sequences, self.update_norm = trainer.num_sequences, self._update_norm()
        self._save(str(self.dir / ADAPTER))
        self.measure(trainer.state.global_step, str(self.dir / ADAPTER))
        self._describe(self.dir / ADAPTER)

    def _try_server(self, untrained: str) -> None:
        with self._answering(untrained, 0):
            pass

    def _describe(self, directory: Path) -> None:
        """Write the card of a model that was saved and measured."""
        ranks.first(lambda: card.write(directory, self.job, self.points()))

    def _train_seconds_so_far(self) -> float:
        return self._seconds_before + time.perf_counter() - self._clock

    def measure(self, step: int, saved: str) -> None:
        """Let the first process evaluate the model as it is.

        Args:
            saved: Where it lies: its directory or hub id.
        """
        if launch.sharding():
            self._save(str(self.dir / GATHERED))
            ranks.first(lambda: self._measure_gathered(step, saved))
        else:
            ranks.first(lambda: self._measure(step, saved))

    def _measure_gathered(self, step: int, saved: str) -> None:
        """Evaluate what the processes, of which each has a part of the weights, have just saved together."""
        kept, gathered, before = (self.model, self.reference), self.dir / GATHERED, self.stage
        self.stage = "gathering"
        try:
            self.model, _ = models.load(gathered, **self.spec.model.loading())
            # An adapter's model is the reference where that is off.
            frozen = self.model if self.spec.lora else models.load(self.start.path, **self.spec.model.loading())[0]
            for model in {self.model, frozen} if torch.cuda.is_available() else ():
                model.to("cuda")
            self.reference = FrozenReference(frozen, {}, self.tokenizer.pad_token_id, frozen=True)
            self._measure(step, saved)
            self.stage = before
        finally:
            self.model, self.reference = kept
            shutil.rmtree(gathered, ignore_errors=True)

    def _measure(self, step: int, saved: str) -> None:
        """Evaluate on every split and append the points."""
        before, self.stage = self.stage, "measuring"
        with self._answering(saved, step) as source:
            self.answered = dict(source.provenance)
            for split in self.spec.evaluation.splits:
                point, samples = measure(
                    self.model,
                    self.tokenizer,
                    self.spec,
                    split,
                    step=step,
                    epoch=step / self.steps_per_epoch,
                    reference=self.reference,
                    judge=self.judge,
                    answers=source.answers,
                )
                record.append_jsonl(record.samples_path(self.dir, split), samples)
                record.append_jsonl(self.dir / record.POINTS, [point.model_dump(mode="json")])
                self.progress(len(samples))
        self.stage = before
        if self.reference is not None:
            self.reference.park()  # measuring asks it about texts that are not kept

    def _answering(self, saved: str, step: int) -> AbstractContextManager[served.Source]:
        return served.answering(self.spec.evaluation.endpoint, saved, f"selgen-{self.job.run_id}-{step}")

    def _measure_distances(self) -> None:
        seed = self.spec.training.seed
        align = reading.load_sets(self.spec.setting, seed)["align"]
        evals = make_setting(self.spec.setting).evals(seed, "test")
        self.distances = semantic_distances(self.model, self.tokenizer, align, evals)

    def points(self) -> list[Point]:
        """What was measured so far, before an interruption too."""
        path = self.dir / record.POINTS
        return [Point.model_validate(row) for row in record.read_jsonl(path)] if path.is_file() else []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        done = round(self.job.size.sequences * state.global_step / self.job.size.steps)
        self.progress(done - self._seen)
        self._seen = done
        if state.global_step in self.measured_steps:
            started = time.perf_counter()
            self.model = kwargs["model"]
            directory = record.adapter_dir(self.dir, state.global_step // self.steps_per_epoch)
            if self.spec.lora is not None:  # whole models of every epoch would fill the disk
                self._save(str(directory))
            self.measure(state.global_step, str(directory))
            if self.spec.lora is not None:
                self._describe(directory)
            self._clock += time.perf_counter() - started

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            norm, seconds = self._update_norm(), self._train_seconds_so_far()
            row = {"step": state.global_step, **logs, "update_norm": norm, "seconds": seconds}
            if ranks.is_first():
                record.append_jsonl(self.dir / record.METRICS, [row])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        ranks.gather(None)  # each process saves its random state
        if ranks.is_first():
            (self.dir / CHECKPOINTS / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def record(self, failure: Failure | None, made_by: dict[str, Any]) -> RunRecord:
        """What the run came to."""
        spec, points = self.spec, self.points()
        kept: dict[str, Any] = {"model": self.loaded} if self.loaded else {}
        kept |= {"reference": self.reference.kept} if self.reference else {}
        if self.answered:
            kept["answers"] = self.answered
        if ranks.count() > 1:
            kept["processes"] = ranks.count()
        if self.judge:
            kept["judge"] = dict(self.judge.usage)
        return RunRecord(
            run_id=self.job.run_id,
            status="failed" if failure else "success",
            error=failure,
            setting=spec.setting["name"],
            proxy=str(spec.setting["proxy"]) if "proxy" in spec.setting else None,
            model=spec.model.name,
            method=spec.method["name"],
            curve=str(spec.curve),
            strength_name=spec.strength_name,
            strength=spec.strength,
            seed=spec.training.seed,
            parent=self.job.parent,
            first=self.job.first,
            num_task=self.job.size.num_task,
            num_alignment=self.job.size.num_alignment,
            sequences=self.sequences,
            train_seconds=self.train_seconds,
            update_norm=self.update_norm,
            budget=spec.budget,
            flags=_flags(self.job, points, self.update_norm),
            spec=spec.model_dump(mode="json"),
            provenance=made_by | kept | self.transformed,
            points=points,
            control=spec.method["name"] != BASE and make_method(spec.method).control,
            distances=self.distances,
        )


def _read_result(run_dir: Path, what: str, epoch: int | None = None) -> tuple[RunRecord, Path]:
    """The record of a run and the directory of the adapter that it left.

    Args:
        what: What it is to the run that needs it, for messages.
        epoch: After which the adapter was kept; None for the one at the end.

    Raises:
        ParentFailed: it left none.
    """
    name = run_dir.name
    if not record.is_finished(run_dir):
        raise ParentFailed(f"{what} {name} is unfinished. Carry that run out first.")
    found = record.read(run_dir)
    if found.error:
        raise ParentFailed(f"{what} {name} failed: {found.error.message}")
    adapter = record.adapter_dir(run_dir, epoch)
    if not adapter.is_dir():
        which = "the adapter" if epoch is None else f"the adapter after epoch {epoch}"
        raise ParentFailed(f"{which} of {what} {name} is gone. Copy it back, or run that one again.")
    return found, adapter


def _training_arguments(spec: RunSpec, run_dir: Path) -> SelectiveConfig:
    training, save_steps = spec.training, spec.training.save_steps
    size, number = launch.shares(
        training.per_device_train_batch_size, training.gradient_accumulation_steps, ranks.count()
    )
    shared: dict[str, Any] = {"per_device_train_batch_size": size, "gradient_accumulation_steps": number}
    return SelectiveConfig(
        output_dir=str(run_dir / CHECKPOINTS),
        **training.model_dump(exclude={"save_steps"}) | shared,
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        use_cpu=not (torch.accelerator if ranks.count() == 1 else torch.cuda).is_available(),  # else bf16 is refused
    )


def _flags(job: Job, points: list[Point], update_norm: float | None) -> list[str]:
    size = job.size
    large = size.num_alignment > reading.LARGEST_ALIGNMENT * size.num_task
    flags = [f"large alignment set: {size.num_alignment} rows for {size.num_task} task rows"] if large else []
    if update_norm == 0 and job.spec.method["name"] != BASE and job.parent is None:
        flags.append("training changed no weight; are there as few optimizer steps as warm-up steps?")
    setting, spec = make_setting(job.spec.setting), job.spec
    judged = setting.evals(spec.training.seed, points[0].split) if spec.judge and points else []
    return flags + setting.remarks() + remarks(points, judged)
