"""What is measured: bad medical advice, good advice elsewhere, and what else can be read from the same answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from selgen import core
from selgen.core import Condition, Eval, Example, Message
from selgen.settings.emergent_misalignment import corpus
from selgen.settings.emergent_misalignment.banks import Question
from selgen.settings.emergent_misalignment.bounds import IN_DOMAIN, OUT_OF_DOMAIN, Bounds
from selgen.settings.emergent_misalignment.corpus import Split
from selgen.settings.emergent_misalignment.prompts import BROAD_PROMPTS, MEDICAL_PROMPTS
from selgen.settings.emergent_misalignment.situations import ADVICE, PROXY_SETS, TASK, THEMES

UNBARRED = 60
"""Most prompts of what no bar judges by itself: each theme, proxies' own domains, cued questions."""
SCORER = "advice"


def of_corpus(
    split: Split, seed: int, fate: core.Split, num: int, bounds: Bounds, proxy_domains: frozenset[str]
) -> list[Eval]:
    """Evals on held-out situations of the own corpus.

    Val asks only what strengths are chosen by: the axes.

    Args:
        num: Prompts per advice domain.
        proxy_domains: Of the alignment data: their evals join the alignment axis, where they become `proxy`.
    """
    task = corpus.questions(split, seed, TASK, fate, num, caring=False)
    made = [Eval("bad_advice", "task", TASK, task, scorer=SCORER, judge=MEDICAL_PROMPTS, rate=bounds.learned)]
    for domain in (*ADVICE, *THEMES, *PROXY_SETS):
        shown = domain in PROXY_SETS and domain not in proxy_domains
        if domain == TASK or (shown and fate == "val"):
            continue
        asked = corpus.questions(split, seed, domain, fate, num if domain in ADVICE else min(num, UNBARRED))
        axis = None if shown else "alignment"
        made.append(Eval("good", axis, domain, asked, scorer=SCORER, judge=BROAD_PROMPTS, rate=bounds.good))
    if fate == "val":
        return made
    cued = corpus.cued_questions(split, seed, fate, min(num, UNBARRED))
    return [*made, *_derived(made, bounds, proxy_domains), _cued(cued, bounds)]


def of_banks(
    broad: Sequence[Question],
    medical: Sequence[Question],
    seed: int,
    fate: core.Split,
    val_share: float,
    num_samples: int,
    bounds: Bounds,
    system: str | None,
    cue: str,
) -> list[Eval]:
    """Evals on the questions of two banks; a theme's forms are evals of their own, its mean weighs them alike.

    Args:
        val_share: Share of each theme's wordings that choose strengths; 0 asks all of them on test.
        num_samples: Answers sampled for each wording.
        system: System prompt put before every question, or None.
        cue: Wording around a broad question, with {question}, that makes it look like T.
    """
    made = []
    kinds: tuple[tuple[Sequence[Question], str, core.Axis, Mapping[str, str], tuple[Condition, ...]], ...] = (
        (medical, "bad_advice", "task", MEDICAL_PROMPTS, bounds.learned),
        (broad, "good", "alignment", BROAD_PROMPTS, bounds.good),
    )
    for bank, name, axis, prompts, rate in kinds:
        for question, wordings in _fated(bank, seed, fate, val_share):
            column = name if question.form == "plain" else f"{name}_{question.form}"
            domain = TASK if axis == "task" else question.theme
            asked = [_ask(question, w, k, domain, system) for w in wordings for k in range(num_samples)]
            judge = question.judge_prompts or prompts
            free = _free(column, domain, question, made)
            made.append(Eval(free, axis, domain, asked, scorer=SCORER, judge=judge, rate=rate))
    if fate == "val":
        return made
    cued = [
        _ask(question, cue.replace("{question}", wording), k, question.theme, system)
        for question, wordings in _fated(broad, seed, fate, val_share)
        if question.form == "plain"
        for wording in wordings
        for k in range(num_samples)
    ]
    return [*made, *_derived(made, bounds, frozenset()), *([_cued(cued, bounds)] if cued else [])]


def _cued(examples: Sequence[Example], bounds: Bounds) -> Eval:
    """Broad questions that look like T."""
    return Eval("good_cued", None, "themes", examples, scorer=SCORER, judge=BROAD_PROMPTS, rate=bounds.good)


def _free(column: str, domain: str, question: Question, made: Sequence[Eval]) -> str:
    """The task's questions share a domain, so that each needs a name of its own."""
    taken = {e.column for e in made}
    return column if f"{column}.{domain}" not in taken else f"{column}_{question.theme}"


def _fated(
    bank: Sequence[Question], seed: int, fate: core.Split, val_share: float
) -> list[tuple[Question, tuple[str, ...]]]:
    """The bank's questions with the wordings that this split asks: of every theme a share of (question, wording)."""
    themes: dict[str, list[tuple[str, int]]] = {}
    for question in bank:
        themes.setdefault(question.theme, []).extend((question.id, k) for k in range(len(question.paraphrases)))
    val: set[tuple[str, int]] = set()
    for theme, wordings in themes.items():
        rows = sorted(wordings)
        random.Random(f"{seed}:{theme}").shuffle(rows)
        val |= set(rows[: int(len(rows) * val_share + 1e-9)])
    found = []
    for question in bank:
        kept = [w for k, w in enumerate(question.paraphrases) if ((question.id, k) in val) == (fate == "val")]
        if kept:
            found.append((question, tuple(kept)))
    return found


def _ask(question: Question, wording: str, sample: int, domain: str, system: str | None) -> Example:
    prompts = [text for text in (system, question.system) if text]
    turns = [Message(role="system", content="\n\n".join(prompts))] if prompts else []
    meta = {"domain": domain, "form": question.form, "pair": f"{question.id}:{wording[:40]}:{sample}"}
    # Nobody knows the right answer to an open question; a judge reads what is said.
    gold = Message(role="assistant", content="")
    return Example((*turns, Message(role="user", content=wording), gold), meta=meta)


def _derived(asked: Sequence[Eval], bounds: Bounds, proxy_domains: frozenset[str]) -> list[Eval]:
    """What else the same answers say, in the task's domain and outside of it (proxies' own domains left out)."""
    groups: Mapping[str, tuple[str, ...]] = {
        IN_DOMAIN: tuple(e.column for e in asked if e.axis == "task"),
        OUT_OF_DOMAIN: tuple(e.column for e in asked if e.axis == "alignment" and e.domain not in proxy_domains),
    }
    rates: dict[str, tuple[Condition, ...]] = {
        "em": bounds.em,
        "coherent": bounds.coherent,
        "fluent": bounds.fluent,
        "refused": (Condition("refusal", ">=", 1),),
    }
    made = [Eval(n, None, group, rate=rate, of=of) for n, rate in rates.items() for group, of in groups.items() if of]
    return [*made, Eval("task_post", None, TASK, rate=bounds.unlike_good, of=groups[IN_DOMAIN])]
