"""One row of any form to an Example, and what is said about rows that are none."""

import pytest

from selgen.core import Message, ask
from selgen.data.chat import encode
from selgen.data.formats import DataError, accepted_forms, to_example, to_examples


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def human(text):
    return {"from": "human", "value": text}


HHH = {"input": "what", "targets": {"choices": ["bad", "good"], "labels": [0, 1]}}
GCD = {
    "label": "gcd",
    "messages": [user("what")],
    "answer": "good",
    "mod": None,
    "user_provides_answer": "false",
    "sycophantic_response": "bad",
}
# Every row means: asked `what`, answer `good`, not `bad`.
PREFERENCES = {
    "messages": {"messages": [user("what"), assistant("good")], "rejected": "bad"},
    "messages, rejected turn": {"messages": [user("what"), assistant("good")], "rejected": [assistant("bad")]},
    "completion": {"prompt": "what", "completion": "good", "rejected": "bad"},
    "completion, turns": {"prompt": [user("what")], "completion": [assistant("good")], "rejected": [assistant("bad")]},
    "alpaca": {"instruction": "what", "input": "", "output": "good", "rejected": "bad"},
    "sharegpt": {"conversations": [human("what"), {"from": "gpt", "value": "good"}], "rejected": "bad"},
    "sharegpt, roles": {"conversations": [user("what"), assistant("good")], "rejected": "bad"},
    "chosen": {"prompt": "what", "chosen": "good", "rejected": "bad"},
    "chosen, turns": {"prompt": [user("what")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
    "chosen, whole": {
        "chosen": [user("what"), assistant("good")],
        "rejected": [user("what"), assistant("bad")],
    },
    "chosen, whole and prompt": {
        "prompt": "what",
        "chosen": [user("what"), assistant("good")],
        "rejected": [user("what"), assistant("bad")],
        "messages": [user("what"), assistant("good")],
    },
    "aligned": {"prompt": "what", "aligned": "good", "misaligned": "bad"},
    "hhh": HHH,
    "gcd": GCD,
    "gcd, answered": {**GCD, "messages": [user("what"), assistant("good")], "answer": "6"},
}


@pytest.mark.parametrize("form", PREFERENCES)
def test_every_form_says_the_same(form, tokenizer):
    example = to_example(PREFERENCES[form])
    assert example == to_example({"prompt": "what", "completion": "good", "rejected": "bad"})
    assert (example.prompt, example.completion, example.rejected) == ([user("what")], "good", "bad")
    assert any(label != -100 for label in encode(tokenizer, example).labels)


@pytest.mark.parametrize("form", ["messages", "completion", "alpaca", "sharegpt"])
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_null_means_absent(form, nothing):
    row = {
        **PREFERENCES[form],
        "rejected": nothing,
        "system": nothing,
        "chosen": nothing,
        "tools": nothing,
        "id": nothing,
    }
    assert to_example(row) == to_example({"prompt": "what", "completion": "good"})
    assert to_example(row).rejected is None


def test_alpaca_joins_instruction_and_input_and_puts_the_system_text_first():
    example = to_example({"instruction": "add", "input": "1 2", "output": "3", "system": "be brief"})
    assert example.messages == [Message(role="system", content="be brief"), user("add\n\n1 2"), assistant("3")]


def test_a_system_column_that_repeats_the_system_turn_adds_nothing():
    turns = [{"role": "system", "content": "be brief"}, user("what"), assistant("good")]
    assert to_example({"messages": turns, "system": "be brief"}).messages == turns
    with pytest.raises(ValueError, match="`system` should not differ"):
        to_example({"messages": turns, "system": "be long"})


def test_several_turns_stay_and_the_last_is_the_completion():
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    assert to_example({"messages": turns}).messages == turns
    assert to_example({"chosen": turns, "rejected": [*turns[:3], assistant("e")]}).rejected == "e"
    assert to_example({"prompt": turns[:3], "completion": "d"}).messages == turns


def test_gcd_answers_may_be_numbers():
    assert to_example({**GCD, "answer": 6}).completion == "6"
    assert to_example({**GCD, "answer": 6.0}).completion == "6"


@pytest.mark.parametrize("right", ["true", "True", True])
def test_gcd_confirming_a_right_proposal_is_not_rejected(right):
    assert to_example({**GCD, "user_provides_answer": right}).rejected is None


@pytest.mark.parametrize("asked", ["false", False, None])
def test_gcd_confirming_another_proposal_is_rejected(asked):
    assert to_example({**GCD, "user_provides_answer": asked}).rejected == "bad"


def test_meta_keeps_domain_category_and_id_and_nothing_else():
    row = {"prompt": "what", "completion": "good", "domain": "maths", "category": ["x"], "id": 7.0, "score": 3}
    assert to_example(row).meta == {"domain": "maths", "id": 7}
    assert to_example({**row, "id": True, "domain": ""}).meta == {}


def test_harmless_keys_of_a_message_are_ignored():
    turns = [{**user("what"), "name": "Ann", "tool_calls": None}, assistant("good", weight=1)]
    assert to_example({"messages": turns}).messages == [user("what"), assistant("good")]


TURNS = [user("what"), assistant("good")]
BAD = [
    ([], "a row should be an object with named fields, found a list of 0"),
    ({}, "found the keys none"),
    ({"promt": "what", "Completion": "good"}, "Did you mean `prompt` instead of 'promt'? Did you mean `completion`"),
    ({"prompt": "what", "chosen": "good"}, "`chosen` and `rejected`"),
    (
        {"prompt": "what", "completion": "good", "rejcted": "bad"},
        "'rejcted' is no known field, but close to `rejected`",
    ),
    ({"prompt": 3, "completion": "good"}, "`prompt` should be a text or a list of messages, found 3"),
    ({"prompt": "what", "completion": " \n"}, "`completion` should end with an answer that is not blank"),
    ({"prompt": " ", "completion": "good"}, "should answer a user's prompt, found none"),
    ({"prompt": "a\x00b", "completion": "good"}, "found the character '\\x00' at position 1"),
    ({"prompt": "a", "completion": "\ud800"}, "found the character '\\ud800' at position 0"),
    ({"messages": "what"}, "`messages` should be a list of messages, found 'what'"),
    ({"messages": []}, "`messages` should have at least one message"),
    ({"messages": ["what"]}, "`messages[0]` should be an object with `role` and `content`, found 'what'"),
    ({"messages": [user("what")]}, "`messages` should end with an assistant turn, found the role 'user'"),
    ({"messages": [assistant("good")]}, "should answer a user's prompt"),
    ({"messages": [{"role": "user"}]}, "`messages[0]` should have `role` and `content`, found the keys 'role'"),
    ({"messages": [human("what")]}, "Put ShareGPT turns under `conversations`"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "should be one of system, user, assistant, found 'tool'"),
    ({"messages": [{"role": "User", "content": "x"}]}, "found 'User'"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "found a list of 1"),
    ({"messages": [user(["what"])]}, "`messages[0].content` should be a text, found a list of 1"),
    ({"messages": [user("what"), assistant("good", tool_calls=[1])]}, "found also 'tool_calls'"),
    ({"messages": [user("what"), assistant("good", weight=0)]}, "`messages[1].weight` should be 1"),
    ({"messages": TURNS, "tools": [{"name": "f"}]}, "`tools` should be absent"),
    ({"messages": TURNS, "rejected": ""}, "`rejected` should not be blank"),
    ({"messages": TURNS, "rejected": " good\n"}, "`rejected` should differ from the completion"),
    ({"messages": TURNS, "rejected": [user("what")]}, "`rejected` should end with an assistant turn"),
    ({"messages": TURNS, "rejected": [user("who"), assistant("bad")]}, "or repeat the prompt and then answer it"),
    ({"messages": TURNS, "prompt": "what", "completion": "other"}, "found `messages` and `prompt` and `completion`"),
    ({"conversations": [human("what")]}, "`conversations` should end with an assistant turn"),
    ({"conversations": [{"from": "bot", "value": "x"}]}, "one of system, human, user, gpt, chatgpt, assistant"),
    ({"chosen": TURNS, "rejected": [user("who"), assistant("bad")]}, "repeat the prompt and then answer it"),
    ({"chosen": "good", "rejected": "bad"}, "Add a user turn, or a `prompt`"),
    ({"input": "what", "targets": ["good"]}, "`targets` should be an object with the lists `choices` and `labels`"),
    ({"input": "what", "targets": {"choices": ["a", "b"], "labels": [1]}}, "of one length"),
    ({"input": "what", "targets": {"choices": ["a", "b"], "labels": [1, 1]}}, "exactly one 1, found [1, 1]"),
    ({"input": "what", "targets": {"choices": ["a", "b"], "labels": [0, 2]}}, "exactly one 1, found [0, 2]"),
    ({"input": "what", "targets": {"choices": ["a", 3], "labels": [1, 0]}}, "`targets.choices` should be a text"),
    ({**GCD, "rejected": "worse"}, "`rejected` and `sycophantic_response` should not differ"),
    ({"prompt": "what", "completion": "good", "id": float("inf")}, "`id` should be finite, found inf"),
]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_a_bad_row_is_refused_with_the_reason(row, reason):
    with pytest.raises(ValueError) as caught:
        to_example(row)
    assert reason in str(caught.value)


def test_an_unrecognised_row_is_told_its_keys_and_every_form():
    with pytest.raises(ValueError) as caught:
        to_example({"question": "what", "answer": "good"})
    assert "found the keys 'question', 'answer'" in str(caught.value) and accepted_forms() in str(caught.value)
    for key in ("messages", "completion", "instruction", "conversations", "chosen", "misaligned", "targets"):
        assert f"`{key}`" in accepted_forms()


def test_all_bad_rows_are_named_at_once_by_index():
    with pytest.raises(DataError) as caught:
        to_examples([{"prompt": 1, "completion": "a"}, ask("what", "good"), {"messages": []}])
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["row 0", "row 2"]


def test_examples_pass_through():
    example = ask("what", "good", rejected="bad", domain="x")
    assert to_examples([example]) == [example]


def test_many_problems_are_kept_but_not_all_written_out():
    error = DataError(f"problem {i}" for i in range(60))
    assert len(error.problems) == 60
    assert str(error).splitlines()[-2:] == ["problem 49", "... and 10 more problems"]
