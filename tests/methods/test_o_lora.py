"""O-LoRA: the fitted adapter stays on and as it is, the task adapter is kept orthogonal to it, the sum is saved."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import TrainerCallback

from kills import KillAt, Killed
from selgen import adapters, tiny, train
from selgen.lm import adapter_off
from selgen.methods.o_lora import OLoRA
from selgen.methods.task_only import TaskOnly
from selgen.train import NonFiniteError, SelectiveConfig, SelectiveTrainer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def trainer_for(where, method, model=None, task=None, callbacks=None, lora=LORA, **changes):
    config = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2, "save_strategy": "no"}
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1}
    return SelectiveTrainer(
        tiny.model() if model is None else model,
        SelectiveConfig(output_dir=str(where), **quiet, **(config | changes)),
        tiny.task_data() if task is None else task,
        tiny.align_data(),
        method=method,
        peft_config=LoraConfig(**lora) if lora else None,
        processing_class=tiny.tokenizer(),
        callbacks=callbacks,
    )


def trained(*args, **changes):
    trainer = trainer_for(*args, **changes)
    trainer.train()
    return trainer


def weights(model, adapter):
    """The weights of one adapter, by name without the adapter's."""
    found = model.named_parameters()
    return {n.replace(f".{adapter}.", "."): p.detach().clone() for n, p in found if f".{adapter}." in n}


def logits(model):
    model.eval()
    with torch.no_grad():
        return model(tiny.tokenizer()("what is the capital of France ?", return_tensors="pt")["input_ids"]).logits


def assert_same_bits(a, b):
    assert a.keys() == b.keys() and a
    for name in a:
        assert torch.equal(a[name], b[name]), name


class AtStart(TrainerCallback):
    """Remembers both adapters when the alignment adapter is fitted and the task's first step is to come."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.fitted, self.own = weights(model, "align"), weights(model, "default")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trainer that has trained, and what it began with."""
    start = AtStart()
    return trained(tmp_path_factory.mktemp("finished"), OLoRA(0.5), callbacks=[start]), start


# -- the two terms --


@pytest.mark.parametrize("absolute", [False, True])
def test_the_terms_are_their_formulas(finished, absolute):
    """From both adapters' matrices, entry by entry, in float64."""
    trainer, _ = finished
    fitted, own = weights(trainer.model, "align"), weights(trainer.model, "default")
    total, modules = 0.0, [name for name in own if "lora_A" in name]
    for name in modules:
        for row in fitted[name].double().tolist():
            for other in own[name].double().tolist():
                product = sum(x * y for x, y in zip(row, other, strict=True))
                total += abs(product) if absolute else product**2
    norms = sum(sum(x**2 for x in p.double().flatten().tolist()) ** 0.5 for p in own.values())
    dataset = trainer.train_dataset
    batch = dataset.collate([dataset["task", i] for i in range(3)], 0)
    terms = OLoRA(0.5, absolute, l2=0.1).losses(trainer.model, batch, trainer.reference)
    assert len(modules) == 14
    assert terms["overlap"].total.item() == pytest.approx(total, rel=1e-5)
    assert terms["l2"].total.item() == pytest.approx(norms, rel=1e-5)
    assert [(terms[n].weight, terms[n].unit) for n in ("task", "overlap", "l2")] == [
        (1.0, "task_tokens"),
        (0.5, "one"),
        (0.1, "one"),
    ]
    assert set(OLoRA().losses(trainer.model, batch, trainer.reference)) == {"task", "overlap"}


def test_a_larger_weight_leaves_less_overlap(tmp_path):
    runs = [trained(tmp_path, OLoRA(weight)) for weight in (0.0, 0.01, 1.0)]
    last = [run.state.log_history[-2]["term/overlap"] for run in runs]
    assert last[0] > 1.1 * last[1] > 1.2 * last[2]


@pytest.mark.parametrize("field", ["weight", "l2"])
def test_a_negative_weight_is_refused(field):
    with pytest.raises(ValueError, match=rf"method.{field} should be >= 0, found -1. Use 0 to leave it out"):
        OLoRA(**{field: -1})


# -- what is trained when --


@pytest.mark.parametrize("bf16", [False, True])
def test_the_first_phase_is_plain_training_on_the_alignment_data(tmp_path, bf16):
    """Bit for bit, from the same draw of the adapter."""
    start = AtStart()
    trained(tmp_path, OLoRA(0.5), callbacks=[start], bf16=bf16)
    plain = trainer_for(tmp_path, TaskOnly(), task=tiny.align_data(), bf16=bf16)
    adapters.add_beside(twin := trainer_for(tmp_path, TaskOnly()).model, "align", plain.args.seed)
    drawn = weights(twin, "align")
    with torch.no_grad():
        for name, p in plain.model.named_parameters():
            if ".default." in name:
                p.copy_(drawn[name.replace(".default.", ".")])
    plain.train()
    assert_same_bits(weights(plain.model, "default"), start.fitted)
    assert any(bool(p.any()) for name, p in start.fitted.items() if "lora_B" in name)


def test_the_task_adapter_begins_as_in_every_other_method_and_apart_from_the_fitted_one(finished, tmp_path):
    assert_same_bits(finished[1].own, weights(trainer_for(tmp_path, TaskOnly()).model, "default"))
    for name, p in finished[1].own.items():
        assert "lora_A" not in name or not torch.allclose(p, finished[1].fitted[name], atol=0.1)


def test_only_the_task_adapter_is_trained(finished):
    trainer, start = finished
    assert_same_bits(weights(trainer.model, "align"), start.fitted)
    assert {n for n, p in trainer.model.named_parameters() if p.requires_grad} == {
        name for name, _ in trainer.model.named_parameters() if ".default." in name
    }
    now = weights(trainer.model, "default")
    assert all(not torch.equal(now[name], start.own[name]) for name in now)


def test_weight_0_is_task_only_training_from_the_base_with_the_alignment_adapter(tmp_path):
    trainer = trained(tmp_path, OLoRA(0.0), num_train_epochs=4)
    trainer.model.save_pretrained(tmp_path / "both")
    start = PeftModel.from_pretrained(tiny.model(), tmp_path / "both" / "align")
    other = trained(tmp_path, TaskOnly(), start, num_train_epochs=4)
    ours, theirs = weights(trainer.model, "default"), weights(other.model, "default")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits(trainer.model), logits(other.model), rtol=1e-4, atol=1e-4)


def test_the_reference_is_the_starting_model_without_either_adapter(finished):
    model = finished[0].model
    with adapter_off(model):
        torch.testing.assert_close(logits(model), logits(tiny.model()), rtol=0, atol=0)
    assert model.active_adapters == ["default", "align"]
    assert not torch.allclose(logits(model), logits(tiny.model()), atol=1e-2)


def test_the_rows_of_both_phases_are_counted(finished, tmp_path):
    trainer, _ = finished
    assert trainer.num_sequences == 2 * (3 + 10)
    assert trained(tmp_path, OLoRA(), max_steps=4).num_sequences == 4 * 3 + 10 + 4, "four steps of each"


def test_a_first_phase_that_diverges_says_so(tmp_path, monkeypatch):
    losses = train._Fit.losses

    def broken(*args):
        return {name: replace(t, total=t.total * float("nan")) for name, t in losses(*args).items()}

    monkeypatch.setattr(train._Fit, "losses", broken)
    with pytest.raises(NonFiniteError, match="term 'align, before the task' is nan at optimizer step 0"):
        trained(tmp_path, OLoRA())


# -- what is kept --


def test_a_run_killed_and_resumed_ends_with_the_same_bits_and_is_not_fitted_again(tmp_path, monkeypatch):
    config = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    config |= {"save_strategy": "steps", "save_steps": 2, "lora": LORA | {"lora_dropout": 0.1}}
    whole = trained(tmp_path / "whole", OLoRA(2.0), **config)
    for step in random.Random(3).sample(range(2, whole.state.global_step), 1):
        with pytest.raises(Killed):
            trained(tmp_path / str(step), OLoRA(2.0), callbacks=[KillAt(step)], **config)
        with monkeypatch.context() as patch:
            patch.setattr(train._Fit, "losses", lambda *args: pytest.fail("fitted again"))
            resumed = trainer_for(tmp_path / str(step), OLoRA(2.0), **config)
            resumed.train(resume_from_checkpoint=True)
        for adapter in ("default", "align"):
            assert_same_bits(weights(resumed.model, adapter), weights(whole.model, adapter))
        assert resumed.model.active_adapters == whole.model.active_adapters == ["default", "align"]
        assert resumed.num_sequences == whole.num_sequences
        torch.testing.assert_close(logits(resumed.model), logits(whole.model), rtol=0, atol=0)


def test_the_sum_is_saved_and_opens_in_plain_peft(finished, tmp_path):
    trainer, _ = finished
    trainer.save_model(str(tmp_path))
    opened = PeftModel.from_pretrained(tiny.model(), tmp_path)
    assert opened.peft_config["default"].r == 8
    torch.testing.assert_close(logits(opened), logits(trainer.model), rtol=1e-4, atol=1e-4)


def test_started_from_an_adapter_the_sum_of_all_three_is_saved(finished, tmp_path):
    finished[0].save_model(str(tmp_path / "start"))
    start = PeftModel.from_pretrained(tiny.model(), tmp_path / "start")
    before = logits(start)
    trainer = trained(tmp_path, OLoRA(0.5), start)
    trainer.save_model(str(tmp_path / "saved"))
    opened = PeftModel.from_pretrained(tiny.model(), tmp_path / "saved")
    torch.testing.assert_close(logits(opened), logits(trainer.model), rtol=1e-4, atol=1e-4)
    with adapter_off(trainer.model):
        torch.testing.assert_close(logits(trainer.model), before, rtol=1e-4, atol=1e-4)


def test_the_update_is_that_of_both_adapters_and_can_be_folded_in(finished):
    trainer, _ = finished
    before, said, bits = tiny.model().state_dict(), logits(trainer.model), trainer.model.state_dict()
    bits = {name: value.clone() for name, value in bits.items()}
    merged = copy.deepcopy(trainer.model).merge_and_unload().state_dict()
    moved = sum((merged[name] - before[name]).double().square().sum().item() for name in before)
    assert trainer.update_norm() == pytest.approx(moved**0.5, rel=1e-4)
    with adapters.folded(trainer.model):
        torch.testing.assert_close(logits(trainer.model), said, rtol=1e-4, atol=1e-4)
    assert_same_bits(trainer.model.state_dict(), bits)
    assert torch.equal(logits(trainer.model), said)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (None, "lora should not be null for a method that fits an adapter first"),
        (LORA | {"use_dora": True}, "lora.use_dora should be false for a method that fits an adapter first"),
        (LORA | {"target_modules": ["embed_tokens", "q_proj"]}, "name linear layers only .* found model.embed_tokens"),
    ],
)
def test_adapters_that_do_not_add_up_are_refused_before_training(tmp_path, lora, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path, OLoRA(), lora=lora)
