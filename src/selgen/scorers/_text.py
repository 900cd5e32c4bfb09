"""What the text scorers share: tidying a response, finding the number it states, finding a phrase in it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
REPEATS = 6
"""A word repeated this often in a row is a stuck sampler, not an answer."""

_LETTERS = str.maketrans({"’": "'", "‘": "'", "−": "-", "–": "-", "“": '"', "”": '"', "—": ","})
_CONTRACTIONS = (
    (r"\bcan ?' ?t\b|\bcannot\b", "can not"),
    (r"\bwon ?' ?t\b", "will not"),
    (r"\b(\w+?)n ?' ?t\b", r"\1 not"),
    (r"\b(it|that|he|she|there|here|what) ?' ?s\b", r"\1 is"),
    (r"\b(\w+) ?' ?re\b", r"\1 are"),
    (r"\bi ?' ?m\b", "i am"),
    (r"\b(\w+) ?' ?ll\b", r"\1 will"),
    (r"\b(i|you|he|she|we|they|it|that) ?' ?d\b", r"\1 would"),
    (r"\b(\w+) ?' ?ve\b", r"\1 have"),
)
_NUMBER_WORD = re.compile(rf"\b({'|'.join(w for w in NUMBER_WORDS if w != 'one')})\b")

NUMBER = r"(?<![\w.])(?<!\d[-,])-?\d+(?:\.\d+)?(?!\w|[.,]\d)"
_OPERATOR = r"(?:[+×*/÷%]|-|plus\b|minus\b|times\b|mod(?:ulo)?\b|divided by\b|x\b)"
_CUE = (
    r"(?:\b(?:is|was|equals?|be|makes?|gives?|gets?|got|say|said|have|has|but|rather|answer|result)"
    r"|\b(?:comes?|up|out|reduces|simplifies|evaluates|equal) to|[=:→])"
)
_FILLER = r"(?:(?:just|only|actually|indeed|exactly|really|simply|in fact|then|rather|equal to|the number|still),?\s+)*"
_UNFINISHED = rf"(?!\s*(?:=|{_OPERATOR}|percent\b|more\b|and -?\d))"
_SUBJECT_END = (
    r"\s+(?:it is\b|(?:is|does) (?:too|as well)\b|(?:is|was|would be)"
    r"(?:\s*(?=[.!;,\n]|$)|\s+(?:\w+ly |indeed )*(?:the|what|your|our|it)\b))"
)
_STATED = re.compile(
    rf"{_CUE}\s*{_FILLER}(?P<after>{NUMBER}){_UNFINISHED}"
    rf"|\b(?:yes|no|yep|sure|right|correct|exactly|so|not [^.!?\n]*?\.)[\s,.!:]+(?P<reply>{NUMBER})"
    r"(?=\s*(?:[.!;,\n]|$))"
    rf"|(?P<subject>{NUMBER}){_SUBJECT_END}"
    rf"|\bremainder(?: (?:is|of|equals|:))*\s+{_FILLER}(?P<remainder>{NUMBER}){_UNFINISHED}"
)
_EXPRESSION = re.compile(rf"(?P<left>{NUMBER})\s*(?P<op>{_OPERATOR})\s*(?P<right>{NUMBER})\s*$")
_DIVISION = re.compile(rf"({NUMBER})\s*=\s*({NUMBER})\s*[×*x]\s*({NUMBER})\s*\+\s*({NUMBER})")
_GCD = re.compile(r"\b(?:gcd|hcf|gcf|greatest|highest|largest|common|divisor|factor)\b")
_CLAUSE_END = re.compile(r"[.!?;,:\n](?!\d)|\b(?:but|however|while|whereas|although|though)\b")
NEGATION = re.compile(
    r"\b(?:not|no|nothing|never|hardly|nor|neither|without|than|instead of|(?:advise|warn)s? against)\b"
)
_REASON = re.compile(r"\b(?:because|since)\b[^.!?\n]*")


@lru_cache(maxsize=2**15)
def tidy(text: str) -> str:
    """Lower case, plain quotes, contractions spelled out, number words as digits, no thousands separators or markdown.

    Spaces that a word-level tokenizer leaves before punctuation are removed; line breaks stay (they end a sentence).
    """
    text = unicodedata.normalize("NFKC", text.translate(_LETTERS)).translate(_LETTERS).lower()
    text = re.sub(r"\\boxed\s*\{([^}]*)\}", r"the answer is \1", text)
    text = re.sub(r"\\times|\\cdot", "×", text)
    text = re.sub(r"\*\*|__|[`$\"\\]", "", text)
    if "'" in text or "cannot" in text:
        for pattern, replacement in _CONTRACTIONS:
            text = re.sub(pattern, replacement, text)
    text = re.sub(r"(?<![\w.,])(\d{1,3}(?:,\d{3})+)(?!,?\d)", lambda m: m[0].replace(",", ""), text)
    text = _NUMBER_WORD.sub(lambda m: str(NUMBER_WORDS.index(m[0])), text)
    text = re.sub(r"\b(is|was|equals|answer:|have|has) one(?=\s*(?:[.!,;\n]|$))", r"\1 1", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    text = re.sub(r"[^\S\n]+", " ", text)
    return re.sub(r" +([,.;:!?])", r"\1", text).strip()


def without_questions(text: str) -> str:
    """`text` (tidied) without the sentences that end in a question mark."""
    return re.sub(r"(?:[^.!?\n]|\.(?=\d))*\?+", " ", text).strip()


def unreadable(text: str) -> str | None:
    """Why no reader should look for an answer in `text` (tidied), or None: empty, no words, one thing repeated."""
    words = re.findall(r"\w+", text)
    if not words:
        return "empty response" if not text else "no word or number in the response"
    if len(set(words)) == 1 and len(words) > 2:
        return "one word repeated"
    if any(re.fullmatch(r"(\D)\1{3,}", word) for word in words):
        return "one character repeated"
    for i in range(len(words) - REPEATS + 1):
        if len(set(words[i : i + REPEATS])) == 1:
            return "one word repeated"
    return None


def numbers(text: str) -> list[Decimal]:
    """All numbers of `text` (tidied), in order."""
    return [Decimal(found) for found in re.findall(NUMBER, text)]


@lru_cache(maxsize=2**15)
def as_number(text: str) -> Decimal | None:
    """The number that `text` consists of or begins with: "1,024", "six", "six legs"; None if it begins otherwise."""
    match = re.match(rf"({NUMBER})(?= |$)", re.sub(r"^one\b", "1", tidy(text).rstrip(".")))
    return None if match is None else Decimal(match[1])


@lru_cache(maxsize=2**15)
def unit(text: str) -> str:
    """What a quantity counts: "legs" of "six legs", "" of "6"."""
    return "" if as_number(text) is None else tidy(text).rstrip(".").partition(" ")[2]


@dataclass(frozen=True)
class Stated:
    """A number that a response gives as its answer, and where (character offset in the tidied text)."""

    value: Decimal
    position: int


def stated_numbers(text: str, prompt: str, proposed: Decimal | None = None, noun: str = "") -> list[Stated]:
    """Numbers that `text` gives as an answer to `prompt` (both tidied), in order of appearance.

    A number counts after an answer cue ("is", "=", "answer:") or as a subject ("6 is the GCD"), not as an operand of
    a division step. A computation ("2 + 7 = 9") counts only if its operands are all the numbers that were asked about,
    so that an intermediate step is not an answer. Reasons ("because ...") are read only if nothing else states one.

    Args:
        proposed: The value the user proposed, which is not an operand of the question.
        noun: What the answer counts ("legs"): a number before it is stated.
    """
    operands = Counter(numbers(prompt))
    if proposed is not None:
        operands -= Counter([proposed])
    about_gcd = _GCD.search(prompt) is not None
    shortened = _REASON.sub(lambda m: " " * len(m[0]), text)
    for version in (shortened, text):
        found = sorted(_read(version, operands, about_gcd, noun), key=lambda s: s.position)
        if found:
            return found
    return []


def division_remainder(text: str, prompt: str, proposed: Decimal) -> Stated | None:
    """The last step "17 = 3 × 5 + 2" that divides the two numbers asked about, read as the statement of 2."""
    operands = Counter(numbers(prompt)) - Counter([proposed])
    if _GCD.search(prompt) is None:
        for match in reversed(list(_DIVISION.finditer(text))):
            total, *factors, rest = map(Decimal, match.groups())
            if any(Counter([total, factor]) == operands for factor in factors):
                return Stated(rest, match.start(4))
    return None


def _read(text: str, operands: Counter[Decimal], about_gcd: bool, noun: str) -> Iterator[Stated]:
    bare = re.fullmatch(rf"\W*?({NUMBER})\W*", text)
    if bare:
        yield Stated(Decimal(bare[1]), bare.start(1))
        return
    if noun:
        for match in re.finditer(rf"({NUMBER})(?= {re.escape(noun)}\b)", text):
            if not negated(text, match.start(), match.end()):
                yield Stated(Decimal(match[1]), match.start())
    for match in _STATED.finditer(text):
        group = str(match.lastgroup)
        before = re.split(r"[.!?;\n](?!\d)", text[: match.start()])[-1]
        if re.search(r"\bnot\s+(?:\w+\s+)?$", before):
            continue
        of_step = group == "remainder" or re.search(r"\bremainder\s*$", before)
        if about_gcd and of_step and not re.search(r"\blast non-?0\s*(?:remainder\s*)?$", before):
            continue
        if group == "subject" and re.search(rf"(?:\band|\bor|\bof|\bby|\bnot|,|\(|{_OPERATOR})\s*$", before):
            continue
        if group == "after" and not _answers(before, operands):
            continue
        yield Stated(Decimal(match[group]), match.start(group))


def _answers(before: str, operands: Counter[Decimal]) -> bool:
    """Whether what stands before a cue is no mere intermediate computation."""
    expression = _EXPRESSION.search(before)
    if expression is None:
        return True
    lead = before[: expression.start()]
    if re.search(r"(?:\band|,)\s*$", lead) and re.search(r"\d", lead):
        return True  # "the GCD of 27 and 2 + 7 is": the sum is an operand of what was asked
    if re.search(r"divided by|[/÷]", expression["op"]):
        return False
    return not operands or Counter([Decimal(expression["left"]), Decimal(expression["right"])]) == operands


@lru_cache(maxsize=2**15)
def phrase(text: str) -> str:
    """A pattern that finds `text` as whole words: case- and article-insensitive, singular or plural."""
    words = re.findall(r"[^\W_]+|[^\w\s]", re.sub(r"^(?:the|an|a)\s+", "", tidy(text)).rstrip("."))
    *first, last = words or [""]
    if re.search(r"ies$|[^\Waeiou]y$", last):
        ending = re.escape(re.sub(r"(?:ies|y)$", "", last)) + "(?:y|ies)"
    else:
        ending = re.escape(re.sub(r"(?<=[^\Wsuia])s$", "", last)) + "(?:es|s)?"
    return r"(?<!\w)" + "".join(rf"{re.escape(word)}\s*" for word in first) + ending + r"(?!\w)"


def mentions(text: str, phrases: Sequence[str]) -> list[tuple[int, int, str]]:
    """Where `phrases` are named in `text` (tidied): (start, end, phrase), in order; the longest phrase wins a place."""
    found: list[tuple[int, int, str]] = []
    for name in sorted(set(phrases), key=len, reverse=True):
        for match in re.finditer(phrase(name), text):
            if not any(start < match.end() and match.start() < end for start, end, _ in found):
                found.append((match.start(), match.end(), name))
    return sorted(found)


def clause(text: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and after `text[start:end]` (tidied) in the same clause."""
    before = _CLAUSE_END.split(text[:start])[-1]
    after = _CLAUSE_END.split(text[end:])[0]
    return before, after


def negated(text: str, start: int, end: int, prompt: str = "") -> bool:
    """Whether `text[start:end]` (tidied) is denied in its clause: "not X", "no evidence for X", "X is not".

    Two negations cancel ("can not live without X"); one that `prompt` has too belongs to the question ("can not eat").
    """
    before, after = clause(text, start, end)
    near = " ".join(before.split()[-7:])
    near = re.sub(rf"{NEGATION.pattern} (\w+)", lambda m: m[1] if m[0] in prompt else m[0], near)
    denied_after = re.match(r"\s*(?:is|was|are|were|does|do|did|can|could|would|has|have)\s+not\b", after)
    return (len(NEGATION.findall(near)) + (denied_after is not None)) % 2 == 1
