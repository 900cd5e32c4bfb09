"""Full fine-tuning keeps one frozen copy in all, and off the model's device once what is asked of it is kept."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from selgen import tiny
from selgen.data.chat import collate, encode
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty
from selgen.methods.representation import Representation
from selgen.methods.task_only import TaskOnly
from selgen.reference import FrozenReference
from tiny_trainer import lora, trainer_for


def rows():
    return [encode(tiny.tokenizer(), e) for e in tiny.align_data()]


def tokens():
    return collate(rows(), range(3), 0)


def stored(shapes: set[torch.Size]) -> int:
    """Bytes of all tensors alive of these shapes that are weights, each storage once; gradients are freed before."""
    gc.collect()
    found = {}
    for thing in gc.get_objects():  # isinstance would wake lazy objects of torch's
        if issubclass(type(thing), torch.Tensor) and thing.shape in shapes and thing.dtype == torch.float32:
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@pytest.mark.parametrize(
    "method", [TaskOnly(), KLPenalty(1.0), DPO(0.1), Representation(1.0)], ids=lambda m: type(m).__name__
)
def test_there_is_one_copy_of_the_weights_and_none_with_an_adapter(tmp_path, method):
    large = [
        p for p in tiny.model().parameters() if p.dim() == 2 and len(p) >= 16
    ]  # kept hidden states have fewer rows
    shapes, size = {p.shape for p in large}, sum(p.nbytes for p in large)
    del large
    before = stored(shapes)
    trainer = trainer_for(tmp_path / "full", method, optim="sgd", max_steps=1)
    trainer.train()
    trainer.model.zero_grad()
    assert trainer.update_norm() > 0
    trainer.optimizer = trainer.lr_scheduler = None
    assert stored(shapes) - before == 2 * size
    del trainer
    before = stored(shapes)
    trainer = trainer_for(tmp_path / "lora", method, lora(), optim="sgd", max_steps=1)
    trainer.train()
    assert stored(shapes) - before == size


def test_the_length_of_the_update_is_read_from_the_copy(tmp_path):
    trainer = trainer_for(tmp_path, KLPenalty(1.0), max_steps=2)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = sum(
        float((p.detach() - start[name]).double().square().sum()) for name, p in trainer.model.named_parameters()
    )
    assert trainer.update_norm() == pytest.approx(moved**0.5, rel=1e-6)
    assert all(torch.equal(trainer.reference.start[name], value) for name, value in start.items())


class Moves:
    """Where a reference's copy, and its head alone, were sent: there is one device here, so that nothing moves."""

    def __init__(self, reference: FrozenReference, monkeypatch) -> None:
        self.seen: list[tuple[str, str]] = []
        whole, head, plain = reference._model, reference._model.get_output_embeddings(), nn.Module.to

        def to(module, device, *args, **kwargs):
            if module is whole or module is head:
                self.seen.append(("whole" if module is whole else "head", str(device)))
            return plain(module, device, *args, **kwargs)

        monkeypatch.setattr(nn.Module, "to", to)
        monkeypatch.setattr(type(whole), "to", to)

    def since(self) -> list[tuple[str, str]]:
        seen, self.seen = self.seen, []
        return seen


def test_the_copy_leaves_the_device_when_all_is_kept_and_comes_back_for_the_rest(monkeypatch):
    """The trained model is told to be on `cpu:0`, which is what comes back, and parking is on `cpu`."""
    monkeypatch.setattr(FrozenReference, "_device", property(lambda self: torch.device("cpu", 0)))
    reference = FrozenReference(tiny.model(), {"align": rows()}, 0)
    moves = Moves(reference, monkeypatch)
    reference.precompute("align")
    assert moves.since() == [("whole", "cpu:0")]
    reference.park()
    assert moves.since() == [("whole", "cpu")]
    hidden = reference.hidden(tokens())
    assert moves.since() == [], "kept values need no model"
    reference.head(hidden)
    assert moves.since() == [("head", "cpu")], "the head goes where the hidden states are, alone"
    reference.logprobs(tokens())
    assert moves.since() == [("whole", "cpu:0")], "not kept: computed by the whole copy"


@pytest.mark.parametrize("what", ["hidden", "layers"])
def test_a_copy_that_is_asked_at_every_step_stays(monkeypatch, what):
    reference = FrozenReference(tiny.model(), {"align": rows()}, 0, use_cache=False)
    reference.precompute("align", what)
    getattr(reference, what)(tokens())
    moves = Moves(reference, monkeypatch)
    reference.park()
    getattr(reference, what)(tokens())
    assert moves.since() == []


def test_a_copy_that_nobody_asks_never_comes(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, TaskOnly(), max_steps=1)
    moves = Moves(trainer.reference, monkeypatch)
    trainer.train()
    assert ("whole", str(trainer.model.device)) not in moves.since()[1:] and trainer.reference._parked
