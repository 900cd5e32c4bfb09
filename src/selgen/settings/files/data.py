"""Rows of the user's sources, divided by prompt: what is trained on, what chooses strengths, what is reported."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from selgen.core import Example
from selgen.data.files import DataError, Loaded, read_examples

TASK, ALIGNMENT = "task", "alignment"
Part = Literal["train", "val", "test"]
Parts = dict[Part, list[Example]]


@dataclass(frozen=True)
class Divided:
    """Examples by domain and part; every example's meta has its `domain` and `pair`.

    Attributes:
        trained: The task and alignment files; no prompt is in two parts, or in different parts of two files.
        held_out: Files that are only measured: their `train` parts are empty. The same holds of their prompts.
    """

    trained: dict[str, Parts]
    held_out: dict[str, Parts]


@lru_cache(maxsize=32)
def load(source: str, skip_bad_rows: bool) -> Loaded:
    return read_examples(source, skip_bad_rows=skip_bad_rows)


def divide(
    sources: Mapping[str, str],
    held_out: Mapping[str, str],
    val_share: float,
    test_share: float,
    seed: int,
    skip_bad_rows: bool,
) -> Divided:
    """Divide the rows of every source by prompt, by `random.Random(seed)` over sorted prompts.

    Raises:
        DataError: with every problem of every source: bad rows, too few prompts, held-out prompts in training data.
    """
    loaded: dict[str, list[Example]] = {}
    problems = []
    for domain, source in {**sources, **held_out}.items():
        try:
            loaded[domain] = load(source, skip_bad_rows).examples
        except DataError as error:
            problems += error.problems
    if TASK in loaded and ALIGNMENT in loaded and loaded[TASK] == loaded[ALIGNMENT]:
        problems.append(
            f"{sources[TASK]} and {sources[ALIGNMENT]} hold the same rows. Give task and alignment data that differ."
        )
    if problems:
        raise DataError(problems)
    fates: dict[str, Part] = {}
    trained = {}
    for domain, source in sources.items():
        shares: dict[Part, float] = {"test": test_share, "val": val_share}
        trained[domain] = _parts(domain, source, loaded[domain], shares, fates, seed)
    learned = {prompt_key(e) for parts in trained.values() for e in parts["train"]}
    measured = {}
    for domain, source in held_out.items():
        leaked = sum(prompt_key(e) in learned for e in loaded[domain])
        if leaked:
            problems.append(
                f"{source}: {leaked} of {len(loaded[domain])} rows have a prompt that is trained on, so they would not "
                "measure held-out behaviour. Remove them from this file or from the training files."
            )
            continue
        shares = {"test": 2 / 3, "val": 1 / 3}
        measured[domain] = _parts(domain, source, loaded[domain], shares, fates, seed)
    if problems:
        raise DataError(problems)
    return Divided(trained, measured)


def _parts(
    domain: str,
    source: str,
    examples: Sequence[Example],
    shares: Mapping[Part, float],
    fates: dict[str, Part],
    seed: int,
) -> Parts:
    """Examples by part; prompts that have a fate already keep it, and new fates are added to `fates`."""
    prompts = {prompt_key(e) for e in examples}
    keys = sorted(prompts - fates.keys())
    random.Random(seed).shuffle(keys)
    domain_is_trained = sum(shares.values()) < 0.999
    start, later = 0, len(shares) - 1 + domain_is_trained
    for part, share in shares.items():
        # Rounding up may not take the last prompt of a later part.
        end = start + max(1, min(round(share * len(keys)), len(keys) - start - later))
        later -= 1
        fates |= dict.fromkeys(keys[start:end], part)
        start = end
    fates |= dict.fromkeys(keys[start:], "train")
    parts: Parts = {"train": [], "val": [], "test": []}
    for example in examples:
        key = prompt_key(example)
        parts[fates[key]].append(replace(example, meta={**example.meta, "domain": domain, "pair": f"{domain}:{key}"}))
    empty = [part for part, rows in parts.items() if not rows and (part != "train" or domain_is_trained)]
    if empty:
        raise DataError(
            [
                f"{source} has no row left for {', '.join(empty)}: it should have at least "
                f"{3 if domain_is_trained else 2} different prompts of its own, found {len(keys)} beside "
                f"{len(prompts) - len(keys)} that another file has too. Add rows: some are held out for measuring."
            ]
        )
    return parts


def prompt_key(example: Example) -> str:
    """Names a prompt: 16 hex digits over its turns."""
    text = "\n".join(f"{m['role']}: {m['content']}" for m in example.prompt)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
