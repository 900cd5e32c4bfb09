import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
)

from selgen import tiny
from selgen.data.chat import collate, encode
from selgen.lm import (
    adapter_off,
    block_outputs,
    check_head,
    completion_hidden,
    completion_logits,
    cross_entropy,
    head,
    mean_hidden,
    sequence_logprobs,
)
from selgen.reference import FrozenReference

SMALL = {key: value for key, value in tiny.SIZES.items() if key != "head_dim"}


def granite():
    return GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0))


def cohere():
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=1 / 16))


def rows(examples):
    return [encode(tiny.tokenizer(), e) for e in examples]


def tokens():
    return collate(rows(tiny.task_data(5)), range(5), 0)


def lora(model, seed=0, **changes):
    """A LoRA model whose adapter does something (B is not zero)."""
    torch.manual_seed(seed)
    adapted = get_peft_model(
        model, LoraConfig(**{"r": 4, "target_modules": "all-linear", "lora_dropout": 0.5} | changes)
    )
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_()
    return adapted


def reference_for(model, cache=True):
    return FrozenReference(model, {"align": rows(tiny.align_data())}, 0, cache)


def align_tokens(ids=(0, 1, 2)):
    data = rows(tiny.align_data())
    return collate([data[i] for i in ids], ids, 0)


def test_cross_entropy_agrees_with_the_models_own_loss(architecture):
    model, batch = tiny.model(architecture), tokens()
    own = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    assert cross_entropy(model, batch).total.item() / batch.num_targets == pytest.approx(own.item(), rel=1e-5)


def test_the_head_on_hidden_states_gives_the_models_logits(architecture):
    model, batch = tiny.model(architecture), tokens()
    full = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.predicts_BT]
    torch.testing.assert_close(head(model)(completion_hidden(model, batch)), full, rtol=1e-4, atol=1e-5)


def test_logits_exist_only_where_there_is_a_label(architecture):
    batch = tokens()
    out = tiny.model(architecture)(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=batch.predicts_BT
    )
    assert out.logits.shape == (batch.num_targets, tiny.SIZES["vocab_size"])


def test_no_rows_give_zero_without_a_forward_pass():
    assert cross_entropy(None, collate([], [], 0)).total.item() == 0  # type: ignore[arg-type]


def test_the_reference_is_the_model_without_its_adapter(architecture):
    plain = completion_hidden(tiny.model(architecture), align_tokens())
    adapted = lora(tiny.model(architecture))
    found = reference_for(adapted).hidden(align_tokens())
    torch.testing.assert_close(found, plain)
    assert not torch.allclose(completion_hidden(adapted, align_tokens()), plain)
    assert not found.requires_grad


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings:UserWarning")
@pytest.mark.parametrize("changes", [{}, {"target_modules": ["lm_head", "q_proj"]}, {"modules_to_save": ["lm_head"]}])
def test_cached_equals_live_whatever_is_trained(architecture, changes):
    adapted = lora(tiny.model(architecture), **changes)
    cached, live = reference_for(adapted), reference_for(adapted, cache=False)
    cached.precompute("align")
    live.precompute("align")
    batch = align_tokens((2, 0))
    one, other = cached.head(cached.hidden(batch)), live.head(live.hidden(batch))
    assert (one - other).norm() <= 1e-5 * other.norm()


def test_the_cache_is_read_by_content_and_not_by_padding():
    reference = reference_for(lora(tiny.model()))
    reference.precompute("align")
    calls = []
    reference._live = lambda *args: calls.append(args)  # type: ignore[method-assign, assignment]
    batch = align_tokens((1,))
    assert reference.hidden(batch).shape[0] == batch.num_targets
    assert not calls


def test_rows_outside_the_cache_are_computed_live():
    reference = reference_for(lora(tiny.model()))
    reference.precompute("align")
    torch.testing.assert_close(reference.hidden(tokens()), completion_hidden(tiny.model(), tokens()))


def test_the_reference_shares_its_weights_with_an_adapted_model_and_copies_a_full_one():
    adapted, full = lora(tiny.model()), tiny.model()
    assert not reference_for(adapted).copies_model
    reference = reference_for(full)
    assert reference.copies_model
    before = completion_hidden(tiny.model(), align_tokens())
    with torch.no_grad():
        for p in full.parameters():
            p.add_(0.1)
    torch.testing.assert_close(reference.hidden(align_tokens()), before)


def test_switching_the_adapter_off_restores_every_flag():
    adapted = lora(tiny.model())
    adapted.train()
    frozen = next(name for name, _ in adapted.named_parameters() if "lora_A" in name)
    adapted.get_parameter(frozen).requires_grad_(False)
    flags = {name: p.requires_grad for name, p in adapted.named_parameters()}
    modes = {name: m.training for name, m in adapted.named_modules()}
    with adapter_off(adapted):
        assert not adapted.training
    assert {name: p.requires_grad for name, p in adapted.named_parameters()} == flags
    assert {name: m.training for name, m in adapted.named_modules()} == modes


def test_switching_the_adapter_off_restores_every_flag_after_an_error():
    adapted = lora(tiny.model())
    flags = {name: p.requires_grad for name, p in adapted.named_parameters()}
    with pytest.raises(RuntimeError, match="inside"), adapter_off(adapted):
        raise RuntimeError("inside")
    assert {name: p.requires_grad for name, p in adapted.named_parameters()} == flags


def test_block_outputs_end_before_the_final_norm_and_count_each_block_once(architecture):
    model, batch = tiny.model(architecture), tokens()
    found = block_outputs(model, batch)
    out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    after_norm = out.hidden_states[-1][batch.attention_mask.bool()]
    assert len(found) == model.config.num_hidden_layers == len(out.hidden_states) - 1
    for ours, theirs in zip(found[:-1], out.hidden_states[1:-1], strict=True):
        torch.testing.assert_close(ours, theirs[batch.attention_mask.bool()])
    torch.testing.assert_close(model.get_decoder().norm(found[-1]), after_norm)
    assert not torch.allclose(found[-1], after_norm)


def test_block_outputs_refuse_to_count_the_final_norm_as_a_block():
    model = tiny.model()
    model.get_decoder().layers.append(model.get_decoder().norm)
    with pytest.raises(ValueError, match=r"list of num_hidden_layers=2 decoder blocks, found lists of \[3\]"):
        block_outputs(model, tokens())


def test_block_outputs_leave_no_hook_behind():
    model = tiny.model()
    block_outputs(model, tokens())
    assert not any(block._forward_hooks for block in model.get_decoder().layers)


def test_sequence_logprobs_sum_the_completion_tokens_alone(architecture):
    model, batch = tiny.model(architecture), tokens()
    with torch.no_grad():
        logp = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.log_softmax(-1)
        found = sequence_logprobs(model, batch)
    for row in range(batch.num_rows):
        learned = [t for t in range(1, batch.input_ids.shape[1]) if batch.labels[row, t] != -100]
        expected = sum(float(logp[row, t - 1, batch.input_ids[row, t]]) for t in learned)
        assert found[row].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("what", ["layers", "logprobs"])
def test_layers_and_logprobs_are_the_same_cached_and_live(architecture, what):
    adapted = lora(tiny.model(architecture))
    cached, live = reference_for(adapted), reference_for(adapted, cache=False)
    for reference in (cached, live):
        reference.precompute("align", what)
    assert cached.kept[f"{what} of align"].startswith("cached")
    assert live.kept[f"{what} of align"].startswith("computed at every step")
    cached._live = None  # type: ignore[method-assign, assignment]
    both = (getattr(reference, what)(align_tokens((2, 0))) for reference in (cached, live))
    for one, other in zip(*both, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
        assert not one.requires_grad


def test_layers_too_large_to_cache_are_computed_at_every_step_and_it_says_so(monkeypatch):
    monkeypatch.setattr("selgen.reference.MAX_LAYERS_BYTES", 1000)
    reference = reference_for(lora(tiny.model()))
    reference.precompute("align", "layers")
    assert "would be too large to cache" in reference.kept["layers of align"]
    assert reference.layers(align_tokens())[0].shape == (int(align_tokens().attention_mask.sum()), 16)


def test_a_model_without_a_list_of_blocks_is_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=33, n_positions=64))
    gpt2.get_decoder().h.append(gpt2.get_decoder().h[0])
    with pytest.raises(
        ValueError, match=r"a gpt2 model should have a list .* found lists of \[3\]. .* choose a method"
    ):
        block_outputs(gpt2, tokens())


@pytest.mark.parametrize("make", [granite, cohere], ids=["granite", "cohere"])
def test_scaled_logits_are_the_models_own(make):
    model, batch = make(), tokens()
    torch.testing.assert_close(head(model)(completion_hidden(model, batch)), completion_logits(model, batch))
    check_head(model, batch)


def test_a_model_that_changes_its_logits_after_the_head_is_refused():
    model = tiny.model()
    model.register_forward_hook(lambda module, inputs, out: out.__setitem__("logits", out.logits * 2))
    with pytest.raises(ValueError, match="logits of a qwen3 model should be its head"):
        check_head(model, tokens())
    with pytest.raises(ValueError, match="logits of a qwen3 model should be its head"):
        reference_for(lora(model)).precompute("align")


def test_mean_hidden_averages_tokens_then_rows_whatever_the_batch(architecture):
    """Against one row at a time, without padding; rows of unequal length weigh the same."""
    model, data = tiny.model(architecture), rows(tiny.task_data(5))
    assert len({len(row.input_ids) for row in data}) > 1
    naive = []
    with torch.no_grad():
        for row in data:
            out = model(input_ids=torch.tensor([row.input_ids]), output_hidden_states=True)
            naive.append(out.hidden_states[-1][0].mean(0))
    expected = torch.stack(naive).mean(0)
    for batch_size in (1, 2, 5, 16):
        torch.testing.assert_close(mean_hidden(model, data, 0, batch_size), expected, rtol=1e-4, atol=1e-5)


def test_mean_hidden_reads_a_model_in_eval_mode_and_leaves_its_mode_alone():
    model, data = lora(tiny.model()).train(), rows(tiny.task_data(3))
    first = mean_hidden(model, data, 0)
    assert torch.equal(first, mean_hidden(model, data, 0)), "dropout would make two calls differ"
    assert model.training and not first.requires_grad
