"""What each process does in tests of many processes; started by `torchrun`: a job's name and a directory.

The first process leaves what came out in the directory, for the test to compare with the same jobs in one process.
"""

from __future__ import annotations

import pkgutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from peft import load_peft_weights
from typer.testing import CliRunner

from fakes import fill_disk
from kills import KillAt, Killed
from selgen import launch, methods, ranks, registry, tiny
from selgen.adapters import whole
from selgen.cli import app
from selgen.core import Batch, Method, PostHoc, Reference, Term
from selgen.lm import cross_entropy
from selgen.maths import chunks
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty
from selgen.methods.mixed import Mixed
from selgen.methods.projection import Projection
from selgen.train import NonFiniteError, SelectiveConfig, SelectiveTrainer
from tiny_trainer import QUIET, lora

STEPS = 10
FIELDS = {"freeze": {"share": 0.5}}
"""Fields of methods whose defaults are refused on a model of two blocks."""


def trained_methods() -> dict[str, Method]:
    """Every method that trains, by name."""
    names = [m.name for m in pkgutil.iter_modules(methods.__path__) if not m.name.startswith("_")]
    classes = {name: registry.load("methods", name) for name in names}
    made = {n: c(**FIELDS.get(n, {})) for n, c in classes.items() if not issubclass(c, PostHoc)}
    return made | {"projection, random": Projection(against="random")}


def trainer_for(method: Method, micro_batches: int, rows: int = 8, adapter: bool = True, **changes: Any):
    """Ten steps of two rows times `micro_batches`, however many processes share them."""
    config = {"max_steps": STEPS, "per_device_train_batch_size": 2, "learning_rate": 1e-2, **QUIET} | changes
    config["gradient_accumulation_steps"] = micro_batches // ranks.count()
    return SelectiveTrainer(
        tiny.model(),
        SelectiveConfig(**{"output_dir": tempfile.mkdtemp()} | config),
        tiny.task_data(rows),
        tiny.align_data(3),
        method=method,
        peft_config=lora() if adapter else None,
        processing_class=tiny.tokenizer(),
    )


def result(trainer: SelectiveTrainer) -> dict[str, Any]:
    """Trained weights, and what was logged of each step."""
    logged = [
        {k: v for k, v in row.items() if k in ("loss", "grad_norm") or k.startswith("term/")}
        for row in trainer.state.log_history
        if "loss" in row
    ]
    weights = {n: whole(p.detach()) for n, p in trainer.model.named_parameters() if p.requires_grad}
    return {"weights": weights, "logged": logged, "update norm": trainer.update_norm()}


def train(*arguments: Any, **changes: Any) -> dict[str, Any]:
    trainer = trainer_for(*arguments, **changes)
    trainer.train()
    return result(trainer)


def equality() -> dict[str, Any]:
    """All methods without and with accumulation (2 and 4 micro-batches over two processes)."""
    found = {f"{name} {n}": train(method, n) for n in (2, 4) for name, method in trained_methods().items()}
    found["kl, rows that do not divide"] = train(KLPenalty(), 4, rows=11)
    found["kl, without padding"] = train(KLPenalty(), 4, rows=11, padding_free=True)
    found["kl, all weights"] = train(KLPenalty(), 2, adapter=False)
    return found


def in_parts() -> dict[str, Any]:
    """Methods that only add losses, each process with a part of the weights; all weights too, and what is saved."""
    if ranks.count() > 1:
        pretend_gpus()
    found: dict[str, Any] = {}
    for name, method in trained_methods().items():
        if launch.method_problem(method, name, "FSDP2") is None:
            found |= {f"{name} {n}": train(method, n) for n in (2, 4)}
    trainer = trainer_for(KLPenalty(), 4, rows=11)
    trainer.train()
    parts = [type(p).__name__ for p in trainer.model.parameters()]
    found["kl, rows that do not divide"] = result(trainer)
    directory = tempfile.mkdtemp()
    trainer.save_model(directory)
    if ranks.is_first():
        saved = load_peft_weights(directory, device="cpu")
        found["saved"] = {name.replace(".weight", ".default.weight"): tensor for name, tensor in saved.items()}
        found["in parts"] = parts.count("DTensor") / len(parts)
    found["kl, without padding"] = train(KLPenalty(), 4, rows=11, padding_free=True)
    whole_logits = chunks.CHUNK_ELEMENTS
    for size in (whole_logits, 100):  # of 3 tokens
        chunks.CHUNK_ELEMENTS = size
        for method, adapter in ((Mixed(), False), (KLPenalty(), False), (KLPenalty(), True), (DPO(), True)):
            name = f"{type(method).__name__}, chunks of {size}, {'adapter' if adapter else 'all weights'}"
            found[name] = train(method, 2, adapter=adapter)
    chunks.CHUNK_ELEMENTS = whole_logits
    return found


def pretend_gpus() -> None:
    """Let accelerate take the processes' CPUs for GPUs: it spreads weights over those alone, FSDP2 itself over any."""
    ask = SelectiveTrainer.create_accelerator_and_postprocess

    def pretending(self: SelectiveTrainer) -> None:
        PartialState().distributed_type = DistributedType.MULTI_GPU
        ask(self)

    SelectiveTrainer.create_accelerator_and_postprocess = pretending
    torch.accelerator.is_available = lambda: True


def command_in_parts() -> dict[str, Any]:
    """The command where each process has a part of the weights."""
    pretend_gpus()
    return _command()


def without_the_sum() -> dict[str, Any]:
    """What comes out if processes keep their gradients for themselves."""
    ranks.sum_gradients = lambda parameters, gradients: list(gradients)
    return train(KLPenalty(), 2)


def resumed() -> dict[str, Any]:
    """Killed in step 6, and gone on from the checkpoint of step 4."""
    where = Path(tempfile.gettempdir()) / "unused" if launch.world() == 1 else Path(sys.argv[2]) / "checkpoints"
    changes = {"output_dir": str(where), "save_strategy": "steps", "save_steps": 4}
    trainer = trainer_for(KLPenalty(), 4, **changes)
    trainer.add_callback(KillAt(6))
    try:
        trainer.train()
    except Killed:
        trainer = trainer_for(KLPenalty(), 4, **changes)
        trainer.train(resume_from_checkpoint=True)
    return result(trainer)


@dataclass
class FailsOnTheLast(Method):
    """A method whose term is not a number, or that raises, on the last process alone: in its third step, or before."""

    raises: bool = False
    early: bool = False
    streams = ("task",)

    def prepare(self, ctx: Any) -> None:
        if self.early and ranks.number() == ranks.count() - 1:
            raise MemoryError("no memory before the first step")

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        self.calls = getattr(self, "calls", 0) + 1
        term = cross_entropy(model, batch["task"])
        if self.calls < 3 or ranks.number() < ranks.count() - 1:
            return {"task": term}
        if self.raises:
            raise MemoryError("no memory here")
        return {"task": Term(term.total * float("nan"), "task_tokens")}


def failures() -> dict[str, Any]:
    """What each process raises where the last one fails."""
    found: dict[str, Any] = {}
    for name, raises, early in (("nan", False, False), ("raises", True, False), ("early", False, True)):
        try:
            train(FailsOnTheLast(raises, early), 4)
        except (NonFiniteError, MemoryError, launch.FailedElsewhere) as error:
            found[name] = ranks.gather(f"{type(error).__name__}: {error}")
    return found


def failures_in_parts() -> dict[str, Any]:
    """The same where each process has a part of the weights."""
    pretend_gpus()
    return failures()


def uneven() -> dict[str, Any]:
    """What each process hears where the last one comes to its end while the others still talk."""
    said = None
    try:
        if ranks.number() < ranks.count() - 1:
            ranks.gather("still here")
    except launch.FailedElsewhere as error:
        said = str(error)
    return {"said": ranks.at_the_end(said)}


def talk() -> dict[str, Any]:
    """The primitives themselves."""
    mine = torch.full((2,), float(ranks.number() + 1))
    there = [None, mine.clone(), mine.clone() if ranks.number() else None]
    summed = ranks.sum_gradients([torch.zeros(2)] * 3, there)
    ranks.BUCKET = 2
    found: dict[str, Any] = {"summed": summed, "by two": ranks.sum_gradients([mine, mine], [mine.clone(), mine * 10])}
    parameter = torch.full((3,), float(ranks.number()))
    ranks.equalise([parameter])
    found["equal"] = ranks.gather(parameter.tolist())
    found["first"] = ranks.gather(ranks.first(lambda: ranks.number() + 7))
    order = Path(sys.argv[2]) / "order"
    with ranks.local_first(), order.open("a") as file:
        file.write(f"{ranks.number()}")
    ranks.gather(None)
    found["order"] = order.read_text()
    return found


def full_disk() -> dict[str, Any]:
    """The command where the first process cannot write what it measured: each one's exit code and words."""
    if ranks.is_first():
        fill_disk("points.jsonl")
    return _command()


def _command() -> dict[str, Any]:
    ranks.stop = lambda: None  # what each said is still to be gathered
    where = Path(sys.argv[2])
    done = CliRunner().invoke(app, ["train", "-c", str(where / "run.yaml"), "--out", str(where / "out")])
    return {"said": ranks.gather((done.exit_code, done.output))}


JOBS = {
    job.__name__: job
    for job in (
        *(equality, in_parts, command_in_parts, without_the_sum, resumed, failures, failures_in_parts, talk, uneven),
        full_disk,
    )
}

if __name__ == "__main__":
    ranks.start()
    done = {name: JOBS[name]() for name in sys.argv[1].split(",")}
    if ranks.is_first():
        torch.save(done, Path(sys.argv[2]) / "done.pt")
    ranks.stop()
