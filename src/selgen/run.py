"""RunSpec -> RunRecord: the only place that wires setting, model, method, training and evaluation together."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback

from selgen import card, models, plan, provenance, record, starting
from selgen.core import BASE
from selgen.lm import FrozenReference
from selgen.measure import measure, remarks
from selgen.plan import Job
from selgen.record import ADAPTER, Failure, Point, RunRecord
from selgen.spec import RunSpec, make_method, make_setting
from selgen.train import NonFiniteError, SelectiveConfig, SelectiveTrainer

CHECKPOINTS = "checkpoints"
COMPLETE = "complete"
"""Empty file in a checkpoint directory, made when all others are written: one without it was cut short."""
Progress = Callable[[int], None]
"""Told how many units of work (`Job.work`) were just done."""


def run(spec: RunSpec, out_dir: Path) -> RunRecord:
    """Carry out one run, or read its record if it is finished; an interrupted one resumes from its last checkpoint.

    Args:
        spec: What to run.
        out_dir: The run's directory is made inside, under its run id.

    Raises:
        ConfigError: its model cannot be found or made, or does not fit the data.
    """
    start = starting.start(spec)
    starting.check_texts([spec], start)
    return execute(plan.job(spec, start), out_dir)


def execute(job: Job, out_dir: Path, progress: Progress = lambda units: None) -> RunRecord:
    """Carry out a planned run; a failure is recorded and not raised.

    Only one process can be at it: a second one waits and then reads the record.
    """
    run_dir = out_dir / job.run_id
    run_dir.mkdir(parents=True, exist_ok=True)
    with record.locked(run_dir, wait=True):
        if record.is_finished(run_dir):
            return record.read(run_dir)
        started = provenance.now()
        checkpoint = _resume_point(run_dir, job.size.steps)
        record.write_atomic(run_dir / record.SPEC, yaml.safe_dump(job.spec.model_dump(mode="json"), sort_keys=False))
        work = _Run(job, run_dir, progress)
        try:
            work.carry_out(checkpoint)
            failure = None
        except NonFiniteError as error:
            failure = Failure(type="NonFiniteError", message=str(error), step=error.step, term=error.term)
        except Exception as error:
            (run_dir / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            failure = Failure(type=type(error).__name__, message=str(error))
        result = work.record(failure, provenance.collect(started))
        shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)
        record.write(run_dir, result)
        (run_dir / record.POINTS).unlink(missing_ok=True)
    return result


def _resume_point(run_dir: Path, last_step: int) -> Path | None:
    """The last whole checkpoint, with everything logged after it dropped; None, and a clean directory, without one."""
    found = [(int(p.name.split("-")[1]), p) for p in (run_dir / CHECKPOINTS).glob("checkpoint-*")]
    whole = sorted((step, p) for step, p in found if (p / COMPLETE).is_file())
    if not whole:
        for path in run_dir.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return None
    step, checkpoint = whole[-1]
    for _, path in found:
        if path != checkpoint:
            shutil.rmtree(path)
    for draft in run_dir.glob(".*.tmp"):
        draft.unlink()
    for path in run_dir.glob("*.jsonl"):
        # The last step is measured when training is over, so after its checkpoint.
        record.truncate_jsonl(path, step if path.name == record.METRICS else min(step, last_step - 1))
    return checkpoint


class _Run(TrainerCallback):
    """One run in progress: evaluates at the chosen steps, and writes what is logged and measured as it comes."""

    def __init__(self, job: Job, run_dir: Path, progress: Progress) -> None:
        self.job, self.spec, self.dir, self.progress = job, job.spec, run_dir, progress
        self.steps_per_epoch = job.size.steps_per_epoch
        last = job.size.steps
        self.measured_steps = {e * self.steps_per_epoch for e in job.spec.epochs or []} - {last}
        self.model: Any = None
        self.tokenizer: Any = None
        self.reference: FrozenReference | None = None
        self.sequences: int | None = None
        self.update_norm: float | None = None
        self.train_seconds: float | None = None
        self._update_norm: Callable[[], float] = lambda: 0.0
        self._seconds_before = 0.0
        self._clock = 0.0
        self._seen = 0

    def carry_out(self, checkpoint: Path | None) -> None:
        plan.check_data(self.job)
        self._clock = time.perf_counter()
        self.model, self.tokenizer = models.load(self.job.start.path, self.spec.model.dtype)
        if self.spec.method["name"] == BASE:
            self.sequences, self.update_norm, self.train_seconds = 0, 0.0, 0.0
            self.measure(0)
        else:
            self._train(checkpoint)

    def _train(self, checkpoint: Path | None) -> None:
        logged = record.read_metrics(self.dir)
        self._seconds_before = logged[-1]["seconds"] if logged else 0.0
        self._clock = time.perf_counter()
        sets = plan.load_sets(self.spec.setting, self.spec.training.seed)
        lora = self.spec.lora
        trainer = SelectiveTrainer(
            self.model,
            _training_arguments(self.spec, self.dir),
            sets["task"],
            sets["align"],
            method=make_method(self.spec.method),
            peft_config=LoraConfig(**lora.model_dump(), task_type="CAUSAL_LM") if lora else None,
            processing_class=self.tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(self)
        self.reference = trainer.reference
        self._update_norm = trainer.update_norm
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.train_seconds = self._train_seconds_so_far()
        self.model = trainer.model
        self.sequences, self.update_norm = trainer.num_sequences, self._update_norm()
        self.measure(trainer.state.global_step)
        trainer.save_model(str(self.dir / ADAPTER))
        card.write(self.dir / ADAPTER, self.job, self.points())

    def _train_seconds_so_far(self) -> float:
        return self._seconds_before + time.perf_counter() - self._clock

    def measure(self, step: int) -> None:
        """Evaluate the model as it is on every split and append the points."""
        for split in self.spec.evaluation.splits:
            point, samples = measure(
                self.model,
                self.tokenizer,
                self.spec,
                split,
                step=step,
                epoch=step / self.steps_per_epoch,
                reference=self.reference,
            )
            record.append_jsonl(record.samples_path(self.dir, split), samples)
            record.append_jsonl(self.dir / record.POINTS, [point.model_dump(mode="json")])
            self.progress(len(samples))

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
            self.measure(state.global_step)
            self._clock += time.perf_counter() - started

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            norm, seconds = self._update_norm(), self._train_seconds_so_far()
            row = {"step": state.global_step, **logs, "update_norm": norm, "seconds": seconds}
            record.append_jsonl(self.dir / record.METRICS, [row])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (self.dir / CHECKPOINTS / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def record(self, failure: Failure | None, made_by: dict[str, Any]) -> RunRecord:
        """What the run came to."""
        spec, points = self.spec, self.points()
        kept = {"reference": self.reference.kept} if self.reference else {}
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
            num_task=self.job.size.num_task,
            num_alignment=self.job.size.num_alignment,
            sequences=self.sequences,
            train_seconds=self.train_seconds,
            update_norm=self.update_norm,
            budget=spec.budget,
            flags=_flags(self.job, points, self.update_norm),
            spec=spec.model_dump(mode="json"),
            provenance=made_by | kept,
            points=points,
        )


def _training_arguments(spec: RunSpec, run_dir: Path) -> SelectiveConfig:
    save_steps = spec.training.save_steps
    return SelectiveConfig(
        output_dir=str(run_dir / CHECKPOINTS),
        **spec.training.model_dump(exclude={"save_steps"}),
        save_strategy="steps" if save_steps else "no",
        save_steps=save_steps or 500,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _flags(job: Job, points: list[Point], update_norm: float | None) -> list[str]:
    size = job.size
    large = size.num_alignment > plan.LARGEST_ALIGNMENT * size.num_task
    flags = [f"large alignment set: {size.num_alignment} rows for {size.num_task} task rows"] if large else []
    if update_norm == 0 and job.spec.method["name"] != BASE:
        flags.append("training changed no weight; are there as few optimizer steps as warm-up steps?")
    return flags + make_setting(job.spec.setting).remarks() + remarks(points)
