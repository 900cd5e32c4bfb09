"""What the trainer promises, on tiny models of the real architectures."""

import math
import random
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from kills import KillAt, Killed
from selgen import tiny
from selgen.checks import losses_of, train_tiny
from selgen.core import Method, Term, ask
from selgen.lm import cross_entropy
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty
from selgen.methods.mixed import Mixed
from selgen.methods.projection import Projection
from selgen.methods.representation import Representation
from selgen.methods.task_only import TaskOnly
from selgen.methods.upweight import Upweight
from selgen.train import NonFiniteError, SelectiveConfig, SelectiveTrainer

LORA = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
QUIET = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1}


def trainer_for(tmp_path, method, model=None, peft_config=LORA, task=None, align=None, callbacks=None, **changes):
    config = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-2, "save_strategy": "no"}
    return SelectiveTrainer(
        model if model is not None else tiny.model(),
        SelectiveConfig(output_dir=str(tmp_path), **QUIET, **(config | changes)),
        tiny.task_data() if task is None else task,
        tiny.align_data() if align is None else align,
        method=method,
        peft_config=peft_config,
        processing_class=tiny.tokenizer(),
        callbacks=callbacks,
    )


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


# -- what a step divides by --


def test_the_first_loss_is_the_token_mean_over_the_whole_step(architecture, tmp_path):
    """Two micro-batches of unequal lengths: the mean over all tokens, not the mean of two means."""
    data = [ask("what", "yes"), ask("what", "no , it is 1 2 3 4 5 6 .")]
    trainer = trainer_for(
        tmp_path,
        TaskOnly(),
        tiny.model(architecture),
        task=data,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    trainer.train()
    dataset = trainer.train_dataset
    batch = dataset.collate([dataset[("task", i)] for i in range(2)], 0)["task"]
    expected = cross_entropy(tiny.model(architecture), batch).total.item() / batch.num_targets
    assert losses_of(trainer)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("method", [Upweight(2.0), KLPenalty(2.0), Mixed(2.5)], ids=lambda m: type(m).__name__)
def test_one_batch_equals_micro_batches_of_any_size(method):
    runs = [train_tiny(method, batch=4 // k, accumulation=k) for k in (1, 2, 4)]
    for other in runs[1:]:
        assert losses_of(other) == pytest.approx(losses_of(runs[0]), rel=1e-5)


def test_a_stream_without_rows_contributes_zero_and_not_nan(tmp_path):
    trainer = trainer_for(tmp_path, Upweight(1.0), align=tiny.align_data(1), max_steps=3)
    trainer.train()
    terms = [entry["term/align"] for entry in trainer.state.log_history if "term/align" in entry]
    assert terms.count(0.0) == 2 and sum(t > 0 for t in terms) == 1


def test_every_method_sees_the_same_task_rows(tmp_path):
    seen = []
    for method in (TaskOnly(), Mixed(3.0), KLPenalty()):
        plan = trainer_for(tmp_path, method).plan
        seen.append([plan.task_rows(e, s) for e in range(2) for s in range(plan.steps_per_epoch)])
    assert seen[0] == seen[1] == seen[2]


def test_cycle_pairs_each_task_row_with_an_alignment_row(tmp_path):
    plan = trainer_for(tmp_path, Upweight(), pairing="cycle").plan
    assert len(plan.align_rows(0, 0)) == len(plan.task_rows(0, 0)) == 4


def test_logged_terms_are_means_and_add_up_to_the_loss():
    trainer = train_tiny(Upweight(3.0))
    for entry in trainer.state.log_history[:-1]:
        assert entry["loss"] == pytest.approx(entry["term/task"] + 3.0 * entry["term/align"], rel=1e-5)


def test_logging_every_second_step_averages_the_terms():
    each, second = train_tiny(KLPenalty(), logging_steps=1), train_tiny(KLPenalty(), logging_steps=2)
    kl = [entry["term/kl"] for entry in each.state.log_history if "term/kl" in entry]
    assert second.state.log_history[0]["term/kl"] == pytest.approx((kl[0] + kl[1]) / 2, rel=1e-5)


# -- resume --


@pytest.mark.parametrize(
    ("method", "kills"),
    [(KLPenalty(2.0), 5), (Mixed(1.7), 5), (Representation(), 1), (Projection(), 1), (DPO(), 1)],
    ids=lambda x: type(x).__name__,
)
def test_a_run_killed_at_random_steps_and_resumed_ends_with_the_same_bits(tmp_path, method, kills):
    config = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 5}
    config |= {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    dropout = replace_lora(lora_dropout=0.1)
    undisturbed = trainer_for(tmp_path / "whole", method, peft_config=dropout, **config)
    undisturbed.train()
    assert undisturbed.state.global_step == 15
    for i, step in enumerate(random.Random(7).sample(range(1, 15), kills)):
        where = tmp_path / str(i)
        with pytest.raises(Killed):
            trainer_for(where, method, peft_config=dropout, callbacks=[KillAt(step)], **config).train()
        resumed = trainer_for(where, method, peft_config=dropout, **config)
        resumed.train(resume_from_checkpoint=True)
        assert_same_bits(weights(resumed), weights(undisturbed))
        assert resumed.num_sequences == undisturbed.num_sequences


def replace_lora(**changes):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | changes)


# -- separate gradients --


@dataclass
class Summed(Method):
    """Task and alignment gradients kept apart, then added: equals Upweight(2)."""

    separate_gradients = True

    def losses(self, model, batch, ref):
        return {
            "task": cross_entropy(model, batch["task"]),
            "align": cross_entropy(model, batch["align"], "align_tokens", weight=2.0),
        }

    def combine(self, grads):
        return {name: grads["task"][name] + grads["align"][name] for name in grads["task"]}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_separate_gradients_that_are_summed_equal_one_backward_pass(accumulation):
    one = train_tiny(Upweight(2.0), batch=2, accumulation=accumulation)
    apart = train_tiny(Summed(), batch=2, accumulation=accumulation)
    for (name, a), (_, b) in zip(one.model.named_parameters(), apart.model.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)


def test_combine_is_called_once_per_optimizer_step_before_clipping():
    calls = []

    class Counted(Summed):
        def combine(self, grads):
            calls.append(set(grads))
            return {name: g * 1e6 for name, g in super().combine(grads).items()}

    trainer = train_tiny(Counted(), batch=2, accumulation=2, max_grad_norm=1.0)
    assert calls == [{"task", "align"}] * trainer.state.global_step
    assert all(entry["grad_norm"] > 1e3 for entry in trainer.state.log_history if "grad_norm" in entry)


def test_a_method_that_keeps_gradients_apart_must_combine_them():
    class Forgot(Summed):
        combine = Method.combine

    with pytest.raises(TypeError, match="must define combine"):
        train_tiny(Forgot())


# -- what stops a run --


@dataclass
class Breaks(Method):
    at: int = 2
    value: float = math.nan
    streams = ("task",)
    step = 0

    def losses(self, model, batch, ref):
        term = cross_entropy(model, batch["task"])
        self.step += 1
        return {"task": term, "extra": Term(term.total * (self.value if self.step > self.at else 1.0), "task_tokens")}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_stops_the_run_and_names_step_and_term(value):
    with pytest.raises(NonFiniteError, match="term 'extra' is .* at optimizer step 2") as caught:
        train_tiny(Breaks(value=value))
    assert (caught.value.step, caught.value.term) == (2, "extra")


def test_a_non_finite_gradient_stops_the_run():
    class Sqrt(Breaks):
        def losses(self, model, batch, ref):
            term = cross_entropy(model, batch["task"])
            zero = (term.total - term.total.detach()).abs().sqrt()
            return {"task": term, "extra": Term(zero, "one")}

    with pytest.raises(NonFiniteError, match="term 'gradient'"):
        train_tiny(Sqrt())


def test_an_exception_inside_a_term_is_not_swallowed():
    class Raises(Breaks):
        def losses(self, model, batch, ref):
            raise AttributeError("inside the term")

    with pytest.raises(AttributeError, match="inside the term"):
        train_tiny(Raises())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"align": []}, "alignment_dataset should have at least 1 row for method Upweight, found 0"),
        ({"task": []}, "train_dataset should have at least 1 row"),
        ({"max_length": 4}, "more than max_length=4"),
        ({"task": [{"prompt": "what"}]}, "row 0: should have `messages`, or `prompt` and `completion`"),
        ({"pairing": "zip"}, "training.pairing should be proportional or cycle, found 'zip'"),
        ({"peft_config": replace_lora(bias="all")}, "lora.bias should be 'none', found 'all'"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer_for(tmp_path, Upweight(), **arguments)


def test_a_method_with_rejected_answers_needs_them(tmp_path):
    class Prefers(Upweight):
        streams = ("task", "align", "rejected")

    without = [replace(e, rejected=None) for e in tiny.align_data()]
    with pytest.raises(ValueError, match="needs a `rejected` answer in every alignment example, found 3 of 3"):
        trainer_for(tmp_path, Prefers(), align=without)
    rows = trainer_for(tmp_path, Prefers()).train_dataset.streams["rejected"]
    assert len(rows) == 3


def test_plain_rows_are_taken_like_examples(tmp_path):
    rows = [{"messages": [dict(m) for m in e.messages]} for e in tiny.task_data()]
    pairs = [{"prompt": e.prompt[0]["content"], "completion": e.completion} for e in tiny.task_data()]
    plans = [trainer_for(tmp_path, TaskOnly(), task=task).train_dataset.streams["task"] for task in (rows, pairs)]
    assert plans[0] == plans[1] == trainer_for(tmp_path, TaskOnly()).train_dataset.streams["task"]


# -- starting models --


def test_the_adapter_depends_on_the_seed_alone(tmp_path):
    torch.manual_seed(1)
    first = weights(trainer_for(tmp_path, TaskOnly()))
    torch.manual_seed(2)
    assert_same_bits(first, weights(trainer_for(tmp_path, TaskOnly())))
    other = weights(trainer_for(tmp_path, TaskOnly(), seed=5))
    assert any(not torch.equal(first[n], other[n]) for n in first if "lora_A" in n)


def test_a_model_is_loaded_by_directory(tmp_path):
    tiny.model().save_pretrained(tmp_path / "m")
    tiny.tokenizer().save_pretrained(tmp_path / "m")
    named = SelectiveTrainer(
        str(tmp_path / "m"),
        SelectiveConfig(output_dir=str(tmp_path), max_steps=2, save_strategy="no", **QUIET),
        tiny.task_data(),
        method=TaskOnly(),
        peft_config=LORA,
    )
    named.train()
    given = trainer_for(tmp_path, TaskOnly(), max_steps=2, per_device_train_batch_size=8, learning_rate=5e-5)
    given.train()
    assert losses_of(named) == losses_of(given)


def test_full_fine_tuning_compares_with_a_frozen_copy(tmp_path):
    trainer = trainer_for(tmp_path, KLPenalty(1.0), peft_config=None, learning_rate=1e-3)
    trainer.train()
    kl = [entry["term/kl"] for entry in trainer.state.log_history if "term/kl" in entry]
    assert trainer.reference.copies_model
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 1e-4
    assert trainer.update_norm() > 0


def trained_adapter(directory, base):
    """A trained adapter on a saved base model, as a PeftModel on a fresh copy of that base."""
    tiny.model().save_pretrained(base)
    trainer = train_tiny(TaskOnly())
    trainer.model.peft_config["default"].base_model_name_or_path = str(base)
    trainer.model.save_pretrained(directory)
    return PeftModel.from_pretrained(tiny.model(), directory)


def test_a_starting_adapter_is_the_reference_and_the_result_opens_on_the_raw_base(tmp_path):
    started = trained_adapter(tmp_path / "start", tmp_path / "base")
    batch = tiny.tokenizer()("what is the capital of France ?", return_tensors="pt")["input_ids"]
    before = started(batch).logits.detach()
    trainer = trainer_for(tmp_path / "out", KLPenalty(1.0), started, peft_config=None)
    torch.testing.assert_close(trainer.model(batch).logits, before, rtol=1e-4, atol=1e-4)
    trainer.train()
    kl = [entry["term/kl"] for entry in trainer.state.log_history if "term/kl" in entry]
    assert kl[0] == pytest.approx(0, abs=1e-5), "the reference is the model one started from"
    trainer.save_model(str(tmp_path / "saved"))
    trainer.model.eval()
    reopened = PeftModel.from_pretrained(tiny.model(), tmp_path / "saved")
    torch.testing.assert_close(reopened(batch).logits, trainer.model(batch).logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(trainer.model(batch).logits, before, atol=1e-2)


def test_an_untrained_adapter_is_trained_itself(tmp_path):
    torch.manual_seed(0)
    given = get_peft_model(tiny.model(), LORA)
    trainer = trainer_for(tmp_path, TaskOnly(), given, peft_config=None)
    assert trainer.model is given


def test_a_saved_adapter_opens_in_plain_peft(tmp_path, architecture):
    trainer = trainer_for(tmp_path, TaskOnly(), tiny.model(architecture), max_steps=2)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    batch = tiny.tokenizer()("what is the capital", return_tensors="pt")["input_ids"]
    reopened = PeftModel.from_pretrained(tiny.model(architecture), tmp_path / "saved")
    trainer.model.eval()
    torch.testing.assert_close(reopened(batch).logits, trainer.model(batch).logits)


def test_the_update_norm_is_that_of_the_merged_weights():
    trainer = train_tiny(TaskOnly())
    norm = trainer.update_norm()
    before = tiny.model().state_dict()
    merged = trainer.model.merge_and_unload().state_dict()
    expected = math.sqrt(sum((merged[n] - before[n]).double().square().sum().item() for n in before))
    assert norm == pytest.approx(expected, rel=1e-4)


def test_bfloat16_starts_near_zero_divergence_and_trains(tmp_path):
    """Padding differs between the cache and the step, so in bf16 the first KL is small but need not be 0."""
    trainer = trainer_for(tmp_path, KLPenalty(1.0), tiny.model().to(torch.bfloat16), max_steps=4)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    trainer.train()
    kl = [entry["term/kl"] for entry in trainer.state.log_history if "term/kl" in entry]
    assert abs(kl[0]) < 1e-3 < kl[-1]


def test_learning_rate_schedule_has_the_length_of_the_training(tmp_path):
    trainer = trainer_for(tmp_path, Mixed(5.0), lr_scheduler_type="linear", gradient_accumulation_steps=2)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert len(rates) == trainer.state.max_steps == 4
    assert rates == pytest.approx([1e-2 * (1 - i / 4) for i in range(4)])
    assert all(a > b for a, b in pairwise(rates))


@pytest.mark.parametrize("method", [KLPenalty(), Representation(), DPO()], ids=lambda m: type(m).__name__)
def test_the_cached_reference_is_the_live_one_in_mixed_precision(method):
    """At step 0 model and reference are the same, so any difference is one of precision."""
    first = {"KLPenalty": 0.0, "Representation": 0.0, "DPO": math.log(2)}[type(method).__name__]
    for cache in (True, False):
        trainer = train_tiny(method, batch=10, steps=1, bf16=True, reference_cache=cache)
        [term] = [v for k, v in trainer.state.log_history[0].items() if k.startswith("term/") and k != "term/task"]
        assert term == pytest.approx(first, abs=1e-7)


def test_one_process_uses_one_gpu_however_many_it_sees(tmp_path, monkeypatch):
    """Trainer would spread each batch over them, unplanned."""
    monkeypatch.setattr(SelectiveConfig, "n_gpu", property(lambda self: getattr(self, "_n_gpu", 2)))
    trainer = trainer_for(tmp_path, TaskOnly(), max_steps=1)
    assert trainer.args.n_gpu <= 1
    assert trainer.args.train_batch_size == 4
