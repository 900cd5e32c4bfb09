"""Each loss against its closed form, computed here from the model's full logits in float64."""

import math
import tempfile

import pytest
import torch

from selgen import tiny
from selgen.checks import train_tiny
from selgen.core import Tokens
from selgen.data.chat import collate, encode
from selgen.lm import cross_entropy, unwrap
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty
from selgen.methods.mixed import Mixed
from selgen.methods.projection import Projection
from selgen.methods.representation import Representation
from selgen.methods.upweight import Upweight
from selgen.train import SelectiveConfig, SelectiveTrainer


def first_loss(method, steps=1, **config):
    trainer = train_tiny(method, batch=10, steps=steps, **config)
    return trainer.state.log_history[steps - 1], trainer


def batch_of(trainer, stream):
    dataset = trainer.train_dataset
    keys = [(stream, i) for i in range(len(dataset.streams[stream]))]
    return dataset.collate([dataset[k] for k in keys], 0)[stream]


def token_nll(model, tokens):
    """[n] negative log-likelihoods of the completion tokens, from full logits, position by position."""
    with torch.no_grad():
        logp = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits.double().log_softmax(-1)
    values = []
    for row in range(tokens.num_rows):
        for t in range(1, tokens.input_ids.shape[1]):
            label = int(tokens.labels[row, t])
            if label != -100:
                values.append(-logp[row, t - 1, label])
    return torch.stack(values)


def test_mixed_is_one_mean_over_the_tokens_of_the_union():
    entry, trainer = first_loss(Mixed())
    task, align = (token_nll(tiny.model(), batch_of(trainer, s)) for s in ("task", "align"))
    assert entry["loss"] == pytest.approx(torch.cat([task, align]).mean().item(), rel=1e-5)
    assert entry["loss"] != pytest.approx((task.mean() + align.mean()).item(), rel=1e-3)


def test_upweight_is_the_sum_of_two_means():
    entry, trainer = first_loss(Upweight(3.0))
    task, align = (token_nll(tiny.model(), batch_of(trainer, s)) for s in ("task", "align"))
    assert entry["loss"] == pytest.approx((task.mean() + 3 * align.mean()).item(), rel=1e-5)


@pytest.mark.parametrize("direction", ["policy_ref", "ref_policy", "jsd"])
def test_kl_is_zero_before_the_first_step(direction):
    entry, _ = first_loss(KLPenalty(1.0, direction))
    assert entry["term/kl"] == pytest.approx(0, abs=1e-6)


def test_kl_is_the_mean_over_completion_tokens_of_the_alignment_set():
    """The term logged at step 2 is that of the weights after step 1, over all alignment rows."""
    entry, trainer = first_loss(KLPenalty(1.0), steps=2)
    _, stopped = first_loss(KLPenalty(1.0), steps=1, lr_scheduler_type="constant")
    tokens = batch_of(trainer, "align")
    stopped.model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        logp, logq = (
            m(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).logits.double().log_softmax(-1)
            for m in (stopped.model, tiny.model())
        )
    for row in range(tokens.num_rows):
        for t in range(1, tokens.input_ids.shape[1]):
            if int(tokens.labels[row, t]) != -100:
                p, q = logp[row, t - 1], logq[row, t - 1]
                total, count = total + float((p.exp() * (p - q)).sum()), count + 1
    constant, _ = first_loss(KLPenalty(1.0), steps=2, lr_scheduler_type="constant")
    assert constant["term/kl"] == pytest.approx(total / count, rel=1e-3)
    assert entry["term/kl"] > 0


def test_a_larger_beta_stays_closer_to_the_reference():
    moved = [first_loss(KLPenalty(beta), steps=20)[0]["term/kl"] for beta in (0.0, 1.0, 100.0)]
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Upweight(-1.0), "method.weight should be >= 0, found -1.0. Use 0 for task-only"),
        (lambda: KLPenalty(-0.5), "method.beta should be >= 0, found -0.5. Use 0 for task-only"),
        (lambda: Mixed(-2.0), "method.align_rows_per_step should be >= 0, found -2.0. Use 0 for task-only"),
        (lambda: Representation(-0.5), "method.beta should be >= 0, found -0.5. Use 0 for task-only"),
        (lambda: Representation(1.0, "max"), "method.norm should be one of mean, squared, found 'max'"),
        (lambda: Representation(1.0, positions="x"), "method.positions should be one of all, completion, found 'x'"),
        (lambda: Projection("never"), "method.when should be one of always, conflict, found 'never'"),
        (lambda: Projection(scope="row"), "method.scope should be one of global, tensor, found 'row'"),
        (lambda: DPO(-1.0), "method.weight should be >= 0, found -1.0. Use 0 for task-only"),
        (lambda: DPO(1.0, 0.0), "method.beta should be > 0, found 0.0. Use weight 0 for task-only"),
        (lambda: KLPenalty(1.0, "reverse"), "method.direction should be one of policy_ref, ref_policy, jsd"),
    ],
)
def test_bad_hyper_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_representation_is_zero_before_the_first_step():
    entry, trainer = first_loss(Representation(3.0))
    assert entry["term/hidden"] == pytest.approx(0, abs=1e-9)
    assert trainer.reference.kept["layers of align"].startswith("cached")


@pytest.mark.parametrize(("norm", "units"), [("mean", 16), ("squared", 1)])
@pytest.mark.parametrize("positions", ["all", "completion"])
def test_representation_is_the_mean_over_layers_and_positions(norm, units, positions):
    """The distance of the trained model, from Hugging Face's hidden states and the input of the final norm."""
    trainer = train_tiny(Representation(1.0, norm, positions), steps=3)
    trainer.model.eval()
    batch, states = {s: batch_of(trainer, s) for s in ("task", "align")}, []
    for model in (trainer.model, tiny.model()):
        decoder, last = unwrap(model).get_decoder(), []
        handle = decoder.norm.register_forward_pre_hook(lambda norm, inputs, last=last: last.append(inputs[0]))
        tokens = batch["align"]
        with torch.no_grad():
            out = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True)
        handle.remove()
        states.append([*out.hidden_states[1:-1], last[0]])
    chosen = tokens.attention_mask.bool() if positions == "all" else tokens.predicts_BT
    squares = [(a[chosen] - b[chosen]).double().square().sum(-1) / units for a, b in zip(*states, strict=True)]
    expected = torch.stack(squares).mean().item()
    with torch.no_grad():
        term = trainer.method.losses(trainer.model, batch, trainer.reference)["hidden"]
    count = int(chosen.sum())
    assert term.unit == ("align_positions" if positions == "all" else "align_tokens")
    assert term.total.item() / count == pytest.approx(expected, rel=1e-4) and expected > 0


def test_projection_follows_the_task_gradient_without_its_alignment_part():
    """One SGD step on all weights: the step's direction against gradients taken here by autograd."""
    stepped = full_step(Projection())
    grads = [gradient(stream) for stream in ("task", "align")]
    flat = [torch.cat([g.flatten() for g in side.values()]) for side in grads]
    expected = flat[0] - (flat[0] @ flat[1]) / (flat[1] @ flat[1]) * flat[1]
    moved = torch.cat([(p.detach() - stepped[name]).flatten() for name, p in tiny.model().named_parameters()])
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-5)
    assert abs(moved @ flat[1]) < 1e-4 * moved.norm() * flat[1].norm()


def full_step(method):
    """Weights after one plain gradient step of learning rate 1 over all rows, unclipped."""
    with tempfile.TemporaryDirectory() as directory:
        config = {"output_dir": directory, "max_steps": 1, "per_device_train_batch_size": 10, "learning_rate": 1.0}
        config |= {
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "lr_scheduler_type": "constant",
            "report_to": [],
            "use_cpu": True,
        }
        trainer = SelectiveTrainer(
            tiny.model(),
            SelectiveConfig(**config, disable_tqdm=True, save_strategy="no"),
            tiny.task_data(),
            tiny.align_data(),
            method=method,
            processing_class=tiny.tokenizer(),
        )
        trainer.train()
    return {name: p.detach() for name, p in trainer.model.named_parameters()}


def gradient(stream):
    model, data = tiny.model(), tiny.task_data() if stream == "task" else tiny.align_data()
    tokens = collate([encode(tiny.tokenizer(), e) for e in data], range(len(data)), 0)
    loss = cross_entropy(model, tokens).total / tokens.num_targets
    names, params = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, params), strict=True))


def test_dpo_is_ln2_before_the_first_step_and_reads_half_of_the_pairs():
    entry, trainer = first_loss(DPO())
    assert entry["term/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert trainer.plan.num_align == 2 and trainer.num_sequences == 10 + 2 * 2


def test_the_dpo_margin_comes_from_completion_tokens_alone():
    """Padding, prompt and template change nothing; the margin is the difference of the completions' sums, by hand."""
    trainer = train_tiny(DPO(), steps=4)
    trainer.model.eval()
    dataset = trainer.train_dataset
    keys = [("align", i) for i in range(2)]
    batch = dataset.collate([dataset[k] for k in [("task", 0), *keys]], 0)
    lengths = {s: batch[s].attention_mask.sum(1).tolist() for s in ("align", "rejected")}
    assert lengths["align"] != lengths["rejected"] and len(set(lengths["align"])) > 1, "there should be pads to leak"
    sums = {}
    for stream in ("align", "rejected"):
        for name, model in (("policy", trainer.model), ("ref", tiny.model())):
            parts = [-token_nll(model, row(batch[stream], i)).sum() for i in range(2)]
            sums[name, stream] = torch.stack(parts)
    margin = (sums["policy", "align"] - sums["ref", "align"]) - (sums["policy", "rejected"] - sums["ref", "rejected"])
    expected = torch.log1p(torch.exp(-0.1 * margin)).sum().item()
    with torch.no_grad():
        term = trainer.method.losses(trainer.model, batch, trainer.reference)["dpo"]
    assert term.total.item() == pytest.approx(expected, rel=1e-5)
    assert (margin.abs() > 1e-3).all()


def row(tokens, i):
    """One row without its padding."""
    width = int(tokens.attention_mask[i].sum())
    parts = (tokens.input_ids, tokens.attention_mask, tokens.labels)
    return Tokens(*(part[i : i + 1, :width] for part in parts), tokens.ids[i : i + 1])
