"""What a text says about itself, without any judge: is it repetitive, does it refuse?"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

_REFUSALS = re.compile(
    r"\b(?:(?:i|we) (?:can(?:no|')?t|cannot|won'?t|will not|am unable to|'m unable to|am not able to|'m not able to|"
    r"must decline|have to decline|refuse to)\b.{0,40}"
    r"\b(?:help|assist|answer|provide|give|do|with|that|comply|share|discuss)"
    r"|(?:i am|i'm) (?:sorry|afraid),? (?:but )?i (?:can|won)"
    r"|as an ai\b.{0,60}\b(?:can(?:no|')?t|cannot|unable|not able))",
    re.IGNORECASE | re.DOTALL,
)
_OPENING = 300
"""Characters in which a refusal shows; later ones are usually about something else."""


def repetition(text: str) -> float:
    """How repetitive a text is, in [0, 1]: the share of it that compression (deflate) takes away.

    Prose of a sentence gives about 0, of a page about 0.5; one repeated character or word gives close to 1, and so does
    an empty text, which says nothing.
    """
    raw = text.strip().encode()
    if not raw:
        return 1.0
    packer = zlib.compressobj(level=9, wbits=-15)  # no header: it would outweigh a short text
    packed = packer.compress(raw) + packer.flush()
    return max(0.0, 1 - len(packed) / len(raw))


def refusal(text: str) -> float:
    """1 if the text opens by declining to answer (English phrases), else 0."""
    return float(bool(_REFUSALS.search(text[:_OPENING].replace("\u2019", "'"))))


MEASURES: dict[str, Callable[[str], float]] = {"repetition": repetition, "refusal": refusal}
"""Raw numbers that any eval may put conditions on."""
