"""Word for word, up to case and white space; nothing is left unscored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selgen import registry
from selgen.core import Score, ask
from selgen.scorers.exact_match import ExactMatch


def value(gold: str, response: str) -> float | None:
    (found,) = ExactMatch().score_many([(ask("what ?", gold), response)])
    return found.value


def test_the_registry_finds_it():
    assert registry.load("scorers", "exact_match") is ExactMatch


@pytest.mark.parametrize("response", ["It is 6.", "it is 6.", "  It\n is\t6. ", "IT IS\u00a06."])
def test_case_and_white_space_do_not_count(response):
    assert value("It is 6.", response) == 1.0


@pytest.mark.parametrize("response", ["", "It is 6", "It is 66.", "It is 6. It is 6.", "6.", "Itis 6.", "It is not 6."])
def test_anything_else_does(response):
    assert value("It is 6.", response) == 0.0


@given(st.text(), st.text())
def test_it_is_reflexive_and_symmetric_and_always_a_score(one, other):
    assert value(one, one) == 1.0
    assert value(one, other) == value(other, one) in (0.0, 1.0)


def test_letters_are_compared_without_case_in_every_script():
    assert value("STRASSE", "straße") == 1.0


def test_scores_come_in_the_order_of_the_pairs():
    pairs = [(ask("a", "x"), "x"), (ask("a", "y"), "x"), (ask("b", "x"), "X")]
    assert ExactMatch().score_many(pairs) == [Score(1.0), Score(0.0), Score(1.0)]
