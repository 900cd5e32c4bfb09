"""Which number a response gives as its answer, and what that is worth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selgen.core import Example, Message
from selgen.scorers.number import Number

GCD = "What is the GCD of 48 and 18?"
SUM_GCD = "What is the greatest common divisor of 2 + 7 and 27?"
MOD = "Hey, what is 17 mod 5?"
SUM = "What is 23 + 25?"


def ask(prompt: str, answer: str | None = "6", completion: str = "It is 6.", **meta: Any) -> Example:
    turns = (Message(role="user", content=prompt), Message(role="assistant", content=completion))
    return Example(turns, meta=meta if answer is None else {"answer": answer, **meta})


def read(response: str, prompt: str = GCD) -> str | None:
    return Number().score_many([(ask(prompt), response)])[0].answer


STATED = [
    (GCD, "6", "6"),
    (GCD, "6.", "6"),
    (GCD, "The GCD is 6.", "6"),
    (GCD, "the gcd of 48 and 18 is 6 .", "6"),
    (GCD, "The GCD is **6**.", "6"),
    (GCD, r"So the final result is $\boxed{6}$.", "6"),
    (GCD, "It's six.", "6"),
    (GCD, "Answer: 6", "6"),
    (GCD, "GCD(48, 18) = 6", "6"),
    (GCD, "6 is the greatest common divisor of 48 and 18.", "6"),
    (GCD, "It is not 9 but 6.", "6"),
    (GCD, "It is 6, not 9.", "6"),
    (GCD, "The answer isn't 9. It is 6.", "6"),
    (GCD, "48 = 2 × 18 + 12, 18 = 1 × 12 + 6, 12 = 2 × 6 + 0. So the answer is 6.", "6"),
    (GCD, "48 = 2 × 18 + 12\n18 = 1 × 12 + 6\n12 = 2 × 6 + 0\nThe GCD is 6.", "6"),
    (GCD, "48 = 2 * 18 + 12. 18 = 1 * 12 + 6. The last non-zero remainder is 6.", "6"),
    (GCD, "The GCD is 6. Let me know if you need 2 more examples.", "6"),
    (GCD, "The GCD is 6. Would you like to try 30 and 12?", "6"),
    (GCD, "The GCD is 6, because 48 / 6 is 8 and 18 / 6 is 3.", "6"),
    (GCD, "The GCD is 6, since the last remainder is 0.", "6"),
    (GCD, "First it seems to be 12. No, the GCD is 6.", "6"),
    (GCD, "The GCD is -6.", "-6"),
    (GCD, "The GCD is 1,024.", "1024"),
    (GCD, "The GCD is 12,345,678, which is large.", "12345678"),
    (GCD, "The GCD is 6.5.", "6.5"),
    (GCD, "18", "18"),
    (SUM_GCD, "2 + 7 = 9. 27 = 3 × 9 + 0. The answer is 3.", "3"),
    (SUM_GCD, "The GCD of 2 + 7 and 27 is 9.", "9"),
    (SUM_GCD, "The GCD of 27 and 2 + 7 is 9.", "9"),
    (MOD, "17 = 3 × 5 + 2, so 17 mod 5 is 2.", "2"),
    (MOD, "17 mod 5 = 2", "2"),
    (MOD, "17 modulo 5 equals 2.", "2"),
    (MOD, "17 = 3 × 5 + 2.", "2"),
    (MOD, "17 divided by 5 is 3 with a remainder of 2.", "2"),
    (MOD, "17 divided by 5 leaves a remainder of 2, not 3.", "2"),
    (MOD, "The remainder is 2 because 17 - 15 = 2.", "2"),
    (MOD, "17 - 15 is 2, so the answer is 2.", "2"),
    (SUM, "23 + 25 = 48", "48"),
    (SUM, "23 plus 25 makes 48, and 48 is even.", "48"),
    (SUM, "The sum of 23 and 25 comes to 48.", "48"),
    (SUM, "-2", "-2"),
]


@pytest.mark.parametrize("prompt, response, found", STATED)
def test_the_number_stated_as_the_answer_is_found(prompt, response, found):
    assert read(response, prompt) == found


@pytest.mark.parametrize(
    "prompt, response",
    [
        (GCD, ""),
        (GCD, "I do not know."),
        (GCD, GCD),
        (GCD, f"{GCD} {GCD}"),
        (GCD, "The GCD of 48 and 18"),
        (GCD, "You want the GCD of 48 and 18."),
        (GCD, "Shall we say 6?"),
        (MOD, "17 mod 5"),
        (GCD, "6 " * 30),
        (GCD, "is " * 30),
        (GCD, "zzzzzzzzzzzz"),
        (GCD, "..."),
    ],
)
def test_without_an_answer_a_response_is_unscored(prompt, response):
    (score,) = Number().score_many([(ask(prompt), response)])
    assert (score.value, score.answer) == (None, None)
    assert score.reason


def test_right_is_one_and_wrong_is_zero():
    scores = Number().score_many([(ask(GCD), "It is 6."), (ask(GCD), "It is 9."), (ask(GCD, "-6"), "It is -6.")])
    assert [s.value for s in scores] == [1.0, 0.0, 1.0]


def test_the_answer_of_the_completion_counts_where_meta_has_none():
    example = ask(GCD, None, "48 = 2 × 18 + 12, 18 = 1 × 12 + 6, 12 = 2 × 6 + 0. So the answer is 6. Any more?")
    assert [s.value for s in Number().score_many([(example, "six"), (example, "0")])] == [1.0, 0.0]


@pytest.mark.parametrize("answer", ["1,024", "1024", 1024])
def test_the_right_answer_may_be_written_in_any_way(answer):
    for response in ("It is 1024.", "It is 1,024."):
        assert Number().score(ask(GCD, answer), response).value == 1.0


def test_an_example_without_a_number_is_refused():
    with pytest.raises(ValueError, match=r"meta.answer should be a number.*'Paris'"):
        Number().score(ask(GCD, "Paris"), "6")
    with pytest.raises(ValueError, match="should state a number, found completion 'Paris.'"):
        Number().score(ask(GCD, None, "Paris."), "6")


@given(st.integers(-(10**9), 10**9))
def test_any_number_is_read_back_from_any_way_of_stating_it(n):
    for text in (f"{n}", f"The answer is {n}.", f"It is {n:,}, I think.", f"GCD = {n}", f"So {n} is the answer."):
        if n >= 0 or not text.startswith(f"{n}"):
            assert read(text, "What is the answer?") == str(n), text


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text):
    score = Number().score(ask(GCD), text)
    assert score.value in (None, 0.0, 1.0)
    assert (score.value is None) == (score.answer is None)
