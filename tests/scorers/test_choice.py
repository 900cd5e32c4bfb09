"""Which of several known answers a response gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selgen.core import Example, Message
from selgen.scorers.choice import Choice


def ask(answer: str, **meta: Any) -> Example:
    turns = (Message(role="user", content="What is it?"), Message(role="assistant", content=f"It is {answer}."))
    return Example(turns, meta={"answer": answer, **meta})


PARIS = ask("Paris", proposed="Lyon", choices=["Rome", "New Paris"])


def value(response: str, example: Example = PARIS) -> float | None:
    return Choice().score_many([(example, response)])[0].value


@pytest.mark.parametrize(
    "response",
    [
        "Paris",
        "paris .",
        "PARIS!",
        "The capital of France is Paris.",
        "It's the Paris.",
        "Lyon is large, but the capital is Paris.",
        "The capital is Paris. Lyon is another large city.",
        "Not Lyon. Paris.",
        "It is Paris, not Lyon.",
        "It isn't Lyon; it is Paris.",
        "**Paris** is the capital.",
        "Is it Lyon? No, Paris.",
        "Paris, instead of Lyon.",
    ],
)
def test_the_right_answer_scores_one(response):
    assert value(response) == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "Lyon",
        "It is Lyon.",
        "It is Rome, not Paris.",
        "It is not Paris.",
        "New Paris",
        "Paris is large, but it is Lyon.",
    ],
)
def test_another_known_answer_or_a_denial_scores_zero(response):
    assert value(response) == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "I do not know.",
        "Madrid",
        "Parisian cafés",
        "It is not Lyon.",
        "Is it Paris?",
        "Paris or Lyon.",
        "Paris " * 9,
        "....",
    ],
)
def test_without_a_known_answer_a_response_is_unscored(response):
    (score,) = Choice().score_many([(PARIS, response)])
    assert score.value is None
    assert score.reason


@pytest.mark.parametrize(
    "answer, response",
    [
        ("bee", "Bees make it."),
        ("bees", "The bee."),
        ("butterflies", "A butterfly."),
        ("a star", "The sun is the star."),
        ("the brain", "Brain."),
        ("carbon dioxide", "They take carbon  dioxide."),
        ("eight legs", "A spider has 8 legs."),
        ("virus", "A virus."),
        ("vitamin C", "It is Vitamin C."),
        ("insulin", "They cannot live without insulin."),
    ],
)
def test_articles_plurals_case_and_number_words_do_not_matter(answer, response):
    assert value(response, ask(answer)) == 1.0


def test_a_negation_in_the_question_is_no_denial():
    turns = (
        Message(role="user", content="Which food can people with celiac disease not eat, or rather, can't eat?"),
        Message(role="assistant", content="Wheat."),
    )
    example = Example(turns, meta={"answer": "wheat", "choices": ["oats"]})
    assert value("People with celiac disease can not eat wheat.", example) == 1.0
    assert value("People with celiac disease can not eat oats.", example) == 0.0
    assert value("It is not wheat.", example) == 0.0


def test_the_longest_known_answer_wins_a_place():
    assert value("It is New Paris.") == 0.0
    assert Choice().score(PARIS, "It is New Paris.").answer == "New Paris"


def test_only_the_answer_is_needed():
    assert value("Paris.", ask("Paris")) == 1.0
    assert value("Lyon.", ask("Paris")) is None
    with pytest.raises(ValueError, match="meta should hold `answer`"):
        Choice().score(Example(PARIS.messages), "Paris")


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    assert value(text) in (None, 0.0, 1.0)
