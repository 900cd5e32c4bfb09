"""One text, one chat turn, one conversation of a row: checked, or refused with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selgen.core import Message

KEYS = ("role", "content")
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}
# Keys of a message that say nothing about what the model sees or learns. Any other key (tool_calls, images,
# reasoning_content, ...) might, so it is refused rather than lost.
HARMLESS = frozenset({"name", "weight", "id", "index", "timestamp", "model", "language", "lang", "token_count"})
# Lone surrogates cannot be encoded, and NUL ends a string in much of what a tokenizer calls.
UNUSABLE = re.compile("[\x00\ud800-\udfff]")


def absent(value: Any) -> bool:
    """None and NaN: what Parquet, CSV and pandas give where a row has no value."""
    return value is None or (isinstance(value, float) and value != value)


def shown(value: Any) -> str:
    """A short name of any value for an error message; it never recurses, so deep nesting is no danger."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return f"an object with {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}"


def named(keys: Sequence[Any]) -> str:
    """Keys for an error message, at most twelve of them."""
    more = [f"and {len(keys) - 12} more"] if len(keys) > 12 else []
    return ", ".join([*(shown(key) for key in keys[:12]), *more]) or "none"


def text(value: Any, field: str) -> str:
    """The value if it is a text that can be tokenised.

    Raises:
        ValueError: not a string, or one with a lone surrogate or a NUL character.
    """
    if not isinstance(value, str):
        raise ValueError(f"`{field}` should be a text, found {shown(value)}. Write it as one string.")
    unusable = UNUSABLE.search(value)
    if unusable:
        raise ValueError(
            f"`{field}` should be a text that can be encoded, found the character {unusable.group()!r} at position "
            f"{unusable.start()}. Remove it, and save the file as UTF-8."
        )
    return value


def turns(value: Any, field: str, role: str | None = None, sharegpt: bool = False) -> list[Message]:
    """Chat turns from a list of messages, or from a text where `role` says whose it is.

    Args:
        value: A list of `{"role", "content"}`, or a string if `role` is given.
        field: Its key in the row, for error messages.
        role: Whose turn a plain string is; None allows no string.
        sharegpt: Also read `{"from", "value"}` and the role names human, gpt and chatgpt.

    Raises:
        ValueError: anything else; an unknown role; a key that would change what the model sees.
    """
    if role is not None and isinstance(value, str):
        return [_message(role, text(value, field))]
    if not isinstance(value, list | tuple):
        kinds = "a list of messages" if role is None else "a text or a list of messages"
        raise ValueError(f"`{field}` should be {kinds}, found {shown(value)}. Write it so.")
    if not value:
        raise ValueError(f"`{field}` should have at least one message, found an empty list. Add the turns.")
    found = [_turn(turn, f"{field}[{i}]", sharegpt) for i, turn in enumerate(value)]
    if found[-1]["role"] == "assistant" and value[-1].get("weight") == 0:
        raise ValueError(
            f"`{field}[{len(found) - 1}].weight` should be 1, because the last answer is what is learned, found 0. "
            "Remove the row or the weight."
        )
    return found


def conversation(prompt: list[Message], answer: list[Message], field: str) -> list[Message]:
    """The prompt followed by its answer; an answer that repeats the prompt is the whole conversation already.

    Raises:
        ValueError: the answer neither begins with an assistant turn nor repeats the prompt.
    """
    n = len(prompt)
    after_system = answer[1:] if answer[0]["role"] == "system" else answer
    if answer[:n] == prompt or after_system[:n] == prompt:
        return answer
    if answer[0]["role"] != "assistant":
        raise ValueError(
            f"`{field}` should be the assistant's answer, or repeat the prompt and then answer it; found a first turn "
            f"of role {answer[0]['role']!r} that is not the prompt's. Make both say the same prompt."
        )
    return [*prompt, *answer]


def _turn(turn: Any, field: str, sharegpt: bool) -> Message:
    if not isinstance(turn, Mapping):
        raise ValueError(f"`{field}` should be an object with `role` and `content`, found {shown(turn)}. Write it so.")
    fields = {key: value for key, value in turn.items() if not absent(value)}
    role_key, content_key = ("from", "value") if sharegpt and not {"role", "content"} <= set(fields) else KEYS
    if not {role_key, content_key} <= set(fields):
        sharegpt_here = not sharegpt and {"from", "value"} <= set(fields)
        remedy = "Put ShareGPT turns under `conversations`." if sharegpt_here else "Give the turn both."
        raise ValueError(
            f"`{field}` should have `{role_key}` and `{content_key}`, found the keys {named(list(fields))}. {remedy}"
        )
    unknown = [key for key in fields if key not in HARMLESS and key not in (role_key, content_key)]
    if unknown:
        raise ValueError(
            f"`{field}` should have `{role_key}` and `{content_key}` alone, found also {named(unknown)}, which may "
            "change what the model sees. Remove it, or the row."
        )
    roles = SHAREGPT_ROLES if sharegpt else {role: role for role in ROLES}
    role = fields[role_key]
    if not isinstance(role, str) or role not in roles:
        raise ValueError(f"`{field}.{role_key}` should be one of {', '.join(roles)}, found {shown(role)}. Rename it.")
    return _message(roles[role], text(fields[content_key], f"{field}.{content_key}"))


def _message(role: Any, content: str) -> Message:
    return Message(role=role, content=content)
