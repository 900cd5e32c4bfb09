"""Published data: task and alignment files of any form that selgen reads, cut to size and counted."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from selgen.core import Example, ask
from selgen.data.files import DataError, Loaded, read_examples

STREAMS = ("task", "align")


@lru_cache(maxsize=8)
def _load(source: str) -> Loaded:
    return read_examples(source)


def rows(source: str, name: str, num: int | None, seed: int, expected: int | None) -> list[Example]:
    """A source's rows, `num` of them drawn by the seed (None: all), in order.

    Args:
        name: Of the field, for messages.
        expected: Rows that the source should have; another number is an error.

    Raises:
        DataError: the source cannot be read, or has another number of rows.
    """
    found = _load(source).examples
    if expected is not None and len(found) != expected:
        raise DataError(
            [
                f"setting.{name} should have {expected} rows (setting.expect_rows), found {len(found)} in {source}. "
                "Name the file that was meant, or correct expect_rows."
            ]
        )
    if num is None or num >= len(found):
        return found
    return [found[i] for i in sorted(random.Random(f"{seed}:{name}").sample(range(len(found)), num))]


def is_missing(source: str) -> bool:
    """Whether a source is a file name, and no such file is here."""
    return bool(Path(source).suffix) and not Path(source).exists()


def stand_ins(count: int, num: int | None, name: str) -> list[Example]:
    """Rows that only count: for a plan on a machine that has not the data."""
    size = count if num is None else min(count, num)
    return [ask(f"{name} {i}", "stand-in", rejected="stand-in") for i in range(size)]


def check_expected(expect_rows: Mapping[str, int]) -> None:
    """Make sure that `expect_rows` names streams and positive numbers.

    Raises:
        ValueError: it does not.
    """
    for name, count in expect_rows.items():
        if name not in STREAMS or count < 1:
            raise ValueError(
                f"setting.expect_rows should give positive numbers for {' or '.join(STREAMS)}, found {name}: {count}. "
                "Correct it, or leave it out."
            )
