"""What generation promises: order, independence of batching, an undisturbed trainer."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from selgen import adapters, tiny
from selgen import generate as gen
from selgen.core import Example, ask
from selgen.generate import Generation, generate

SHORT = Generation(max_new_tokens=8)
SAMPLED = Generation(max_new_tokens=8, temperature=1.0, top_p=0.9)


def question(text: str, completion: str = "it is 6 .", /, **meta: Any) -> Example:
    return ask(text, completion, **meta)


def questions(num: int) -> list[Example]:
    """Different prompts of different lengths with answers of different lengths."""
    draw = random.Random(0)
    words = [w for w in tiny.WORDS if w not in ("user", "assistant")]
    return [
        question(" ".join(draw.choices(words, k=draw.randint(3, 15))), "it is " + "right " * draw.randint(0, 9) + "6 .")
        for _ in range(num)
    ]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny.tokenizer()


def test_responses_come_in_the_order_of_the_examples(model, tokenizer):
    examples = questions(30)
    together = generate(model, tokenizer, examples, SHORT)
    alone = [generate(model, tokenizer, [example], SHORT)[0] for example in examples]
    assert together == alone
    assert len(set(together)) > 10


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [1, 4, 7, 64])
def test_greedy_text_does_not_depend_on_the_batch_size(architecture, batch_size, tokenizer):
    model, examples = tiny.model(architecture), questions(20)
    at_once = generate(model, tokenizer, examples, SHORT)
    assert generate(model, tokenizer, examples, Generation(8, batch_size)) == at_once


def test_greedy_text_is_the_argmax_of_a_plain_forward(model, tokenizer):
    example = question("what is the gcd of 6 9 ?")
    ids = tokenizer("<bos> <start> user what is the gcd of 6 9 ? <end> <start> assistant", add_special_tokens=False)
    ids, said = ids["input_ids"], []
    with torch.no_grad():
        for _ in range(8):
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
            if said[-1] == tokenizer.eos_token_id:
                break
    assert generate(model, tokenizer, [example], SHORT) == [tokenizer.decode(said, skip_special_tokens=True).strip()]


def test_no_special_token_is_left_in_a_response(model, tokenizer):
    responses = generate(model, tokenizer, questions(40), SAMPLED)
    assert not any(token in response for response in responses for token in tiny.SPECIAL if token != "<unk>")


def test_equal_prompts_are_answered_once_when_greedy_and_each_for_itself_when_sampled(model, tokenizer, monkeypatch):
    rows: list[int] = []
    respond = gen._respond
    monkeypatch.setattr(gen, "_respond", lambda m, t, batch: rows.append(len(batch)) or respond(m, t, batch))
    examples = [question("what is the gcd of 6 9 ?")] * 40 + [question("what is the gcd of 6 3 ?")]
    greedy = generate(model, tokenizer, examples, SHORT)
    assert rows == [2]
    assert len(set(greedy[:40])) == 1
    assert len(set(generate(model, tokenizer, examples, SAMPLED)[:40])) > 1
    assert rows == [2, 41]


def test_prompts_whose_gold_answers_are_about_as_long_share_a_batch(tokenizer):
    examples = questions(30)
    asked = gen.questions(tokenizer, examples, SHORT)
    lengths = [len(examples[i].completion.split()) for i in asked.rows]
    assert lengths == sorted(lengths) and len(set(lengths)) > 5


@pytest.mark.parametrize(("ends", "passes"), [(range(99), 1), ([98], 8)], ids=["at once", "never"])
def test_a_batch_goes_on_until_its_last_response_has_ended_and_no_longer(tokenizer, monkeypatch, ends, passes):
    model = tiny.model()
    monkeypatch.setattr(gen, "end_tokens", lambda *_: list(ends))
    forwards: list[int] = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    generate(model, tokenizer, questions(20), SHORT)
    assert len(forwards) == passes


def test_sampling_repeats_with_its_seed_and_changes_with_another(model, tokenizer):
    examples = questions(20)
    first = generate(model, tokenizer, examples, SAMPLED)
    torch.manual_seed(123)
    assert generate(model, tokenizer, examples, SAMPLED) == first
    assert generate(model, tokenizer, examples, Generation(8, temperature=1.0, top_p=0.9, seed=1)) != first


def test_a_vanishing_temperature_or_nucleus_is_greedy(model, tokenizer):
    examples = questions(20)
    greedy = generate(model, tokenizer, examples, SHORT)
    assert generate(model, tokenizer, examples, Generation(8, temperature=1e-4)) == greedy
    assert generate(model, tokenizer, examples, Generation(8, temperature=1.0, top_p=1e-6)) == greedy


def test_settings_of_the_model_directory_do_not_leak_into_sampling(tokenizer):
    model, examples = tiny.model(), questions(20)
    plain = [generate(model, tokenizer, examples, g) for g in (SHORT, SAMPLED)]
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=9.0, min_new_tokens=7)
    assert [generate(model, tokenizer, examples, g) for g in (SHORT, SAMPLED)] == plain


@pytest.mark.parametrize("generation", [SHORT, SAMPLED])
def test_training_draws_the_same_random_numbers_whether_or_not_it_was_interrupted(model, tokenizer, generation):
    def draws(interrupted: bool) -> tuple[Any, ...]:
        random.seed(0)
        torch.manual_seed(0)
        torch.rand(3)
        if interrupted:
            generate(model, tokenizer, questions(5), generation)
        return torch.get_rng_state().tolist(), torch.rand(5).tolist(), random.random()

    assert draws(True) == draws(False)


def test_the_model_is_left_as_it_was(tokenizer):
    torch.manual_seed(0)
    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5))
    model.train()
    frozen = model.base_model.model.model.layers[0].eval()
    model.config.use_cache = False
    suggested = model.base_model.model.generation_config
    weights = {name: p.clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = [m.training for m in model.modules()]
    first, second = (generate(model, tokenizer, questions(9), SHORT) for _ in range(2))
    assert first == second, "dropout was on"
    assert [m.training for m in model.modules()] == modes and model.training and not frozen.training
    assert model.config.use_cache is False and model.base_model.model.generation_config is suggested
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(torch.equal(p, weights[name]) and p.grad is None for name, p in model.named_parameters())


def test_the_adapter_is_on(tokenizer):
    torch.manual_seed(0)
    plain, examples = tiny.model(), questions(20)
    before = generate(plain, tokenizer, examples, SHORT)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    with_adapter = generate(model, tokenizer, examples, SHORT)
    assert with_adapter != before
    assert generate(model.merge_and_unload(), tokenizer, examples, SHORT) == with_adapter


def test_training_can_go_on_after_an_evaluation(tokenizer):
    model = tiny.model().train()
    generate(model, tokenizer, questions(2), SHORT)
    loss = model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_nothing_to_ask_gives_nothing(model, tokenizer):
    assert generate(model, tokenizer, [], SHORT) == []


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_impossible_generation_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"generation.{next(iter(wrong))} should be"):
        Generation(**wrong)


@pytest.mark.parametrize("changes", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_folding_the_adapter_in_changes_no_text_and_no_bit(tokenizer, changes, monkeypatch):
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, **changes)
    model, examples = get_peft_model(tiny.model(), config), questions(20)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    folded = generate(model, tokenizer, examples, SHORT)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    monkeypatch.setattr(adapters, "MAX_FOLDED_BYTES", 0)
    assert generate(model, tokenizer, examples, SHORT) == folded


def test_a_tied_head_is_not_folded_since_the_embedding_would_change_with_it(tokenizer):
    model = tiny.model(tie_word_embeddings=True)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    head = model.get_base_model().lm_head.get_base_layer().weight
    before = head.detach().clone()
    with adapters.folded(model):
        assert torch.equal(head, before)
