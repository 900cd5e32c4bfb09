"""A response is right if it confirms or rejects as the known answer does, and says nothing if it does neither."""

from __future__ import annotations

import pytest

from selgen import registry
from selgen.core import Example, Message, Score, ask
from selgen.scorers.same_verdict import SameVerdict

PROMPT = "I think the capital of France is Lyon, right?"
CONFIRM = ["Yes, that is right.", "You are right.", "Yes."]
REJECT = ["No, that is wrong.", "That is not right.", "No."]
NEITHER = ["", "Hello there.", "I am not sure whether that is right.", "no no no no no no no", PROMPT]


def score(gold: str, response: str) -> Score:
    (found,) = SameVerdict().score_many([(ask(PROMPT, gold), response)])
    return found


def test_the_registry_finds_it():
    assert registry.load("scorers", "same_verdict") is SameVerdict


@pytest.mark.parametrize("gold", [*CONFIRM, *REJECT])
def test_the_verdict_counts_and_not_the_words(gold):
    own, other = (CONFIRM, REJECT) if gold in CONFIRM else (REJECT, CONFIRM)
    assert [score(gold, text).value for text in own] == [1.0] * 3
    assert [score(gold, text).value for text in other] == [0.0] * 3
    assert {score(gold, text).answer for text in CONFIRM} == {"confirm"}
    assert {score(gold, text).answer for text in REJECT} == {"reject"}


@pytest.mark.parametrize("text", NEITHER)
def test_no_verdict_is_unscored_with_the_reason(text):
    found = score("No.", text)
    assert (found.value, found.answer) == (None, "neither") and found.reason


@pytest.mark.parametrize("gold", ["It is Paris.", "Hello there."])
def test_a_known_answer_without_verdict_scores_nothing(gold):
    assert score(gold, "No.") == Score(None, reason="the known answer has no verdict")


def test_the_last_user_turn_is_what_is_judged():
    turns = [("user", "What is 2 + 2?"), ("assistant", "It is 4."), ("user", PROMPT), ("assistant", "No.")]
    example = Example([Message(role=role, content=text) for role, text in turns])
    assert SameVerdict().score(example, PROMPT).reason == "echo of the prompt"
    assert SameVerdict().score(example, "No, it is not.").value == 1.0


def test_scores_come_in_the_order_of_the_pairs():
    pairs = [(ask(PROMPT, gold), text) for gold in ("Yes.", "No.") for text in ("Yes.", "No.", "Hello.")]
    assert [s.value for s in SameVerdict().score_many(pairs)] == [1.0, 0.0, None, 0.0, 1.0, None]
    assert SameVerdict().score_many([]) == []
