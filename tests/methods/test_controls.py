"""Controls: alignment answers exchanged, and random directions where a method takes the alignment data's."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import tiny_trainer
from kills import KillAt, Killed
from selgen import tiny
from selgen.adapters import lora_layers
from selgen.checks import Parent, losses_of, train_tiny
from selgen.lm import sequence_logprobs
from selgen.maths.gradients import dot, project_out
from selgen.maths.noise import gaussian_like
from selgen.methods.flipped import Flipped
from selgen.methods.mixed import Mixed
from selgen.methods.projection import Projection
from selgen.methods.safe_lora import SafeLoRA
from selgen.models import StoredWeights
from tiny_trainer import lora, same_weights


def trainer_for(directory, method, align=None, **config):
    return tiny_trainer.trainer_for(directory, method, peft_config=lora(), align=align, **config)


# -- flipped --


@pytest.mark.parametrize("rows", [None, 0.5, 2.0])
def test_flipped_is_mixed_on_data_whose_answers_are_exchanged(tmp_path, rows):
    """Bit for bit: the same rows at the same steps, and each wrong answer where the right one would be."""
    exchanged = [replace(e.with_completion(e.rejected), rejected=e.completion) for e in tiny.align_data()]
    flipped, mixed = trainer_for(tmp_path, Flipped(rows)), trainer_for(tmp_path, Mixed(rows), exchanged)
    flipped.train()
    mixed.train()
    assert losses_of(flipped) == losses_of(mixed) and same_weights(flipped, mixed)
    assert flipped.num_sequences == mixed.num_sequences


def test_the_chosen_answers_are_not_read(tmp_path):
    others = [e.with_completion("yes yes yes") for e in tiny.align_data()]
    one, other = trainer_for(tmp_path, Flipped()), trainer_for(tmp_path, Flipped(), others)
    one.train()
    other.train()
    assert same_weights(one, other)


def test_wrong_answers_become_likelier(tmp_path):
    """And the opposite of what `mixed` does to them."""

    def advantage(method):
        """Log-probability of the wrong answers less that of the right ones, in nats."""
        trainer = trainer_for(tmp_path, method, num_train_epochs=10)
        trainer.train()
        judge = trainer_for(tmp_path, _Both())
        batch = judge.train_dataset.collate([("align", i) for i in range(3)], 0)
        trainer.model.eval()
        with torch.no_grad():
            return sum(_logp(trainer.model, batch["rejected"])) - sum(_logp(trainer.model, batch["align"]))

    assert advantage(Flipped(2.0)) > advantage(Mixed(0.0)) + 1 > advantage(Mixed(2.0)) + 2


class _Both(Mixed):
    streams = ("task", "align", "rejected")


def _logp(model, tokens):
    return sequence_logprobs(model, tokens).tolist()


def test_flipped_needs_rejected_answers(tmp_path):
    without = [replace(e, rejected=None) for e in tiny.align_data()]
    with pytest.raises(
        ValueError, match="method Flipped needs a `rejected` answer in every alignment example, found 3"
    ):
        trainer_for(tmp_path, Flipped(), without)


# -- projection against a random direction --


class _Recorded(Projection):
    """Keeps each step's gradients, before and after."""

    def combine(self, grads):
        found = super().combine(grads)
        self.seen.append((self._step(), grads, found))
        return found


def recorded(tmp_path, **changes):
    method = _Recorded(against="random", **changes)
    method.seen = []
    trainer_for(tmp_path, method).train()
    return method.seen


def test_what_is_taken_out_is_one_random_direction_per_step(tmp_path):
    seen = recorded(tmp_path)
    assert [step for step, *_ in seen] == list(range(9))
    taken = [{n: grads["task"][n] - found[n] for n in found} for _, grads, found in seen]
    for (_, grads, found), part in zip(seen, taken, strict=True):
        assert set(grads) == {"task"}
        length = math.sqrt(dot(part, part).item())
        whole = math.sqrt(dot(grads["task"], grads["task"]).item())
        assert 0 < length < 0.2 * whole  # in d dimensions about whole / sqrt(d), here d = 2,048
        assert abs(dot(found, part).item()) < 1e-4 * length * whole
    for one, other in pairwise(taken):
        cosine = dot(one, other).item() / math.sqrt(dot(one, one).item() * dot(other, other).item())
        assert abs(cosine) < 0.2


def test_it_reads_no_alignment_data(tmp_path):
    with_data, without = trainer_for(tmp_path, Projection(against="random")), train_tiny(Projection(against="random"))
    assert set(with_data.train_dataset.streams) == {"task"}
    assert without.num_sequences == 14  # four steps: 10 rows, then 4


def test_other_seeds_draw_other_directions(tmp_path):
    one, same, other = (trainer_for(tmp_path, Projection(against="random"), seed=s, data_seed=1) for s in (1, 1, 2))
    gradient = {"a": torch.ones(50)}
    for trainer in (one, same, other):
        trainer.train()
    combined = [t.method.combine({"task": gradient})["a"] for t in (one, same, other)]
    assert torch.equal(combined[0], combined[1]) and not torch.equal(combined[0], combined[2])


@pytest.mark.parametrize("method", [Projection(against="random"), Projection(scope="tensor", against="random")])
def test_directions_are_the_same_after_an_interruption(tmp_path, method):
    config = {"save_strategy": "steps", "save_steps": 1}
    whole = trainer_for(tmp_path / "whole", method, **config)
    whole.train()
    with pytest.raises(Killed):
        trainer_for(tmp_path / "killed", method, callbacks=[KillAt(5)], **config).train()
    resumed = trainer_for(tmp_path / "killed", method, **config)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole, resumed)


def test_in_one_dimension_nothing_would_be_left():
    """Which is why the control needs many: project_out does take the direction out."""
    left = project_out({"a": torch.tensor([3.0])}, {"a": torch.tensor([-0.7])})["a"]
    assert left.item() == pytest.approx(0, abs=1e-6)


def test_other_directions_are_refused():
    with pytest.raises(ValueError, match="method.against should be one of alignment, random, found 'noise'"):
        Projection(against="noise")


# -- safe_lora with a random matrix --


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Parent:
    return Parent.make(tmp_path_factory.mktemp("parent"))


def ratios(parent, method):
    """Module -> |P B|_F / |B|_F of the projected ones, and what the method says."""
    before, after = parent.open(), parent.open()
    said = method.transform(after, parent)
    found = {}
    for (name, old), (_, new) in zip(lora_layers(before), lora_layers(after), strict=True):
        if name in said["projected"]:
            b, changed = old.lora_B["default"].weight, new.lora_B["default"].weight
            found[name] = (changed.norm() / b.norm()).item()
    return found, said


def test_a_random_projector_is_not_alignments_and_has_its_size(parent):
    """B becomes P B with P = V V^T / |V|_F: twice as large a V would double it, so sizes are comparable."""
    own, said = ratios(parent, SafeLoRA(k=14))
    drawn, other = ratios(parent, SafeLoRA(k=14, projector="random"))
    assert set(own) == set(drawn) and len(own) == 14
    assert all(said["cosines"][name] != other["cosines"][name] for name in own)
    for name, ratio in own.items():
        assert drawn[name] == pytest.approx(ratio, rel=0.8)


def test_the_drawn_matrix_depends_on_the_module_alone(parent):
    one, same = (ratios(parent, SafeLoRA(k=k, projector="random")) for k in (14, 5))
    assert one[1]["cosines"] == same[1]["cosines"]
    assert len({round(c, 6) for c in one[1]["cosines"].values()}) == 14
    assert all(one[0][name] == same[0][name] for name in same[0])


def test_a_random_projector_by_hand(parent):
    """V drawn again here, scaled to the length of what alignment did, and every matrix formed."""
    before, after = parent.open(), parent.open()
    SafeLoRA(k=14, projector="random").transform(after, parent)
    for (name, old), (_, new) in zip(lora_layers(before), lora_layers(after), strict=True):
        moved = StoredWeights(parent.path).read(name) - StoredWeights(parent.pretrained).read(name)
        v = gaussian_like(moved, name).double()
        v *= moved.double().norm() / v.norm()
        expected = v @ v.T / v.norm() @ old.lora_B["default"].weight.double()
        torch.testing.assert_close(new.lora_B["default"].weight.double(), expected, rtol=1e-4, atol=1e-6)


def test_other_projectors_are_refused():
    with pytest.raises(ValueError, match="method.projector should be one of alignment, random, found 'zeros'"):
        SafeLoRA(projector="zeros")
