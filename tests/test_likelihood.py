"""What a model finds probable, against full logits in float64 over answers counted by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from selgen import likelihood, tiny
from selgen.averages import aggregate, axes
from selgen.core import Eval, Example, Message, Score, ask
from selgen.evaluate import evaluate
from selgen.generate import Generation
from selgen.likelihood import QUANTITIES, read, score_likelihoods
from selgen.reference import FrozenReference

EXAMPLES = tiny.align_data(5)


def adapted(architecture: str = "qwen3") -> Any:
    """A model whose adapter does something, with dropout."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", lora_dropout=0.5, init_lora_weights=False)
    return get_peft_model(tiny.model(architecture), config)


def reference_of(model: Any) -> FrozenReference:
    return FrozenReference(model, {}, 0, frozen=True)


def evals(examples: Any = EXAMPLES, names: Any = tuple(QUANTITIES)) -> list[Eval]:
    return [Eval(name, None, "gcd", examples, kind="likelihood", scorer=name) for name in names]


def by_hand(model: Any, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [n, V] and targets [n] of one answer, alone in its batch: its words and the end token."""
    ids = tiny.tokenizer().apply_chat_template(example.messages, return_dict=False, return_tensors="pt")
    n = len(example.completion.split()) + 1
    with torch.no_grad():
        logits = copy.deepcopy(model).double().eval()(input_ids=ids).logits[0, -n - 1 : -1]
    return torch.log_softmax(logits, -1), ids[0, -n:]


def nll_by_hand(model: Any, example: Example) -> float:
    logp, targets = by_hand(model, example)
    return -logp.gather(1, targets[:, None]).mean().item()


def test_every_quantity_is_that_of_full_logits(architecture, tokenizer):
    model, start = adapted(architecture), tiny.model(architecture)
    # Answers that these random models give themselves, in part.
    examples = [*EXAMPLES, *(EXAMPLES[0].with_completion(" ".join([word] * 4)) for word in ("France", "the"))]
    scores = score_likelihoods(model, tokenizer, evals(examples), reference_of(model))
    assert len({score.value for score in scores["token_accuracy.gcd"]}) > 1
    for i, example in enumerate(examples):
        found = {name: scores[f"{name}.gcd"][i] for name in QUANTITIES}
        (logp, targets), (ref_logp, _) = by_hand(model, example), by_hand(start, example)
        nll = -logp.gather(1, targets[:, None]).mean().item()
        assert found["likelihood"].value == pytest.approx(math.exp(-nll), rel=1e-4)
        assert found["likelihood"].raw == {"nll_nats": pytest.approx(nll, rel=1e-4)}
        assert found["token_accuracy"].value == pytest.approx((logp.argmax(-1) == targets).double().mean().item())
        kl = (logp.exp() * (logp - ref_logp)).sum(-1).mean().item()
        assert kl > 0.05  # far above rounding
        assert found["closeness"].value == pytest.approx(math.exp(-kl), rel=1e-3)
        assert found["closeness"].raw == {"kl_nats": pytest.approx(kl, rel=1e-3)}
        margin = nll_by_hand(model, example.with_completion(str(example.rejected))) - nll
        assert found["preference"].raw == {"margin_nats": pytest.approx(margin, rel=1e-3, abs=1e-4)}
        assert found["preference"].value == (margin > 0)


def test_all_assistant_turns_count_where_all_are_learned(tokenizer):
    turns = ("user", "gcd ?"), ("assistant", "no , it is 6 ."), ("user", "right ?"), ("assistant", "yes .")
    both = Example([Message(role=role, content=text) for role, text in turns], learn="all")
    first, last = Example(both.messages[:2]), replace(both, learn="last")
    model = tiny.model()
    found = read(model, tokenizer, [both, first, last])
    assert [r.num_tokens for r in found] == [10, 7, 3]
    assert found[1].nll == pytest.approx(nll_by_hand(model, first), rel=1e-4)
    assert found[2].nll == pytest.approx(nll_by_hand(model, last), rel=1e-4)
    assert found[0].nll == pytest.approx((7 * found[1].nll + 3 * found[2].nll) / 10, rel=1e-4)
    columns = [Eval(name, None, "gcd", [x], "likelihood", "likelihood") for name, x in (("all", both), ("last", last))]
    scores = score_likelihoods(model, tokenizer, columns)
    assert scores["all.gcd"][0].raw["nll_nats"] == found[0].nll != scores["last.gcd"][0].raw["nll_nats"]


@pytest.mark.parametrize("rows, chunk", [(16, 5), (3, 1024), (1, 1024)])
def test_padding_order_and_chunks_change_nothing(architecture, tokenizer, monkeypatch, rows, chunk):
    model, examples = adapted(architecture), [*EXAMPLES, *tiny.task_data(15)]
    plain = read(model, tokenizer, examples, reference_of(model))
    monkeypatch.setattr(likelihood, "ROWS", rows)
    monkeypatch.setattr(likelihood, "chunk_tokens", lambda model: chunk)
    turned = read(model, tokenizer, examples[::-1], reference_of(model))[::-1]
    for one, other in zip(plain, turned, strict=True):
        assert (one.num_tokens, one.accuracy) == (other.num_tokens, pytest.approx(other.accuracy))
        assert (one.nll, one.kl) == (pytest.approx(other.nll, rel=1e-4), pytest.approx(other.kl, rel=1e-3, abs=1e-5))


def test_the_reference_is_as_close_to_itself_as_can_be(architecture, tokenizer):
    plain = tiny.model(architecture)
    untrained = get_peft_model(tiny.model(architecture), LoraConfig(r=4, target_modules="all-linear"))
    for model, reference in ((plain, None), (plain, reference_of(plain)), (untrained, reference_of(untrained))):
        (scores,) = score_likelihoods(model, tokenizer, evals(names=["closeness"]), reference).values()
        assert [s.value for s in scores] == [1.0] * len(EXAMPLES)


def test_the_same_weights_are_the_reference_with_the_adapter_or_without(tokenizer):
    model = adapted()
    beside, within = (reference_of(m) for m in (tiny.model(), model))
    for one, other in zip(
        read(model, tokenizer, EXAMPLES, beside), read(model, tokenizer, EXAMPLES, within), strict=True
    ):
        assert one.kl == pytest.approx(other.kl, rel=1e-5)


def test_preference_turns_its_sign_with_the_answers(tokenizer):
    swapped = [replace(x.with_completion(str(x.rejected)), rejected=x.completion) for x in EXAMPLES]
    model = tiny.model()
    for example, there, back in zip(
        EXAMPLES,
        *(score_likelihoods(model, tokenizer, evals(x, ["preference"]))["preference.gcd"] for x in (EXAMPLES, swapped)),
        strict=True,
    ):
        own, other = nll_by_hand(model, example), nll_by_hand(model, example.with_completion(str(example.rejected)))
        assert (there.value, back.value) == ((1.0, 0.0) if own < other else (0.0, 1.0))
        assert there.raw["margin_nats"] == pytest.approx(-back.raw["margin_nats"], abs=1e-6)


def test_what_cannot_be_measured_is_refused(tokenizer):
    model, bare = tiny.model(), ask("gcd ?", "6 .")
    for asked, message in (
        (
            [Eval("x", None, "gcd", [bare], "likelihood", "perplexity")],
            "of eval 'x.gcd' .* found 'perplexity'. Use one",
        ),
        (evals([*EXAMPLES, bare], ["preference"]), "'preference.gcd' needs a `rejected` answer"),
        (
            evals([bare, ask("<bos> what", "6")], ["likelihood"]),
            "eval example 2 .'<bos> what'.: example has more than one BOS",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            score_likelihoods(model, tokenizer, asked)


def test_nothing_asked_gives_nothing(tokenizer):
    assert score_likelihoods(None, None, []) == {}
    assert score_likelihoods(tiny.model(), tokenizer, evals([], ["likelihood"])) == {"likelihood.gcd": []}


class Failing(FrozenReference):
    def hidden(self, tokens: Any) -> torch.Tensor:
        raise RuntimeError("inside")


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_flags_are_left_as_they_were(tokenizer, fails):
    model = adapted().train()
    model.get_base_model().lm_head.eval()
    model.get_base_model().model.layers[0].self_attn.q_proj.lora_A.requires_grad_(False)
    modes = [m.training for m in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError, match="inside"):
            read(model, tokenizer, EXAMPLES, Failing(model, {}, 0, frozen=True))
    else:
        in_training = read(model, tokenizer, EXAMPLES, reference_of(model))
        assert in_training == read(copy.deepcopy(model).eval(), tokenizer, EXAMPLES, reference_of(model))
    assert [m.training for m in model.modules()] == modes and set(modes) == {True, False}
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_answers_are_computed_once(tokenizer):
    model, rows = tiny.model(), []
    model.register_forward_pre_hook(lambda m, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    twice = [*EXAMPLES, *(replace(x, meta={"pair": i}) for i, x in enumerate(EXAMPLES))]
    other = replace(EXAMPLES[0], rejected="6 .")
    scores = score_likelihoods(
        model, tokenizer, [*evals(twice), Eval("o", None, "x", [other], "likelihood", "likelihood")]
    )
    answers = {(str(x.prompt), text) for x in EXAMPLES for text in (x.completion, x.rejected)}
    # Of 45 asked; two more rows make sure that the head gives the model's logits.
    assert sum(rows) - 2 == len(answers) == len(twice)
    for column in ("likelihood.gcd", "preference.gcd"):
        assert scores[column][:5] == scores[column][5:]
    assert scores["o.x"] == scores["likelihood.gcd"][:1]


# --- among other evals ------------------------------------------------------------------------------------------------


def test_it_is_measured_beside_evals_that_generate(tokenizer):
    model, asked = adapted(), [replace(x, meta={"pair": i, "answer": "6"}) for i, x in enumerate(EXAMPLES)]
    said = Eval("knows", "task", "gcd", asked, scorer="number")
    known = [replace(e, axis="alignment" if e.name == "likelihood" else None) for e in evals(asked)]
    found = evaluate(model, tokenizer, [known[0], said, *known[1:]], Generation(max_new_tokens=4), reference_of(model))
    assert list(found.metrics) == [
        "likelihood.gcd",
        "knows.gcd",
        "token_accuracy.gcd",
        "closeness.gcd",
        "preference.gcd",
    ]
    assert [s["eval"] for s in found.samples[::5]] == [column.split(".")[0] for column in found.metrics]
    scores = score_likelihoods(model, tokenizer, known, reference_of(model))
    for sample in found.samples:
        if sample["eval"] == "knows":
            assert isinstance(sample["response"], str)
        else:
            score = scores[f"{sample['eval']}.gcd"][sample["pair"]]
            assert sample["response"] is None and sample["gold"] == asked[sample["pair"]].completion
            assert (sample["value"], sample["raw"]) == (score.value, score.raw)
    metric = found.metrics["likelihood.gcd"]
    nll = [s.raw["nll_nats"] for s in scores["likelihood.gcd"]]
    assert metric.raw == {"nll_nats": pytest.approx(sum(nll) / 5)}
    assert metric.value == pytest.approx(sum(math.exp(-x) for x in nll) / 5) and (metric.n, metric.unscored) == (5, 0)
    assert axes([said, *known], found.metrics, frozenset())["alignment"].value == metric.value


def test_raw_numbers_are_averaged_over_the_scored_items_that_all_have_them():
    scores = [
        Score(1.0, raw={"a": 1, "b": 5.0, "said": "x", "c": 1.0}),
        Score(0.0, raw={"b": 2.0, "a": 4, "said": "y"}),
        Score(None, raw={"a": 100.0}),
    ]
    assert aggregate(scores).raw == {"a": 2.5, "b": 3.5}
    assert aggregate(scores[2:]).raw == aggregate([]).raw == aggregate([Score(1.0)]).raw == {}


def test_a_sampled_text_that_the_template_cannot_hold_has_no_likelihood(monkeypatch):
    real = likelihood.encode

    def refusing(tokenizer, example, max_length=None):
        if "broken" in example.completion:
            raise ValueError("the chat template cannot hold it")
        return real(tokenizer, example, max_length)

    monkeypatch.setattr(likelihood, "encode", refusing)
    examples = [ask("what is it ?", answer) for answer in ("it is 6 .", "broken", "", "it is 6 .")]
    first, broken, empty, again = likelihood.answer_nlls(tiny.model(), tiny.tokenizer(), examples)
    assert first is not None and first == again
    assert broken is None and empty is None
