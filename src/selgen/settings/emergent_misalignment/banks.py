"""Question banks: YAML lists of questions with paraphrases, as Betley et al. 2025 publish theirs.

A bank is a list of entries:

    - id: bored_json                 letters, digits, _; `_json` and `_template` name the form of a theme
      paraphrases: [...]             wordings, at least one
      system: ...                    system prompt of this question, optional
      judge_prompts: {aligned: ..., coherent: ...}    with {question} and {answer}; optional, default: `prompts`

Other keys that published banks have (`type`, `judge`, `samples_per_paraphrase`, `temperature`) say how their authors
ran them; here the run's config does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from selgen.data.files import DataError

FORMS = ("json", "template")
"""Forms that an id's suffix can name; without one the question is plain."""
READ = ("id", "paraphrases", "system", "judge_prompts")
KNOWN = (*READ, "type", "judge", "samples_per_paraphrase", "temperature", "judge_system", "judge_type")
OWN = "own"
"""Name of the banks that come with selgen."""


@dataclass(frozen=True)
class Question:
    """One entry of a bank.

    Attributes:
        id: Unique in its bank.
        paraphrases: Wordings.
        system: System prompt, or None.
        judge_prompts: Raw number -> prompt with {question} and {answer}; empty: the defaults are taken.
    """

    id: str
    paraphrases: tuple[str, ...]
    system: str | None = None
    judge_prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """`plain`, `json` or `template`."""
        suffix = self.id.rpartition("_")[2]
        return suffix if suffix in FORMS else "plain"

    @property
    def theme(self) -> str:
        """The id without the suffix of its form."""
        return self.id if self.form == "plain" else self.id.rpartition("_")[0]


def read_bank(source: str, own: str) -> tuple[Question, ...]:
    """Read a bank.

    Args:
        source: A YAML file, or `own` for the bank that comes with selgen.
        own: Which of those, `broad` or `medical`.

    Raises:
        DataError: with every problem of the file.
    """
    if source == OWN:
        text = files("selgen.settings.emergent_misalignment").joinpath(f"{own}.yaml").read_text(encoding="utf-8")
        return _parsed(f"{own}.yaml", text)
    path = Path(source)
    if not path.is_file():
        raise DataError([f"question bank {source} does not exist. Name a YAML file, or {OWN} for selgen's own bank."])
    return _parsed(source, path.read_text(encoding="utf-8"))


@lru_cache(maxsize=16)
def _parsed(name: str, text: str) -> tuple[Question, ...]:
    try:
        entries = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise DataError([f"question bank {name} is not valid YAML: {error}"]) from error
    if not isinstance(entries, list) or not entries:
        raise DataError([f"question bank {name} should be a list of questions, found {type(entries).__name__}."])
    problems: list[str] = []
    found = [q for i, entry in enumerate(entries, 1) if (q := _question(name, i, entry, problems)) is not None]
    ids = [q.id for q in found]
    problems += [
        f"question bank {name}: id {i!r} occurs twice. Rename one." for i in sorted(set(ids)) if ids.count(i) > 1
    ]
    if problems:
        raise DataError(problems)
    return tuple(found)


def _question(name: str, number: int, entry: Any, problems: list[str]) -> Question | None:
    where = f"question bank {name}, question {number}"
    if not isinstance(entry, dict):
        problems.append(f"{where} should be a mapping with {', '.join(READ)}, found {entry!r}.")
        return None
    if "id" in entry:
        where += f" ({entry['id']})"
    wrong = []
    if not isinstance(entry.get("id"), str) or not entry["id"].replace("_", "").replace("-", "").isalnum():
        wrong.append(f"{where}: id should be a name of letters, digits and _, found {entry.get('id')!r}. Add one.")
    paraphrases = entry.get("paraphrases")
    if not isinstance(paraphrases, list) or not paraphrases or not all(isinstance(p, str) and p for p in paraphrases):
        wrong.append(
            f"{where}: paraphrases should be a list of texts, found {paraphrases!r}. Add at least one wording."
        )
    if not isinstance(entry.get("system", ""), str | None):
        wrong.append(f"{where}: system should be a text, found {entry['system']!r}. Correct it, or leave it out.")
    prompts = entry.get("judge_prompts") or {}
    if not isinstance(prompts, dict):
        wrong.append(f"{where}: judge_prompts should map numbers to prompts, found {prompts!r}.")
        prompts = {}
    if prompts and "aligned" not in prompts:
        wrong.append(
            f"{where}: judge_prompts should have `aligned`, found {sorted(prompts)}. Add it, or leave all out."
        )
    for number_name, prompt in prompts.items():
        missing = [f for f in ("{question}", "{answer}") if not isinstance(prompt, str) or f not in prompt]
        if missing:
            wrong.append(f"{where}: judge_prompts.{number_name} should contain {' and '.join(missing)}. Add it.")
    unknown = sorted(set(entry) - set(KNOWN))
    if unknown:
        wrong.append(f"{where}: unknown keys {unknown}. Known: {', '.join(KNOWN)}.")
    problems += wrong
    return (
        None
        if wrong or not isinstance(paraphrases, list)
        else Question(entry["id"], tuple(paraphrases), entry.get("system"), prompts)
    )
