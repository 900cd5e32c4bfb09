"""A model as judge: the score is the mean of the numbers with which it would begin its answer, by their probability."""

import subprocess
import sys

import pytest
import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from selgen import models, tiny
from selgen.core import Message
from selgen.data.chat import prompt_text
from selgen.judges._numbers import spell
from selgen.judges.local import Local

PROMPTS = ["is it right ?", "yes", "what is the capital of France ? it is Rome . is it right ?", "no , it is not"]
WORDS = ["user", "assistant", "is", "it", "the", "not", "right", "yes", "no"]
WHOLE = [str(n) for n in range(101)]
DIGITS = list("0123456789")
NOISE = [f"w{i}" for i in range(2000)]


def tokenizer(numbers: list[str], template: str = tiny.TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per word; numbers as whole tokens, or digit by digit if only digits are given."""
    vocabulary = {word: i for i, word in enumerate([*tiny.SPECIAL, *WORDS, *numbers])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    split = pre_tokenizers.Split(Regex(r"\d" if numbers == DIGITS else r"\d+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), split])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<end>", unk_token="<unk>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<start>"]})
    made.chat_template = template
    return made


def save(path, numbers: list[str], seed: int = 0, template: str = tiny.TEMPLATE) -> str:
    made = tokenizer(numbers, template)
    tiny.model(seed=seed, vocab_size=len(made)).save_pretrained(path)
    made.save_pretrained(path)
    return str(path)


@pytest.fixture(params=[WHOLE, DIGITS], ids=["whole", "digits"])
def directory(request, tmp_path) -> str:
    return save(tmp_path / "model", request.param)


def by_hand(directory: str, prompt: str) -> tuple[float, float]:
    """The mean and the mass: the probability of each number as text, less that of the numbers that go on from it."""
    model, tok = models.load(directory)
    model.eval()
    text = prompt_text(tok, [Message(role="user", content=prompt)])
    start = tok(text, add_special_tokens=False)["input_ids"]

    def probability(number: str) -> float:
        """Of an answer that begins with this text, by the chain rule over one plain forward pass."""
        ids = tok(text + number, add_special_tokens=False)["input_ids"]
        assert ids[: len(start)] == start
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        return sum(logprobs[i - 1, ids[i]] for i in range(len(start), len(ids))).exp().item()

    begins = {n: probability(str(n)) for n in range(101)}
    digits = len(tok("100", add_special_tokens=False)["input_ids"]) == 3
    longer = {n: [m for m in range(101) if digits and len(str(m)) == len(str(n)) + 1 and m // 10 == n] for n in begins}
    longer[0] = []  # 05 is no number of ours
    alone = {n: begins[n] - sum(begins[m] for m in longer[n]) for n in begins}
    return sum(n * p for n, p in alone.items()) / sum(alone.values()), sum(alone.values())


def test_the_score_is_the_mean_over_numbers_computed_by_hand(directory):
    for prompt, verdict in zip(PROMPTS, Local(directory, dtype="float32").judge_many(PROMPTS), strict=True):
        mean, mass = by_hand(directory, prompt)
        assert mass > 0.25
        assert verdict.score == pytest.approx(mean, abs=1e-4)
        assert verdict.reason is None


def test_the_batch_does_not_change_the_scores(directory, monkeypatch, tmp_path):
    together = Local(directory, dtype="float32", batch_size=8).judge_many(PROMPTS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    one_by_one = Local(directory, dtype="float32", batch_size=1)
    assert [j.score for j in one_by_one.judge_many(PROMPTS)] == pytest.approx([j.score for j in together], abs=1e-4)
    assert one_by_one.usage == {"calls": len(PROMPTS), "cached": 0}
    assert len({j.score for j in together}) == len(PROMPTS)


@pytest.mark.parametrize(("numbers", "passes"), [(WHOLE, 1), (DIGITS, 11)])
def test_as_many_beginnings_as_stated_are_read(numbers, passes):
    spelling = spell(tokenizer(numbers), "made")
    assert len(spelling.children) == passes
    assert [len(spelling.tokens[n]) for n in (7, 85, 100)] == ([1, 1, 1] if numbers is WHOLE else [1, 2, 3])


def test_a_model_that_would_say_something_else_gives_no_score_and_is_asked_again(tmp_path):
    directory = save(tmp_path / "model", [*WHOLE, *NOISE])
    for _ in range(2):
        judge = Local(directory, dtype="float32")
        (verdict,) = judge.judge_many(PROMPTS[:1])
        assert by_hand(directory, PROMPTS[0])[1] < 0.25
        assert verdict.score is None
        assert "have a probability of" in str(verdict.reason)
        assert verdict.reply in tokenizer([*WHOLE, *NOISE]).get_vocab()
        assert judge.usage == {"calls": 1, "cached": 0}


def test_a_second_run_does_not_load_the_weights(directory, monkeypatch):
    first = Local(directory, dtype="float32").judge_many([*PROMPTS, *PROMPTS])
    assert first[: len(PROMPTS)] == first[len(PROMPTS) :]
    monkeypatch.setattr(Local, "_load", lambda self: pytest.fail("the weights are loaded"))
    again = Local(directory, dtype="float32")
    assert again.judge_many(PROMPTS) == first[: len(PROMPTS)]
    assert again.usage == {"calls": 0, "cached": len(PROMPTS)}


def test_verdicts_belong_to_the_weights_and_not_to_where_they_lie(tmp_path):
    first = Local(save(tmp_path / "a", WHOLE), dtype="float32").judge_many(PROMPTS)
    copy, other = Local(save(tmp_path / "b", WHOLE), dtype="float32"), Local(save(tmp_path / "a", WHOLE, seed=1))
    assert copy.judge_many(PROMPTS) == first
    assert copy.usage["cached"] == len(PROMPTS)
    assert other.judge_many(PROMPTS) != first
    assert other.usage["cached"] == 0


def test_thinking_is_off_where_the_template_knows_it(tmp_path):
    thinks = tiny.TEMPLATE.replace(
        "{{ '<start> assistant ' }}",
        "{{ '<start> assistant ' }}{% if enable_thinking is not defined or enable_thinking %}{{ 'yes ' }}{% endif %}",
    )
    assert thinks != tiny.TEMPLATE
    plain = Local(save(tmp_path / "plain", WHOLE), dtype="float32").judge_many(PROMPTS)
    thinking = Local(save(tmp_path / "thinks", WHOLE, template=thinks), dtype="float32")
    assert thinking.judge_many(PROMPTS) == plain
    assert thinking.usage["cached"] == 0


def test_one_batch_that_fails_does_not_take_the_others_along(directory, monkeypatch):
    from selgen.judges import _numbers

    real = _numbers.next_probabilities

    def short_of_memory(model, tok, prompts, beginnings):
        if PROMPTS[0] in prompts:
            raise torch.OutOfMemoryError("no memory left")
        return real(model, tok, prompts, beginnings)

    monkeypatch.setattr(_numbers, "next_probabilities", short_of_memory)
    failed, *others = Local(directory, dtype="float32", batch_size=1).judge_many(PROMPTS)
    assert (failed.score, failed.reason) == (None, "not judged: OutOfMemoryError: no memory left")
    assert None not in [j.score for j in others]


def test_check_accepts_a_usable_model_without_loading_its_weights(directory, monkeypatch):
    monkeypatch.setattr(Local, "_load", lambda self: pytest.fail("the weights are loaded"))
    Local(directory).check()


def test_a_model_that_is_not_there_is_refused_and_judges_nothing():
    judge = Local("./nowhere")
    with pytest.raises(ValueError, match="judge.model should be a model directory or a hub id, found './nowhere'"):
        judge.check()
    (verdict,) = judge.judge_many(["a"])
    assert (verdict.score, verdict.reply) == (None, None)
    assert "./nowhere" in str(verdict.reason)


def test_a_tokenizer_without_numbers_is_refused(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a tokenizer that writes every number from 0 to 100, found that of"):
        Local(str(tmp_path)).check()


def test_the_batch_size_is_checked():
    with pytest.raises(ValueError, match="judge.batch_size should be >= 1, found 0"):
        Local("m", batch_size=0)


def test_naming_a_local_judge_does_not_load_torch():
    code = (
        "import sys\nfrom selgen import config\nconfig.build('judges', {'name': 'local', 'model': 'm'})\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
