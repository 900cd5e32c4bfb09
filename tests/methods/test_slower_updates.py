"""Methods that learn the task alone, but less of it: frozen blocks, a pull to the start, a lower rate."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from kills import KillAt, Killed
from selgen import models, plan, tiny
from selgen.checks import train_tiny
from selgen.core import Context
from selgen.lm import decoder_blocks
from selgen.methods.freeze import Freeze
from selgen.methods.l2_sp import L2SP
from selgen.methods.lower_lr import LowerLR
from selgen.methods.task_only import TaskOnly
from selgen.train import SelectiveConfig, SelectiveTrainer
from tiny_trainer import lora, same_weights, trainer_for


def batch(trainer, num=3):
    return trainer.train_dataset.collate([("task", i) for i in range(num)], 0)


# -- freeze --


@pytest.mark.parametrize(
    ("part", "share", "blocks", "frozen"),
    [
        ("last", 1 / 3, 3, [2]),
        ("first", 1 / 3, 3, [0]),
        ("middle", 1 / 3, 3, [1]),
        ("last", 2 / 3, 3, [1, 2]),
        ("middle", 0.5, 8, [2, 3, 4, 5]),
        ("last", 0.25, 36, list(range(27, 36))),
        ("first", 0.0, 3, []),
    ],
)
def test_a_share_is_counted_in_whole_blocks(part, share, blocks, frozen):
    assert list(Freeze(part, share).frozen(blocks)) == frozen


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["full", "lora"])
@pytest.mark.parametrize(("part", "frozen"), [("first", 0), ("last", 1)])
def test_frozen_blocks_keep_every_bit_and_all_else_trains(tmp_path, peft_config, part, frozen):
    """Under weight decay, which shrinks whatever the optimizer holds."""
    trainer = trainer_for(tmp_path, Freeze(part, 0.5), peft_config=peft_config, weight_decay=0.1)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    inside = {id(p) for p in decoder_blocks(trainer.model)[frozen].parameters()}
    trained = set()
    for name, parameter in trainer.model.named_parameters():
        if id(parameter) in inside:
            assert torch.equal(parameter, before[name]), name
        elif not torch.equal(parameter, before[name]):
            trained.add(name)
    other = f"layers.{1 - frozen}."
    assert any(other in name for name in trained)
    if peft_config is None:
        assert any("embed_tokens" in name for name in trained)


def test_frozen_blocks_stay_frozen_after_an_interruption(tmp_path):
    config = {"save_strategy": "steps", "save_steps": 1, "weight_decay": 0.1}
    whole = trainer_for(tmp_path / "whole", Freeze(share=0.5), lora(lora_dropout=0.1), **config)
    whole.train()
    with pytest.raises(Killed):
        trainer_for(
            tmp_path / "killed", Freeze(share=0.5), lora(lora_dropout=0.1), callbacks=[KillAt(2)], **config
        ).train()
    resumed = trainer_for(tmp_path / "killed", Freeze(share=0.5), lora(lora_dropout=0.1), **config)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole, resumed)
    assert [p.requires_grad for p in whole.model.parameters()] == [p.requires_grad for p in resumed.model.parameters()]


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_share_that_rounds_to_nothing_or_all_is_refused(tmp_path, share):
    with pytest.raises(ValueError, match=f"at least one block and not all, found {share}.* Choose one between 0.5 and"):
        trainer_for(tmp_path, Freeze(share=share), lora()).train()


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("adapter", [None, lora()])
def test_such_a_share_is_refused_before_anything_is_trained(model_dir, share, adapter):
    with pytest.raises(ValueError, match="method.share should freeze at least one block and not all"):
        Freeze(share=share).check(models.empty(str(model_dir), adapter), plan.Start("", ""))


def test_freezing_all_that_is_trained_is_refused(tmp_path):
    only_last = lora(target_modules=["q_proj"], layers_to_transform=[1])
    with pytest.raises(ValueError, match="should leave something to train, found 0.5 of 2 blocks.* Lower it"):
        trainer_for(tmp_path, Freeze("last", 0.5), only_last).train()


@pytest.mark.parametrize("fields", [{"part": "end"}, {"share": 1.0}, {"share": -0.1}])
def test_other_parts_and_shares_are_refused(fields):
    [(name, value)] = fields.items()
    with pytest.raises(ValueError, match=f"method.{name} should be .*, found '?{value}"):
        Freeze(**fields)


# -- l2_sp --


def penalty(method, trainer):
    return method.losses(trainer.model, batch(trainer), trainer.reference)["l2_sp"]


@pytest.mark.parametrize("peft_config", [None, lora(), lora(use_rslora=True)], ids=["full", "lora", "rslora"])
def test_the_penalty_is_half_the_squared_change_of_the_weights(tmp_path, peft_config):
    method = L2SP(0.3)
    trainer = trainer_for(tmp_path, method, peft_config=peft_config)
    trainer.train()
    term = penalty(method, trainer)
    start = tiny.model().state_dict()
    model = copy.deepcopy(trainer.model)
    end = (model if peft_config is None else model.merge_and_unload()).state_dict()
    square = sum((end[name].double() - start[name].double()).square().sum().item() for name in start)
    assert square > 0 and term.total.item() == pytest.approx(square / 2, rel=1e-4)
    assert (term.unit, term.weight) == ("one", 0.3)


def test_its_gradient_points_back_to_the_start(tmp_path):
    method = L2SP(1.0)
    trainer = trainer_for(tmp_path, method)
    trainer.train()
    gradients = torch.autograd.grad(penalty(method, trainer).total, list(trainer.model.parameters()))
    start = dict(tiny.model().named_parameters())
    for (name, parameter), gradient in zip(trainer.model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, parameter - start[name])


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["full", "lora"])
def test_a_larger_weight_moves_the_weights_less(tmp_path, peft_config):
    norms = []
    for weight in (0.0, 1.0, 100.0):
        trainer = trainer_for(tmp_path, L2SP(weight), peft_config=peft_config, max_steps=10)
        trainer.train()
        norms.append(trainer.update_norm())
    assert norms[0] > norms[1] > norms[2] > 0


def test_the_start_is_remembered_through_an_interruption(tmp_path):
    config = {"save_strategy": "steps", "save_steps": 1}
    whole = trainer_for(tmp_path / "whole", L2SP(1.0), **config)
    whole.train()
    with pytest.raises(Killed):
        trainer_for(tmp_path / "killed", L2SP(1.0), callbacks=[KillAt(2)], **config).train()
    resumed = trainer_for(tmp_path / "killed", L2SP(1.0), **config)
    resumed.train(resume_from_checkpoint=True)
    assert same_weights(whole, resumed)


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"target_modules": ["embed_tokens", "q_proj"]}])
def test_what_has_no_plain_update_is_refused(tmp_path, changes):
    trainer = trainer_for(tmp_path, L2SP(), lora(**changes))
    with pytest.raises(ValueError, match="linear layers only, without DoRA, for method l2_sp, found .* Set lora"):
        trainer.train()


# -- lower_lr --


def test_the_rate_is_multiplied_once_and_the_schedule_kept(tmp_path):
    rates = {}
    for method in (TaskOnly(), LowerLR(0.25)):
        trainer = trainer_for(tmp_path, method, lora())
        trainer.train()
        rates[type(method)] = [row["learning_rate"] for row in trainer.state.log_history if "learning_rate" in row]
    assert rates[LowerLR] == pytest.approx([0.25 * rate for rate in rates[TaskOnly]])
    assert rates[TaskOnly][0] == pytest.approx(1e-2)


def test_a_first_step_of_plain_gradient_descent_is_as_many_times_shorter():
    """A quarter is exact in binary, so to the last bit."""
    moved = {}
    for method in (TaskOnly(), LowerLR(0.25)):
        trainer = train_tiny(method, steps=1, optim="sgd", max_grad_norm=0.0)
        moved[type(method)] = {n: p.detach() for n, p in trainer.model.named_parameters() if ".lora_B." in n}
    assert any(bool(p.any()) for p in moved[TaskOnly].values())
    assert all(torch.equal(moved[LowerLR][name], 0.25 * p) for name, p in moved[TaskOnly].items())


def test_the_callers_arguments_are_left_alone(tmp_path):
    args = SelectiveConfig(output_dir=str(tmp_path), learning_rate=1e-2, report_to=[], use_cpu=True)
    for _ in range(2):
        trainer = SelectiveTrainer(
            tiny.model(), args, tiny.task_data(), method=LowerLR(0.5), processing_class=tiny.tokenizer()
        )
        assert (trainer.args.learning_rate, args.learning_rate) == (5e-3, 1e-2)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5])
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match=f"method.lr_scale should be > 0 and <= 1, found {scale}. Use 1 for"):
        LowerLR(scale)


def test_a_context_says_the_step(tmp_path):
    seen = []

    @dataclasses.dataclass
    class Watches(TaskOnly):
        def prepare(self, ctx: Context):
            self.step = ctx.step

        def losses(self, model, batch, ref):
            seen.append(self.step())
            return super().losses(model, batch, ref)

    trainer_for(tmp_path, Watches(), lora(), gradient_accumulation_steps=2, max_steps=2).train()
    assert seen == [0, 0, 1]  # 10 rows: two micro-batches of 4, then one of 2
