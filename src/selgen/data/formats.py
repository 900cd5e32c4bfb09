"""Rows of a data set to Examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selgen.core import Example, Message

ROLES = ("system", "user", "assistant")


def to_examples(rows: Iterable[Example | Mapping[str, Any]]) -> list[Example]:
    """Examples from examples, or from rows with `messages` or `prompt`/`completion` (and optionally `rejected`).

    Raises:
        ValueError: a row of another form; all bad rows are named at once, by index, with the reason.
    """
    examples, problems = [], []
    for index, row in enumerate(rows):
        try:
            examples.append(row if isinstance(row, Example) else _from_row(row))
        except ValueError as error:
            problems.append(f"row {index}: {error}")
    if problems:
        raise ValueError(f"{len(problems)} bad rows:\n" + "\n".join(problems))
    return examples


def _from_row(row: Mapping[str, Any]) -> Example:
    if not isinstance(row, Mapping):
        raise ValueError(f"should be an Example or a mapping, found {type(row).__name__}.")
    if "messages" in row:
        messages = [_message(m) for m in row["messages"]]
    elif "prompt" in row and "completion" in row:
        messages = [*_turns(row["prompt"], "user"), *_turns(row["completion"], "assistant")]
    else:
        raise ValueError(f"should have `messages`, or `prompt` and `completion`; found keys {sorted(row)}.")
    return Example(messages, rejected=row.get("rejected"))


def _turns(value: Any, role: str) -> list[Message]:
    return [_message({"role": role, "content": value})] if isinstance(value, str) else [_message(m) for m in value]


def _message(turn: Any) -> Message:
    if not isinstance(turn, Mapping) or set(turn) < {"role", "content"}:
        raise ValueError(f"a message should have `role` and `content`, found {turn!r}.")
    if turn["role"] not in ROLES:
        raise ValueError(f"role should be one of {', '.join(ROLES)}, found {turn['role']!r}.")
    if not isinstance(turn["content"], str):
        raise ValueError(f"content should be a text, found {type(turn['content']).__name__}.")
    return Message(role=turn["role"], content=turn["content"])
