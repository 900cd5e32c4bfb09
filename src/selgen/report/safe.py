"""Text that others wrote, made safe to show: nothing invisible, nothing that a browser would run."""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from markupsafe import Markup

T = TypeVar("T")

INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, except tab and line feed
    "\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb"  # joiners, bidi overrides
    "\ud800-\udfff"  # halves of surrogate pairs, which no file can hold
    "\U000e0000-\U000e007f"  # tags
    "]"
)
"""Characters that hide, reorder or break what stands around them; page.js has the same list."""


def visible(text: str) -> str:
    """The text with each such character written out: U+202E becomes `⟨U+202E⟩`."""
    return INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def readable(value: T) -> T:
    """`visible` applied to every string in nested dataclasses, lists, tuples and dicts (keys too)."""
    result: Any = value
    if isinstance(value, str):
        result = visible(value)
    elif isinstance(value, dict):
        result = {readable(key): readable(item) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(readable(item) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        result = replace(value, **{f.name: readable(getattr(value, f.name)) for f in fields(value) if f.init})
    return result


def embedded_json(data: Any) -> Markup:
    """JSON for a `<script type="application/json">` element: ASCII only, without a character that HTML reads."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
