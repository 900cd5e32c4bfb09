"""A reply is a score only if it says one number from 0 to 100 and nothing else could be meant."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selgen.judges._reading import TokenLogprob, declined, number, read, weighted_mean


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("85", 85),
        (" 85\n", 85),
        ("85.", 85),
        ("85/100", 85),
        ("85 / 100.", 85),
        ("85 out of 100", 85),
        ("100/100", 100),
        ("Score: 85.", 85),
        ("score=85, because it is careful", 85),
        ("**85**", 85),
        ("<score>85</score>", 85),
        ("85%", 85),
        ("- 85", 85),
        ("7.5", 7.5),
        ("0", 0),
        ("100", 100),
        ("", None),
        ("high", None),
        ("eighty-five", None),
        ("101", None),
        ("850", None),
        ("-5", None),
        ("−5", None),
        ("8/10", None),
        ("85/1000", None),
        ("70-80", None),
        ("85 or 90", None),
        ("Between 0 and 100 I say 85", None),
        ("1,000", None),
        ("3.141.592", None),
        ("GPT4", None),
        ("4th", None),
        ("85 ٣", None),
    ],
)
def test_the_number_in_a_reply(reply, score):
    assert number(reply) == score
    assert read(reply).score == score


@given(st.text())
def test_any_text_is_read_without_an_error_as_a_score_or_a_reason(reply):
    verdict = read(reply)
    assert (verdict.score is None) == (verdict.reason is not None)
    assert verdict.score is None or 0 <= verdict.score <= 100
    assert verdict.reply == reply


@pytest.mark.parametrize("reply", ["REFUSAL", " REFUSAL.", "CODE", '"CODE"'])
def test_a_judge_that_declines_gives_no_score_and_its_word_is_kept(reply):
    verdict = read(reply)
    assert declined(reply)
    assert (verdict.score, verdict.reply) == (None, reply)
    assert "declined" in str(verdict.reason)


def test_a_refusal_to_judge_is_not_declining():
    assert not declined("I cannot judge that. REFUSAL is what I would say")
    assert not declined(None)


def tokens(**probabilities: float) -> list[TokenLogprob]:
    return [TokenLogprob(token.strip("_"), math.log(p)) for token, p in probabilities.items()]


def test_the_weighted_mean_by_hand():
    # (80 * .5 + 90 * .25) / .75; "REFUSAL" and "101" are no numbers from 0 to 100
    first = tokens(_80=0.5, _90=0.25, REFUSAL=0.15, _101=0.1)
    assert read("80", first, sampled="80").score == pytest.approx(62.5 / 0.75)


def test_spaces_around_a_token_do_not_matter():
    first = [TokenLogprob(" 80", math.log(0.5)), TokenLogprob("80", math.log(0.3)), TokenLogprob("20 ", math.log(0.2))]
    assert read("80", first, sampled=" 80").score == pytest.approx(0.8 * 80 + 0.2 * 20)


@pytest.mark.parametrize(("mass", "score"), [(0.24, None), (0.26, 80.0)])
def test_numbers_with_less_than_a_quarter_of_the_probability_give_no_score(mass, score):
    verdict = read("80", tokens(_80=mass, I=1 - mass), sampled="80")
    assert verdict.score == (score if score is None else pytest.approx(score))
    if score is None:
        assert verdict.reason == "the numbers 0 to 100 have a probability of 0.24 together, less than 0.25"


def test_the_mean_of_nothing_is_none():
    assert weighted_mean([]) == (None, 0)


@pytest.mark.parametrize(
    ("reply", "sampled", "first", "score"),
    [
        # "85" written as "8", "5": the mean of the first digits would be 8.1
        ("85", "8", tokens(_8=0.9, _9=0.1), 85),
        # "8" by a tokenizer of which no longer number is seen: "9" may be the beginning of 90
        ("8", "8", tokens(_8=0.9, _9=0.1), 8),
        # the first token is no number, or another one than the reply's
        ("Score: 85", "Score", tokens(Score=0.9, _85=0.1), 85),
        ("85.5", "85", tokens(_85=0.9, _86=0.1), 85.5),
        # on another scale
        ("8/10", "8", tokens(_8=0.9, _10=0.1), None),
        ("eighty", "eighty", tokens(eighty=0.5, _80=0.5), None),
    ],
)
def test_log_probabilities_that_may_belong_to_half_a_number_are_not_averaged(reply, sampled, first, score):
    assert read(reply, first, sampled=sampled).score == score


def test_a_one_digit_reply_is_averaged_where_longer_numbers_are_tokens():
    assert read("8", tokens(_8=0.5, _10=0.5), sampled="8").score == pytest.approx(9)


def test_a_number_at_the_end_of_a_reply_that_was_cut_may_be_half_of_one():
    assert read("I say 8", cut=True).score is None
    assert read("85, which", cut=True).score == 85
    assert read("85", tokens(_85=0.5, _95=0.5), sampled="85", cut=True).score == pytest.approx(90)
