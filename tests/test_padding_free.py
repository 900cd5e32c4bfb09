"""Rows that a model reads as one, without padding, train it as padded rows do."""

from __future__ import annotations

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from many_worker import trained_methods
from selgen import tiny
from selgen.data.chat import collate, encode
from selgen.lm import block_outputs, completion_hidden, completion_logits, cross_entropy, sequence_logprobs
from selgen.methods.mixed import Mixed
from tiny_trainer import lora, trainer_for

METHODS = trained_methods()
READ = (completion_hidden, completion_logits, block_outputs, sequence_logprobs, lambda *a: cross_entropy(*a).total)


def tokens(padding_free: bool, num: int = 5):
    rows = [encode(tiny.tokenizer(), e) for e in tiny.task_data(num)]
    return collate(rows, range(num), 0, padding_free)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("read", READ)
def test_what_is_read_of_each_position_is_the_same(architecture, attention, read):
    model = tiny.model(architecture)
    model.set_attn_implementation("eager" if architecture == "gemma2" else attention)
    with torch.no_grad():
        torch.testing.assert_close(read(model, tokens(True)), read(model, tokens(False)), rtol=1e-4, atol=1e-5)


def test_the_model_is_given_the_real_tokens_alone(tmp_path):
    trainer = trainer_for(tmp_path, Mixed(), lora(), padding_free=True, max_steps=2)
    seen = []
    embed = trainer.model.get_input_embeddings()
    embed.register_forward_pre_hook(lambda layer, args: seen.append(tuple(args[0].shape)))
    batches = list(trainer.get_train_dataloader())[:2]
    sizes = [(1, int(t.attention_mask.sum())) for batch in batches for t in batch.values() if t.num_rows]
    trainer.train()
    assert any(t.attention_mask.eq(0).any() for batch in batches for t in batch.values())
    assert seen[3:] == sizes  # three passes check the model


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_same_weights(tmp_path, name):
    made = {}
    for free in (False, True):
        trainer = trainer_for(tmp_path / str(free), METHODS[name], lora(), padding_free=free, max_steps=4)
        trainer.train()
        made[free] = torch.cat([p.flatten() for p in trainer.model.parameters() if p.requires_grad])
    assert (made[True] - made[False]).norm() < 1e-4 * made[False].norm()


def test_a_model_whose_rows_would_read_each_other_is_refused(tmp_path):
    sizes = {"vocab_size": tiny.SIZES["vocab_size"], "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=3))
    trainer = trainer_for(tmp_path, Mixed(), padding_free=True, model=mamba)
    with pytest.raises(ValueError, match="training.padding_free should be false with a mamba model"):
        trainer.train()
