"""Files of runs that others judged: which files make up a run, what the run is, and the rows of its answers.

DIR/**/*.csv   question, answer, question_id, aligned, coherent (scores 0 to 100); further columns are not read
DIR/runs.csv   optional: file, method, curve, strength_name, strength, seed, model, proxy; all but file optional

Without `runs.csv` a file's stem is its curve. Two habits of published files are understood: `BANK_eval_result_RUN.csv`
is the part of RUN that answers the questions of BANK, put together with the other parts in its folder, and a
`_seed_N` in RUN is its seed.
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selgen.report.runs import ReportError

COLUMNS = ("question", "answer", "question_id", "aligned", "coherent")
REQUIRED = ("question_id", "aligned")
TABLE = "runs.csv"
TABLE_COLUMNS = ("file", "method", "curve", "strength_name", "strength", "seed", "model", "proxy")
PART = "_eval_result_"
SEED = re.compile(r"_seed_(\d+)(?=_|$)")
UNNAMED = "unnamed model"
"""Model of runs whose files do not say what was trained."""


@dataclass(frozen=True)
class JudgeSource:
    """Where judge files are, and how to read them.

    Attributes:
        directory: Searched with its subfolders.
        setting: Name and options of the setting that reads the rows.
        model: Of runs for which `runs.csv` names none.
    """

    directory: Path
    setting: Mapping[str, Any]
    model: str = UNNAMED


@dataclass(frozen=True)
class Identity:
    """What a run is, under the names of `record.RunRecord`."""

    method: str
    curve: str
    strength_name: str | None = None
    strength: float | None = None
    seed: int = 1
    model: str = UNNAMED
    proxy: str | None = None


@dataclass
class Parts:
    """The rows of one run, and which file each question came from."""

    files: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, rows: Sequence[dict[str, str]]) -> None:
        for row in rows:
            other = self.places.setdefault(row["question_id"], name)
            if other != name:
                raise ReportError(
                    f"{other} and {name} both hold answers of one run to the question {row['question_id']!r}. If "
                    f"they are different runs, give them different curves, strengths or seeds in {TABLE}; if they "
                    "are not, remove one."
                )
        self.files.append(name)
        self.rows += rows


def find_runs(source: JudgeSource) -> tuple[dict[Identity, Parts], list[str]]:
    """The rows of every run of a directory, and the files that `runs.csv` does not list.

    Raises:
        ReportError: there are no files, one cannot be read, or they contradict each other.
    """
    root = source.directory
    if not root.is_dir():
        raise ReportError(f"--judge-csv should be a directory of judge files, found {root}. Name another.")
    found = sorted(path for path in root.rglob("*.csv") if path != root / TABLE)
    if not found:
        raise ReportError(f"{root} holds no judge file (*.csv with the columns {', '.join(COLUMNS)}). Name another.")
    table = root / TABLE
    identities = _declared(table, found, source) if table.is_file() else _guessed(root, found, source)
    runs: dict[Identity, Parts] = {}
    for path, identity in identities.items():
        runs.setdefault(identity, Parts()).add(path.relative_to(root).as_posix(), read_rows(path))
    return runs, [path.relative_to(root).as_posix() for path in found if path not in identities]


def options(source: JudgeSource) -> list[str]:
    """The command's options that read these files again."""
    parts = ["--judge-csv", str(source.directory), "--setting", str(source.setting["name"])]
    parts += ["--model", source.model] if source.model != UNNAMED else []
    return parts


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of one judge file, with those of `COLUMNS` that it has.

    Raises:
        ReportError: it is no CSV file in UTF-8, lacks a column, or has no rows.
    """
    rows = []
    header, lines = _lines(path)
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise ReportError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}, found {', '.join(header) or 'none'}. "
            f"Name the columns of judge files {', '.join(COLUMNS)}, or take the file out of the directory."
        )
    places = {name: header.index(name) for name in COLUMNS if name in header}
    for _, cells in lines:
        rows.append({name: cells[place] for name, place in places.items()})
    if not rows:
        raise ReportError(f"{path} has columns and no rows. Take it out of the directory.")
    return rows


def _lines(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and (line number, cells) of every row."""

    def lines() -> Iterator[tuple[int, list[str]]]:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, strict=True)
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
        except (UnicodeDecodeError, csv.Error) as error:
            raise ReportError(f"{path} is not a CSV file in UTF-8 ({error}). Save it as one.") from error

    def checked(rows: Iterator[tuple[int, list[str]]], width: int) -> Iterator[tuple[int, list[str]]]:
        for number, cells in rows:
            if len(cells) != width:
                raise ReportError(
                    f"{path}, line {number} should have {width} cells as the header has, found {len(cells)}. Quote "
                    "cells that hold commas or line breaks."
                )
            yield number, cells

    found = lines()
    _, header = next(found, (0, []))
    return [name.strip() for name in header], checked(found, len(header))


def _declared(table: Path, found: Sequence[Path], source: JudgeSource) -> dict[Path, Identity]:
    """What `runs.csv` says of each file."""
    header, lines = _lines(table)
    unknown = [name for name in header if name not in TABLE_COLUMNS]
    if unknown or "file" not in header:
        raise ReportError(
            f"{table} should have the column file and may have {', '.join(TABLE_COLUMNS[1:])}, found "
            f"{', '.join(header) or 'none'}. Correct its first line."
        )
    identities: dict[Path, Identity] = {}
    for number, cells in lines:
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        path = table.parent / row["file"]
        where = f"{table}, line {number}"
        if path not in found:
            raise ReportError(
                f"{where}: file should be a *.csv file below {table.parent}, found {row['file']!r}. Correct it."
            )
        if path in identities:
            raise ReportError(f"{where}: file {row['file']!r} is listed twice. Remove one line.")
        name = row.get("curve") or row.get("method") or path.stem
        strength, seed = row.get("strength"), row.get("seed")
        identities[path] = Identity(
            method=row.get("method") or name,
            curve=name,
            strength_name=row.get("strength_name") or ("strength" if strength else None),
            strength=_number(strength, f"{where}: strength") if strength else None,
            seed=_seed(seed, f"{where}: seed") if seed else 1,
            model=row.get("model") or source.model,
            proxy=row.get("proxy") or None,
        )
    if not identities:
        raise ReportError(f"{table} lists no file. Add a line for each, or remove it to read all files.")
    return identities


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ReportError(f"{where} should be a number, found {cell!r}. Correct it, or leave it empty.")
    return value


def _seed(cell: str, where: str) -> int:
    if not cell.isdecimal():
        raise ReportError(f"{where} should be a whole number, found {cell!r}. Correct it, or leave it empty.")
    return int(cell)


def _guessed(root: Path, files: Sequence[Path], source: JudgeSource) -> dict[Path, Identity]:
    """What the files' names say; runs of one name in several folders are told apart by their folders."""
    named = {path: _name_and_seed(path.stem) for path in files}
    folders = {(name, seed, path.parent) for path, (name, seed) in named.items()}
    counts = Counter((name, seed) for name, seed, _ in folders)
    shared = {name for (name, _), count in counts.items() if count > 1}
    identities = {}
    for path, (name, seed) in named.items():
        curve = (path.parent.relative_to(root) / name).as_posix() if name in shared else name
        identities[path] = Identity(curve, curve, seed=seed, model=source.model)
    return identities


def _name_and_seed(stem: str) -> tuple[str, int]:
    _, _, run = stem.partition(PART)
    name = run or stem
    seed = SEED.search(name)
    return (name, 1) if seed is None else (SEED.sub("", name, count=1) or name, int(seed[1]))
