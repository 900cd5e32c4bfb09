"""Losses computed a few tokens at a time against the same losses from all logits at once."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from selgen import tiny
from selgen.checks import losses_of, train_tiny
from selgen.data.chat import collate, encode
from selgen.lm import chunk_tokens, cross_entropy, sequence_logprobs
from selgen.maths import chunks
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty

ADAPTERS = {"all-linear": {"target_modules": "all-linear"}, "head": {"target_modules": ["lm_head", "q_proj"]}}


def batch():
    rows = [encode(tiny.tokenizer(), e) for e in tiny.task_data(5)]
    return collate(rows, range(5), 0)


def model_with(architecture, adapter):
    """All weights trained, or an adapter that does something."""
    model = tiny.model(architecture)
    if adapter is None:
        return model
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, **ADAPTERS[adapter]))


def trained_gradients(model, value):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, trained, allow_unused=True) if g is not None])


def in_chunks_of(tokens, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_ELEMENTS", tokens * tiny.SIZES["vocab_size"])


LOSSES = {
    "cross-entropy": lambda model: cross_entropy(model, batch()).total,
    "log-probabilities": lambda model: sequence_logprobs(model, batch()) @ torch.arange(1.0, 6.0),
}


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("adapter", [None, *ADAPTERS])
def test_chunks_change_neither_value_nor_gradient(architecture, adapter, loss, monkeypatch):
    model = model_with(architecture, adapter)
    whole = LOSSES[loss](model)
    expected = trained_gradients(model, whole)
    in_chunks_of(3, monkeypatch)
    found = LOSSES[loss](model)
    assert found.item() == pytest.approx(whole.item(), rel=1e-6)
    assert (trained_gradients(model, found) - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("method", [KLPenalty(2.0), DPO(2.0)], ids=repr)
def test_training_in_chunks_gives_the_same_losses(method, monkeypatch):
    whole = losses_of(train_tiny(method))
    in_chunks_of(3, monkeypatch)
    assert losses_of(train_tiny(method)) == pytest.approx(whole, rel=1e-4)


def test_the_whole_vocabulary_of_few_tokens_is_one_forward_pass(monkeypatch):
    """Where all tokens fit in one chunk, logits are the model's own, as they are without chunks."""
    model, tokens = tiny.model(), batch()
    in_chunks_of(tokens.num_targets, monkeypatch)
    assert chunk_tokens(model) == tokens.num_targets
    calls = []
    model.register_forward_hook(lambda module, inputs, out: calls.append(out.logits.shape))
    cross_entropy(model, tokens)
    sequence_logprobs(model, tokens)
    assert calls == [(tokens.num_targets, tiny.SIZES["vocab_size"])] * 2


def test_logits_of_more_tokens_than_a_chunk_never_exist(monkeypatch):
    model, tokens = tiny.model(), batch()
    in_chunks_of(3, monkeypatch)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda module, inputs, out: seen.append(out.shape[:-1].numel()))
    cross_entropy(model, tokens).total.backward()
    sequence_logprobs(model, tokens).sum().backward()
    # Besides the chunks there is one position of each row, and the first row's where the head is checked, once.
    assert max(seen) <= max(3, tokens.num_rows, 8)


def test_a_model_that_changes_its_logits_after_the_head_is_refused_where_chunks_would_miss_it(monkeypatch):
    model = tiny.model()
    model.register_forward_hook(lambda module, inputs, out: out.__setitem__("logits", out.logits * 2))
    assert cross_entropy(model, batch()).total.item() > 0
    in_chunks_of(3, monkeypatch)
    with pytest.raises(ValueError, match="logits of a qwen3 model should be its head"):
        cross_entropy(model, batch())
