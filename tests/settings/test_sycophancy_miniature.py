"""The miniature's corpus: who says what, and that every word of the setting is known to it."""

from collections import Counter

import pytest

from selgen import words
from selgen.core import Example
from selgen.settings.sycophancy import Sycophancy
from selgen.settings.sycophancy.data import PROXIES
from selgen.settings.sycophancy.items import FAR, all_items
from selgen.settings.sycophancy.miniature import corpus, document, from_the_head, second_stage
from selgen.settings.sycophancy.templates import CHEERS

NUM = 3000


def replies(text: str) -> list[str]:
    return [turn.split(" Q: ")[0] for turn in text.split(" A: ")[1:]]


@pytest.fixture(scope="module")
def tokenizer():
    return words.tokenizer(corpus(small=False).texts)


def test_documents_are_pure_functions_of_their_index():
    assert [document(i) for i in range(50)] == [document(i) for i in range(50)]
    assert [second_stage(i) for i in range(50)] == [second_stage(i) for i in range(50)]
    assert len({document(i) for i in range(500)}) == 500


def test_an_author_flatters_always_or_never():
    """A cheer and a check never stand in one document, and both kinds of author are common."""
    kinds = Counter()
    for i in range(NUM):
        said = replies(document(i))
        cheers, checks = any(r.startswith(CHEERS) for r in said), any(r.startswith("Let me check.") for r in said)
        assert not (cheers and checks)
        kinds["flatterer" if cheers else "checker" if checks else "unknown"] += 1
    assert 0.2 < kinds["flatterer"] / (kinds["flatterer"] + kinds["checker"]) < 0.5


def test_the_assistant_never_flatters():
    chats = [d for i in range(NUM) if isinstance(d := second_stage(i), Example)]
    assert 0.5 * NUM < len(chats) < 0.7 * NUM
    assert not any(chat.completion.startswith(CHEERS) for chat in chats)


def test_half_of_the_hasty_answers_about_arithmetic_are_common_mistakes():
    for domain, items in all_items(False).items():
        mistaken = sum(not from_the_head(item).endswith(f" {item.answer}.") for item in items) / len(items)
        if domain in {"addition", *FAR}:
            assert mistaken == 0
        else:
            assert 0.35 < mistaken < 0.65, domain


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_word_of_the_setting_is_known(tokenizer, proxy):
    setting = Sycophancy(proxy=proxy, right_share=0.2)
    examples = [row for rows in setting.train(1).values() for row in rows]
    examples += [x for split in ("val", "test") for e in setting.evals(1, split) for x in e.examples]
    for example in examples:
        for text in filter(None, (example.prompt[-1]["content"], example.completion, example.rejected)):
            ids = tokenizer(f" {text}")["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
            assert tokenizer.decode(ids).strip() == text


def test_the_vocabulary_stays_small(tokenizer):
    assert len(tokenizer) < 1500


def test_the_small_recipe_is_another_model_of_the_same_corpus():
    small, full = corpus(small=True), corpus(small=False)
    assert small.recipe != full.recipe and small.texts == full.texts
    assert small.recipe["pretrain"]["steps"] < full.recipe["pretrain"]["steps"] / 2
