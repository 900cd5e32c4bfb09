"""Compiled blocks train the weights that blocks train as they are."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from selgen import tiny
from selgen.faster import compiled_blocks
from selgen.lm import decoder_blocks
from selgen.methods.kl import KLPenalty
from selgen.methods.o_lora import OLoRA
from selgen.methods.representation import Representation
from selgen.train import SelectiveConfig
from tiny_trainer import QUIET, lora, trainer_for


@pytest.fixture
def compiled(monkeypatch):
    """How often a function was compiled, without the time that it takes: each runs as it is."""
    made = []

    def compile(function, **options):
        made.append(options)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    return made


def test_blocks_are_compiled_while_training_and_are_as_before_afterwards(tmp_path, compiled):
    trainer = trainer_for(tmp_path, KLPenalty(), lora(), compile_blocks=True, max_steps=1)
    blocks = decoder_blocks(trainer.model)
    blocks[0].forward = before = blocks[0].forward  # e.g. what accelerate puts there
    trainer.train()
    assert compiled == [{"dynamic": True}] * len(blocks)
    assert blocks[0].forward is before and "forward" not in vars(blocks[1])


def test_nothing_is_compiled_unasked(tmp_path, compiled):
    trainer_for(tmp_path, KLPenalty(), lora(), max_steps=1).train()
    assert compiled == []


def test_the_copy_that_full_fine_tuning_compares_with_is_compiled_too(tmp_path, compiled):
    trainer_for(tmp_path, KLPenalty(), compile_blocks=True, max_steps=1).train()
    assert len(compiled) == 2 * tiny.SIZES["num_hidden_layers"]


def test_blocks_that_a_stream_is_fitted_with_are_compiled_once(tmp_path, compiled):
    trainer_for(tmp_path, OLoRA(), lora(), compile_blocks=True, max_steps=1).train()
    assert len(compiled) == tiny.SIZES["num_hidden_layers"]


def gpt2():
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    return GPT2LMHeadModel(GPT2Config(vocab_size=30, n_positions=64, n_embd=16, n_layer=2, n_head=2, **ends))


@pytest.mark.parametrize("make", [tiny.model, gpt2])  # the second does not name the cache that it passes on
def test_text_is_generated_by_the_blocks_as_they_are(monkeypatch, make):
    calls = []
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: lambda *a, **k: calls.append(1) or function(*a, **k)
    )
    model, ids = make(), torch.tensor([[5, 6, 7]])
    with compiled_blocks(model):
        model(ids, use_cache=False)
        assert len(calls) == 2
        model.generate(ids, max_new_tokens=3, do_sample=False)
    assert len(calls) == 2


def test_a_whole_compiled_model_is_refused(tmp_path):
    for field in ({"torch_compile": True}, {"torch_compile_mode": "default"}, {"torch_compile_backend": "inductor"}):
        with pytest.raises(ValueError, match="Set compile_blocks=True"):
            SelectiveConfig(output_dir=str(tmp_path), **QUIET, **field)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # the compiler's own
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", [KLPenalty(), Representation()], ids=["kl", "representation"])
def test_compiled_blocks_train_the_same_weights(tmp_path, method, checkpointing):
    made = []
    for compile_blocks in (False, True):
        config = {"compile_blocks": compile_blocks, "activation_checkpointing": checkpointing, "max_steps": 4}
        trainer = trainer_for(tmp_path, method, lora(), **config)
        trainer.train()
        made.append(torch.cat([p.flatten() for p in trainer.model.parameters() if p.requires_grad]))
    assert (made[1] - made[0]).norm() < 1e-4 * made[0].norm()
