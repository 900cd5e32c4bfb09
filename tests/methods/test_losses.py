"""Each loss against its closed form, computed here from the model's full logits in float64."""

import pytest
import torch

from selgen import tiny
from selgen.checks import train_tiny
from selgen.methods.kl import KLPenalty
from selgen.methods.mixed import Mixed
from selgen.methods.upweight import Upweight


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
        (lambda: KLPenalty(1.0, "reverse"), "method.direction should be one of policy_ref, ref_policy, jsd"),
    ],
)
def test_bad_hyper_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
