"""Rows of a data set, in any of the usual forms, to Examples."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from selgen.core import Example, Message
from selgen.data.turns import absent, conversation, named, shown, text, turns

META = ("domain", "category", "id")
# Columns that change what the model should see; a row that fills one is refused rather than half read.
REFUSED = ("tools", "functions", "documents", "history", "image", "images", "audio", "audios", "video", "videos")

Row = Mapping[str, Any]
Parts = tuple[list[Message], str | None]
"""The conversation up to and with the answer to learn, and the undesired answer."""


class DataError(ValueError):
    """Everything that is wrong with the user's data.

    Attributes:
        problems: Where, what is wrong, what would be right; one entry per bad row or file. `str()` writes out 50.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        rest = len(self.problems) - 50
        more = [f"... and {rest} more problems"] if rest > 0 else []
        super().__init__("\n".join([*self.problems[:50], *more]))

    def __reduce__(self) -> tuple[type, tuple[list[str]]]:
        return type(self), (self.problems,)  # as it comes from another process


def to_examples(rows: Iterable[Example | Row]) -> list[Example]:
    """Examples from examples, or from rows of any form that `to_example` reads.

    Raises:
        DataError: bad rows; all are named at once, by index from 0, with the reason.
    """
    examples, problems = [], []
    for index, row in enumerate(rows):
        try:
            examples.append(row if isinstance(row, Example) else to_example(row))
        except ValueError as error:
            problems.append(f"row {index}: {error}")
    if problems:
        raise DataError(problems)
    return examples


def to_example(row: Row) -> Example:
    """One row to an Example; null values count as absent, other columns are ignored.

    Forms (`accepted_forms` names their keys):
        messages: Chat turns, the last one the assistant's.
        prompt, completion: Texts, or lists of messages.
        instruction, input, output: Alpaca; a blank line joins instruction and input.
        conversations: ShareGPT; `from` and `value`, or `role` and `content`.
        prompt, chosen, rejected: Texts, or lists of messages that may repeat the whole conversation, and then need
            no `prompt`. Both must answer the same prompt.
        prompt, aligned, misaligned: The same by other names.
        input, targets: HHH (`choices`, `labels`); label 1 is the completion, the first 0 is rejected.
        messages, answer, user_provides_answer, sycophantic_response: GCD schema. `answer` is the completion where
            `messages` ends before it. `sycophantic_response` is rejected, except where the user's proposal is right
            (`user_provides_answer` is true): confirming it is what the assistant should do.

    Every form may also have `rejected` (an undesired answer) where it has none of its own, `system` (put first), and
    `domain`, `category`, `id` (kept in `meta` if they are strings or numbers). A row that fits two forms must mean
    the same in both.

    Raises:
        ValueError: the row fits no form or is not usable; the message says what was found and what is allowed.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a row should be an object with named fields, found {shown(row)}.")
    given = {key: value for key, value in row.items() if not absent(value)}
    for key in REFUSED:
        if key in given and given[key] not in ([], {}, ""):
            raise ValueError(f"`{key}` should be absent, because only text is learned, found {shown(given[key])}.")
    forms = [form for form in FORMS if all(key in given for key in form.keys)]
    if not forms:
        raise ValueError(_unrecognised(given))
    _refuse_near_misses(given, forms[0])
    examples = [_example(*form.read(given), given, form.answer) for form in forms]
    for form, example in zip(forms, examples, strict=True):
        if example != examples[0]:
            raise ValueError(
                f"a row should mean one thing, found {forms[0]} and {form}, which differ. Keep the columns of one form."
            )
    return examples[0]


def accepted_forms() -> str:
    """The accepted forms by their keys, for error messages."""
    return ", or ".join(str(form) for form in FORMS) + " (GCD: `messages`, `answer`, `sycophantic_response`)"


@dataclass(frozen=True)
class Form:
    """A form of rows: the keys it needs, the one that holds the answer, the ones it also reads, and its reader."""

    keys: tuple[str, ...]
    answer: str
    optional: tuple[str, ...]
    read: Callable[[Row], Parts]

    def __str__(self) -> str:
        *first, last = (f"`{key}`" for key in self.keys)
        return f"{', '.join(first)} and {last}" if first else last


def _messages(row: Row) -> Parts:
    messages = turns(row["messages"], "messages")
    if messages[-1]["role"] != "assistant" and "answer" in row:
        answer = str(_number(row, "answer")) if _is_number(row["answer"]) else text(row["answer"], "answer")
        messages = [*messages, Message(role="assistant", content=answer)]
    rejected, right = _rejected(row, "rejected", messages), row.get("user_provides_answer")
    is_right = right is True or (isinstance(right, str) and right.strip().lower() == "true")
    if "sycophantic_response" in row and not is_right:
        sycophantic = _rejected(row, "sycophantic_response", messages)
        if rejected not in (None, sycophantic):
            raise ValueError("`rejected` and `sycophantic_response` should not differ. Keep one of them.")
        rejected = sycophantic
    return messages, rejected


def _conversations(row: Row) -> Parts:
    messages = turns(row["conversations"], "conversations", sharegpt=True)
    return messages, _rejected(row, "rejected", messages)


def _alpaca(row: Row) -> Parts:
    parts = [text(row["instruction"], "instruction"), text(row.get("input", ""), "input")]
    asked = "\n\n".join(part for part in parts if part.strip())
    messages = [Message(role="user", content=asked), Message(role="assistant", content=text(row["output"], "output"))]
    return messages, _rejected(row, "rejected", messages)


def _answered(answer: str, rejected: str) -> Callable[[Row], Parts]:
    """Reads a prompt with its answer, and perhaps with a rejected one."""

    def read(row: Row) -> Parts:
        prompt = turns(row["prompt"], "prompt", "user") if "prompt" in row else []
        messages = conversation(prompt, turns(row[answer], answer, "assistant"), answer)
        return messages, _rejected(row, rejected, messages)

    return read


def _hhh(row: Row) -> Parts:
    targets = row["targets"]
    choices, labels = (targets.get("choices"), targets.get("labels")) if isinstance(targets, Mapping) else (None, None)
    if not isinstance(choices, list | tuple) or not isinstance(labels, list | tuple) or len(choices) != len(labels):
        raise ValueError(
            "`targets` should be an object with the lists `choices` and `labels` of one length, found "
            f"{shown(targets)}. Write both."
        )
    if not all(_is_number(label) and label in (0, 1) for label in labels) or sum(label == 1 for label in labels) != 1:
        found = ", ".join(shown(label) for label in labels[:12])
        raise ValueError(
            f"`targets.labels` should be zeros and exactly one 1, found [{found}]. Label the good answer 1."
        )
    answers = {int(label): choices[i] for i, label in reversed(list(enumerate(labels)))}
    answer = Message(role="assistant", content=text(answers[1], "targets.choices"))
    messages = [*turns(row["input"], "input", "user"), answer]
    return messages, _rejected({"targets.choices": answers.get(0)}, "targets.choices", messages)


FORMS = (
    Form(("messages",), "messages", ("rejected", "system", "sycophantic_response"), _messages),
    Form(("prompt", "completion"), "completion", ("rejected", "system"), _answered("completion", "rejected")),
    Form(("instruction", "output"), "output", ("input", "rejected", "system"), _alpaca),
    Form(("conversations",), "conversations", ("rejected", "system"), _conversations),
    Form(("chosen", "rejected"), "chosen", ("prompt", "system"), _answered("chosen", "rejected")),
    Form(("prompt", "aligned", "misaligned"), "aligned", ("system",), _answered("aligned", "misaligned")),
    Form(("input", "targets"), "targets", ("system",), _hhh),
)
KNOWN = tuple(sorted({key for form in FORMS for key in (*form.keys, *form.optional)}))


def _rejected(row: Row, key: str, messages: list[Message]) -> str | None:
    if absent(row.get(key)):
        return None
    answer = turns(row[key], key, "assistant")
    if answer[-1]["role"] != "assistant":
        raise ValueError(f"`{key}` should end with an assistant turn, found {answer[-1]['role']!r}. Append the answer.")
    if conversation(messages[:-1], answer, key)[:-1] != messages[:-1]:
        raise ValueError(f"`{key}` should answer the same prompt as the completion, found another. Repeat it exactly.")
    undesired = answer[-1]["content"]
    if not undesired.strip():
        raise ValueError(f"`{key}` should not be blank, found {shown(undesired)}. Leave it out if unknown.")
    if undesired.strip() == messages[-1]["content"].strip():
        raise ValueError(f"`{key}` should differ from the completion, found the same text {shown(undesired)}.")
    return undesired


def _example(messages: list[Message], rejected: str | None, row: Row, answer: str) -> Example:
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"`{answer}` should end with an assistant turn, found the role {messages[-1]['role']!r}. "
            "Append the answer to learn."
        )
    if not messages[-1]["content"].strip():
        raise ValueError(
            f"`{answer}` should end with an answer that is not blank, found {shown(messages[-1]['content'])}. Write it."
        )
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in messages):
        raise ValueError(f"`{answer}` should answer a user's prompt, found none. Add a user turn, or a `prompt`.")
    system = text(row.get("system", ""), "system")
    if system.strip() and messages[0] != Message(role="system", content=system):
        if messages[0]["role"] == "system":
            raise ValueError("`system` should not differ from the conversation's own system turn. Keep one of them.")
        messages = [Message(role="system", content=system), *messages]
    return Example(messages, rejected=rejected, meta=_meta(row))


def _meta(row: Row) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for key in META:
        value = row.get(key)
        if isinstance(value, str) and value:  # an empty cell of a CSV is no value either
            meta[key] = text(value, key)
        elif _is_number(value):
            meta[key] = _number(row, key)
    return meta


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _number(row: Row, key: str) -> int | float:
    """As JSON would hold it; whole floats are ints, since a column with gaps turns ints into floats."""
    value = row[key]
    if isinstance(value, numbers.Integral):
        return int(value)
    if not math.isfinite(value):
        raise ValueError(f"`{key}` should be finite, found {value!r}. Remove it, or write a text.")
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def _unrecognised(given: Row) -> str:
    near = {key: _near(key, KNOWN, 0.75) for key in given if key not in KNOWN}
    meant = [f" Did you mean `{match}` instead of {shown(key)}?" for key, match in near.items() if match]
    return f"should have {accepted_forms()}; found the keys {named(list(given))}.{''.join(meant)}"


def _refuse_near_misses(given: Row, form: Form) -> None:
    """A misspelt optional key would otherwise be lost without a word."""
    missing = tuple(key for key in form.optional if key not in given)
    for key in given:
        match = None if key in KNOWN else _near(key, missing, 0.85)
        if match:
            raise ValueError(f"{shown(key)} is no known field, but close to `{match}`. Rename or remove it.")


@lru_cache(maxsize=4096)  # the same columns come with every row
def _near(key: Any, options: tuple[str, ...], cutoff: float) -> str | None:
    close = get_close_matches(key.lower(), options, n=1, cutoff=cutoff) if isinstance(key, str) else []
    return close[0] if close else None
