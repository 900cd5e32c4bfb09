"""The user's data, from a file, a directory or the hub, to Examples: all of it, or every reason why not."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from selgen.core import Example
from selgen.data.formats import DataError, to_example
from selgen.data.rows import READERS, Rows, Unread, one_line

__all__ = ["DataError", "Loaded", "fingerprint", "read_examples"]

KINDS = ", ".join(READERS)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
# Descriptions that datasets and the hub put beside the data.
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
OTHER_SPLIT = re.compile(r"(test|val|valid|validation|eval|dev)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Loaded:
    """Examples read from a source.

    Attributes:
        examples: In the order of the rows; at least one.
        skipped: What was wrong with each row that was left out (`skip_bad_rows`), in order.
        source: As it was named.
        fingerprint: Of the examples, see `fingerprint`.
    """

    examples: list[Example]
    skipped: list[str]
    source: str
    fingerprint: str


def fingerprint(examples: list[Example]) -> str:
    """Sha256 (64 hex digits) of the examples in order, the same for the same data in any kind of file."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def read_examples(source: str, *, skip_bad_rows: bool = False) -> Loaded:
    """Read rows of any form (`formats.to_example`) from a file, a directory or the hub.

    Args:
        source: A file (.jsonl, .ndjson, .json, .parquet, .csv); a directory of such files or of
            `datasets.save_to_disk`; or a hub id `owner/name` or `owner/name:split`, split `train` by default.
        skip_bad_rows: Leave bad rows out and list them in `skipped`. A file that cannot be read to its end, or holds
            no rows, is an error all the same.

    Raises:
        DataError: every bad row with file, line (`row` where a file has no lines) and reason; a source that is
            missing, unreadable, empty, or of no known kind; no row left.
    """
    examples: list[Example] = []
    bad: list[str] = []
    broken: list[str] = []
    for name, rows in _parts(source):
        before = len(examples) + len(bad)
        try:
            for place, row in rows():
                try:
                    examples.append(_example(row))
                except ValueError as error:
                    bad.append(f"{name}, {place}: {error}")
        except DataError as error:
            broken += error.problems
        except OSError as error:
            broken.append(f"{name} cannot be read: {one_line(error)} Check the file and its permissions.")
        else:
            if len(examples) + len(bad) == before:
                broken.append(f"{name} holds no rows. Give it at least one.")
    if broken or (bad and not (skip_bad_rows and examples)):
        left = ["no row is left. Correct some of them."] if skip_bad_rows and not examples and not broken else []
        raise DataError([*bad, *broken, *(f"{source}: {problem}" for problem in left)])
    return Loaded(examples, bad, source, fingerprint(examples))


def _example(row: Any) -> Example:
    if isinstance(row, Unread):
        raise ValueError(row.reason)
    return to_example(row)


Parts = list[tuple[str, Callable[[], Rows]]]
"""The files of a source by name, each with what reads it."""


def _parts(source: str) -> Parts:
    path = Path(source)
    try:
        if not source:
            raise DataError([f"the data source should be a file, a directory or a hub id, found {source!r}. Name one."])
        if path.is_dir():
            return _directory(path)
        if path.is_file():
            return [(str(path), _reader(path))]
        if path.exists():
            raise DataError([f"{path} should be a file or a directory, found neither. Save the rows to a file."])
        if HUB_ID.fullmatch(source) and path.suffix.lower() not in READERS and not path.parent.is_dir():
            return [(source, lambda: _hub(source))]
        raise DataError([_missing(path)])
    except OSError as error:
        raise DataError([f"{source} cannot be read: {one_line(error)} Check the path and its permissions."]) from error


def _reader(path: Path) -> Callable[[], Rows]:
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise DataError([f"{path} should end in one of {KINDS}, found {path.suffix!r}. Save the rows as one of these."])
    return lambda: read(path)


def _missing(path: Path) -> str:
    siblings = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    if near:
        return f"{path} does not exist. Did you mean {path.parent / near[0]}?"
    return f"{path} does not exist. Name a file ({KINDS}), a directory, or a hub id owner/name."


def _directory(path: Path) -> Parts:
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if p.is_dir())
        if "train" not in splits:
            raise DataError([f"{path} should have a split `train`, found {splits}. Name the folder of one split."])
        return _directory(path / "train")
    if (path / "state.json").is_file():
        return [(str(path), lambda: _saved(path))]
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in READERS and p.name not in DESCRIPTIONS)
    if not files:
        raise DataError([f"{path} should hold files of the kinds {KINDS}, found none. Name the folder that does."])
    others = [p.name for p in files if OTHER_SPLIT.match(p.name)]
    if others and len(files) > 1:
        raise DataError([f"{path} should hold rows to train on only, found {', '.join(others)} too. Name one file."])
    return [(str(p), _reader(p)) for p in files]


def _saved(path: Path) -> Rows:
    from datasets import load_from_disk

    yield from _dataset(str(path), lambda: load_from_disk(str(path)))


def _hub(source: str) -> Rows:
    from datasets import load_dataset

    name, _, split = source.partition(":")
    yield from _dataset(source, lambda: load_dataset(name, split=split or "train"))


def _dataset(name: str, load: Callable[[], Any]) -> Rows:
    import pyarrow as pa
    from datasets.exceptions import DatasetsError

    try:
        # Plain Python values, whatever format (torch, numpy) was set when the data was saved.
        for i, row in enumerate(load().with_format(None), 1):
            yield f"row {i}", row
    except (pa.ArrowException, DatasetsError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        # The last three: damaged descriptions, which datasets does not check.
        raise DataError(
            [f"{name} cannot be loaded as a data set: {one_line(error)} Check its name and files."]
        ) from error
