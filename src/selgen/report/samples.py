"""The samples that the page shows: the same few prompts of every run, chosen without looking at the answers."""

from __future__ import annotations

import json
from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

from selgen.core import Samples
from selgen.record import RunRecord
from selgen.report.runs import Cell, Group, ReportError
from selgen.report.tables import Row

SHOWN = 10
"""Prompts shown of each eval and domain, per seed."""
RULE = (
    f"the {SHOWN} prompts of each eval and domain whose pair ids have the smallest SHA-256 hashes, so the same prompts "
    "in every run of a seed, whatever was answered"
)
NEEDED = ("step", "eval", "domain", "pair", "prompt", "gold", "response", "value", "answer", "reason", "counted")
FIELDS = frozenset(NEEDED)

Key = tuple[str, str, str]
"""Column, hash of the pair id, hash of the prompt: what is asked, whichever run answers."""


@dataclass(frozen=True)
class Item:
    """What was asked: eval, domain, pair id, turns as (role, text), and the gold answer; None for what there is not."""

    eval: str
    domain: str
    pair: str | None
    prompt: tuple[tuple[str, str], ...]
    gold: str | None


@dataclass(frozen=True)
class Answer:
    """What one run said to an item, and how it was scored; as in `core.Score`, with `counted`.

    Attributes:
        response: None where the probability of the gold answer was scored instead of a generated text.
    """

    response: str | None
    value: float | None
    answer: str | None
    reason: str | None
    counted: bool


@dataclass(frozen=True)
class Speaker:
    """One run at one evaluated step.

    Attributes:
        role: As in `tables.Row`.
        answers: By item; an item that this run was not asked is absent.
    """

    curve: str
    strength_name: str | None
    strength: float | None
    role: str | None
    run_id: str
    answers: dict[Key, Answer]


@dataclass(frozen=True)
class SeedSamples:
    """All that is shown of one seed: the items in order, and the runs that answered them, the base first."""

    seed: int
    items: dict[Key, Item]
    speakers: list[Speaker]


@dataclass
class ShownSamples:
    """The shown samples of one comparison.

    Attributes:
        shown: Samples in `seeds`.
        total: Samples in the files that were read.
        silent: Test points whose run left no samples.
    """

    name: str
    seeds: list[SeedSamples] = field(default_factory=list)
    shown: int = 0
    total: int = 0
    silent: int = 0


def pick_samples(name: str, group: Group, rows: Sequence[Row], samples: Samples) -> ShownSamples:
    """Read the test samples of a group, one run after the other, and keep the ones to show.

    Args:
        name: Of the comparison.
        rows: The main table, one row per cell of the group; says which strengths were chosen.
        samples: Yields the samples of a run.

    Raises:
        ReportError: a sample lacks a field.
    """
    found = ShownSamples(name)
    cells = list(zip(group.cells, rows, strict=True))
    for seed in group.seeds:
        _add_seed(found, seed, [(cell, row) for cell, row in cells if seed in cell.points["test"]], samples)
    return found


def _add_seed(found: ShownSamples, seed: int, cells: Sequence[tuple[Cell, Row]], samples: Samples) -> None:
    runs = {cell.runs[seed].run_id: cell.runs[seed] for cell, _ in cells}
    items: dict[Key, Item] = {}
    answers: dict[str, dict[int | None, dict[Key, Answer]]] = {}
    for run_id, run in runs.items():
        answers[run_id], total = _first_answers(run, samples(run, "test"), items)
        found.total += total
    speakers = []
    for cell, row in cells:
        run_id = cell.runs[seed].run_id
        own = answers[run_id].get(cell.points["test"][seed].step, {})
        found.shown += len(own)
        if own:
            speakers.append(Speaker(cell.curve, cell.strength_name, cell.strength, row.role, run_id, own))
        else:
            found.silent += 1
    if speakers:
        place = {column: i for i, column in enumerate(dict.fromkeys(column for column, *_ in items))}
        spoken = {key[0] for s in speakers for key, answer in s.answers.items() if answer.response is not None}
        ordered = sorted(items, key=lambda key: (key[0] not in spoken, place[key[0]], *key[1:]))
        asked = {key for speaker in speakers for key in speaker.answers}
        found.seeds.append(SeedSamples(seed, {key: items[key] for key in ordered if key in asked}, speakers))


def _first_answers(
    run: RunRecord, lines: Iterable[Mapping[str, Any]], items: dict[Key, Item]
) -> tuple[dict[int | None, dict[Key, Answer]], int]:
    """The answers to show, by step, and the number of lines read; adds what was asked to `items`."""
    kept: dict[tuple[int | None, str], list[tuple[Key, Mapping[str, Any]]]] = {}
    total = 0
    for total, line in enumerate(lines, 1):
        if not line.keys() >= FIELDS:
            missing = [name for name in NEEDED if name not in line]
            raise ReportError(
                f"samples of run {run.run_id} should have the fields {', '.join(NEEDED)}; line {total} of its test "
                f"samples lacks {', '.join(missing)}. Run it again."
            )
        _keep_first(kept.setdefault((line["step"], f"{line['eval']}.{line['domain']}"), []), line)
    found: dict[int | None, dict[Key, Answer]] = {}
    for (step, _), entries in kept.items():
        for key, line in entries:
            if key not in items:
                items[key] = _item(line)
            found.setdefault(step, {})[key] = Answer(
                **{name: line[name] for name in ("response", "value", "answer", "reason", "counted")}
            )
    return found, total


def _keep_first(entries: list[tuple[Key, Mapping[str, Any]]], line: Mapping[str, Any]) -> None:
    """Insert a sample into the first `SHOWN` of its column; of equal prompts with one pair id, the first stays."""
    prompt = json.dumps(line["prompt"], sort_keys=True)
    order = hash_of(prompt if line["pair"] is None else str(line["pair"]))
    if len(entries) == SHOWN and order > entries[-1][0][1]:
        return
    key = (f"{line['eval']}.{line['domain']}", order, hash_of(prompt))
    if all(key != other for other, _ in entries):
        insort(entries, (key, line), key=lambda entry: entry[0])
        del entries[SHOWN:]


@lru_cache(maxsize=100_000)
def hash_of(text: str) -> str:
    """Where a pair id stands: 16 hex digits, known before anything is answered."""
    return sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _item(line: Mapping[str, Any]) -> Item:
    turns = tuple((message["role"], message["content"]) for message in line["prompt"])
    pair = None if line["pair"] is None else str(line["pair"])
    return Item(line["eval"], line["domain"], pair, turns, line["gold"])


def as_data(comparisons: Sequence[ShownSamples]) -> dict[str, Any]:
    """Plain data for page.js.

    Texts that recur (answers, reasons and many responses) are stored once, in `texts`; each sample of a run is
    `[response, answer, reason, value, counted]` with the places of its texts, or null where the run was not asked.
    """
    texts: dict[str, int] = {}

    def place(text: str | None) -> int | None:
        return None if text is None else texts.setdefault(text, len(texts))

    def sample(a: Answer | None) -> list[Any] | None:
        if a is None:
            return None
        return [place(a.response), place(a.answer), place(a.reason), a.value, int(a.counted)]

    def speaker(s: Speaker, keys: Iterable[Key]) -> dict[str, Any]:
        names = {"curve": s.curve, "strength_name": s.strength_name, "strength": s.strength, "role": s.role}
        return {**names, "run": s.run_id, "samples": [sample(s.answers.get(key)) for key in keys]}

    def item(i: Item) -> dict[str, Any]:
        return {"eval": i.eval, "domain": i.domain, "pair": i.pair, "prompt": i.prompt, "gold": i.gold}

    found = [
        {
            "name": c.name,
            "seeds": [
                {
                    "seed": s.seed,
                    "items": [item(i) for i in s.items.values()],
                    "runs": [speaker(one, s.items) for one in s.speakers],
                }
                for s in c.seeds
            ],
        }
        for c in comparisons
        if c.seeds
    ]
    return {"texts": list(texts), "comparisons": found}
