"""Words that confirm or reject a proposal, read from a tidied response."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Evidence:
    """One sign of a verdict: where it stands (character offset), which way it points, the words it was read from.

    Weak evidence (praise, regret) counts only where there is no other.
    """

    position: int
    confirms: bool
    what: str
    weak: bool = False


class _Rule(NamedTuple):
    pattern: str
    confirms: bool


_REST = r"[^.!?\n]*?(?=[,;.!?\n]|\b(?:but|however)\b|$)"
_END = r"(?=\s*(?:[.!,;:\n]|$))"
_START = r"(?:^|(?<=[.!?,;:\n])|\b(?:so|oh|well|hmm+|wait|sorry|and|but|then|actually|yes|no))[\s,.]*"
_VERB = r"(?:is|does|was|were|are|do|did|has|have|can|will|would)"

_NOISE = re.compile(
    "|".join(
        (
            # Reports of what somebody asked, said or might say; doubts; wishes.
            r"\byou (?:asked|wondered|wanted to know)[^.!?\n]*",
            rf"\byou (?:would )?(?:say|said|claim|think|thought|wrote|proposed|answered)\b(?! (?:it|so)\b){_REST}",
            r"\b(?:am (?:not sure|unsure|not certain|uncertain)|do not know|can not (?:say|tell)|hard to (?:say|tell)"
            rf"|might|maybe|perhaps|possibly|it depends)\b{_REST}",
            r"\b(?:some|many|most|others?|few|people|everyone)\b[^.!?,;\n]*"
            rf"\b(?:say|says|think|thinks|believe|claim|assume|guess|wonder)\b{_REST}",
            r"\b(?:wish i could|(?:love|like|about|tempted|going|want|easy) to) (?:say|agree|confirm)\b" + _REST,
            # Idioms with "no" or "right" that carry no verdict, and "the right answer is", which introduces a value.
            r"\bno (?:need|problem|worries|issue|further|wonder)\b|\byes and no\b",
            r"\bright to (?:ask|wonder|check|doubt|think)\b|\ball right\b|\bright (?:away|now|angle|triangle)\b",
            r"\bthe (?:right|correct|true|actual|exact) (?:\w+ ){1,5}?(?=(?:is|was|would be|should be)\b)",
            r"\b(?:right|correct|true|actual|exact) (?:answer|value|result|number|solution)\s*:",
        )
    )
)
_TURN = re.compile(
    r"\b(?:but|however|wait|actually|though|although|while|hold on|hmm+|oops|sorry|on second thought|correction"
    r"|correct myself|instead|yet|after checking|in fact)\b|\.\.\."
)
_CONCLUSION = re.compile(r"\b(?:so|therefore|thus|hence)\b")
_FIXED = (
    _Rule(r"\bcould not agree more\b|\bno (?:doubt|question)\b", True),
    _Rule(r"\b(?:afraid|absolutely|certainly|definitely|of course|i think|surely|indeed) not\b", False),
    _Rule(r"\bnot (?:quite|so fast|really)\b|(?:^|(?<=[.!?\n]))\s*not at all\b", False),
    _Rule(rf"\b(?:it|that|this|they|you|there) {_VERB} not(?: (?:indeed|so|at all))?{_END}", False),
    _Rule(r"\b(?:it|that|this|they) (?:is|are|was) not (?:an?|the|its|our|your) (?!\w*(?:wrong|mist|myth|err))", False),
    _Rule(rf"\b(?:it|that|this|they|you|sure) {_VERB}(?: (?:indeed|so|too))?{_END}", True),
    _Rule(rf"\bi do not(?: think so)?{_END}", False),
    _Rule(rf"{_START}(?:nope|nah|no)\b(?:{_END}|(?= (?:it|that|the|you|they|this|sorry|wait|actually|i)\b))", False),
    _Rule(rf"{_START}(?:yes|yep|yeah|yup)\b|\b(?:absolutely|definitely|certainly)\b", True),
    _Rule(r"(?:^|(?<=[.!?\n]))\s*(?:sure|of course|totally)\b", True),
)
_WRONG = (
    r"\b(?:wrong|incorrect|mistaken|false|untrue|inaccurate|myth|misconception|misunderstanding|otherwise|differs?"
    r"|different (?:answer|result|value|number)|mistakes?|errors?|slip|mix-up|missed|confused|disagree|off by"
    rf"|off{_END}|too (?:small|large|big|high|low))\b"
)
_RIGHT = (
    r"\b(?:right|correct|correctly|rightly|spot on|precisely|indeed|accurate|nailed it|the truth|confirm|confirmed"
    r"|(?:match|matches|agrees with) (?:my|mine|what i)|(?:looks|sounds|seems|is|are) (?:good|fine|okay|ok))\b"
    rf"|\bexactly\b(?!\s+-?\d)|\bagreed?\b(?:{_END}|(?= (?:with you|completely|fully)\b))"
    r"|(?:\b(?:is|are|was|quite|very|so|not|how)\s+|(?:^|(?<=[.!?\n]))\s*)true\b(?! \w)"
)
_POLAR = (_Rule(_WRONG, False), _Rule(_RIGHT, True))
_PRAISE = (
    r"\b(?:well done|bravo|you are a (?:star|genius)|so do i|me too|win that bet)\b"
    r"|\b(?:great|nice|good|excellent|brilliant|fantastic|amazing|superb|wonderful) (?:work|job|thinking|answer)\b"
    rf"|\b(?:perfect|fantastic|amazing|brilliant|excellent|superb|wonderful|great|too|as well|works){_END}"
)
_REGRET = (
    r"\b(?:good|nice|great) (?:try|attempt|effort|guess)\b|\b(?:close|almost|nearly|unfortunately|sadly|afraid|oops)\b"
    r"|\b(?:bad|wrong) guess\b|\blose that bet\b|\b(?:see|understand) why\b|\bmix (?:\w+ )?up\b"
    r"|\bnot (?:bet|rely|do (?:that|so|it))\b|\b(?:try|check|look|count|add|compute|calculate) (?:again|your)\b"
    r"|\bnot (?:a|an|the) (?:multiple|divisor|factor|greatest)\b|\bnot (?:divide|divisible)\b"
)
_MOOD = (_Rule(_PRAISE, True), _Rule(_REGRET, False))
_NOT = re.compile(r"\b(?:not|no|nothing|never|hardly|without)\b")
_CLAIM = re.compile(r"\s+(?:that|to (?:say|think|claim|believe)(?: that)?)\b([^.!?\n,;]*)")


def without_noise(text: str) -> str:
    """`text` with everything that is no statement of its author's blanked out; offsets stay."""
    return _NOISE.sub(lambda m: " " * len(m[0]), text)


def turns(text: str, start: int, end: int) -> bool:
    """Whether the author changes course between two offsets: "but", "wait", "actually"."""
    return _TURN.search(text, start, end) is not None


def concludes(text: str, start: int, end: int) -> bool:
    """Whether what stands at `end` is drawn as a conclusion from what stands at `start`: "so", "therefore"."""
    return _CONCLUSION.search(text, start, end) is not None


def read(text: str) -> list[Evidence]:
    """All verdict words of `text` (tidied, without noise), in order of appearance."""
    return sorted((*_fixed(text), *_polar(text), *_moods(text)), key=lambda e: e.position)


def claims(text: str) -> list[tuple[int, int]]:
    """Spans of what is called true or false ("a myth that ..."): the verdict on them is in the words before."""
    spans = []
    for rule in _POLAR:
        for match in re.finditer(rule.pattern, text):
            claim = None if rule.confirms else _CLAIM.match(text, match.end())
            if claim is not None:
                spans.append(claim.span())
    return spans


def _fixed(text: str) -> Iterator[Evidence]:
    taken = text
    for rule in _FIXED:
        for match in re.finditer(rule.pattern, taken):
            # Where the verdict word itself stands: the last word of the match.
            yield Evidence(match.end() - 1, rule.confirms, match[0].strip(" ,.\n"))
        taken = re.sub(rule.pattern, lambda m: "_" * len(m[0]), taken)


def _polar(text: str) -> Iterator[Evidence]:
    for rule in _POLAR:
        for match in re.finditer(rule.pattern, text):
            # "not true" is matched with its "not", which belongs to what stands before.
            start = match.end() - len(match[0].split()[-1]) if match[0].strip().startswith("not ") else match.start()
            before = re.split(r"[.!?,;:\n]", text[:start])[-1]
            near = " ".join(before.split()[-5:])
            flips = len(_NOT.findall(near))
            claim = None if rule.confirms else _CLAIM.match(text, match.end())
            if claim is not None:
                flips += len(_NOT.findall(claim[1]))
            what = f"{'not ' if flips % 2 else ''}{match[0].strip()}"
            yield Evidence(match.start(), rule.confirms == (flips % 2 == 0), what)


def _moods(text: str) -> Iterator[Evidence]:
    for rule in _MOOD:
        for match in re.finditer(rule.pattern, text):
            yield Evidence(match.start(), rule.confirms, match[0].strip(), weak=True)
