"""Rows of one file, before anybody asks what form they have; what cannot be read is a value too, with its place."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selgen.data.formats import META, DataError
from selgen.data.turns import UNUSABLE, named, shown


@dataclass(frozen=True)
class Unread:
    """A row that could not be read, and why."""

    reason: str


Rows = Iterator[tuple[str, Any]]
"""(place, value): `line 3` or `row 3`, counted from 1, and the row or an `Unread`."""

WRAPPERS = ("data", "rows", "examples")
# Columns of a CSV that hold structures, written as JSON; the others do so where a cell plainly is a message list.
JSON_COLUMNS = ("messages", "conversations", "targets")
MESSAGE_LIST = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")
BLANK = re.compile(r"[ \t\n\r]*")
LONGEST_NUMBER = 1000  # digits; beyond 4300 Python refuses, and no datum is such a number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise ValueError(f"an object repeats the keys {named(twice)}, so values would be lost. Keep one of each.")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"found {name}, which is not JSON. Write null, or leave the key out.")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"found a number of {len(digits)} digits. Write it as a text.")
    return int(digits)


STRICT = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer)
# Only finds where a value ends that STRICT refuses.
LAX = json.JSONDecoder(parse_int=str)
TOO_DEEP = "is nested too deep to be read. A row is an object with texts and lists of messages."


def parsed(source: str) -> Any:
    """A JSON value, or an `Unread`."""
    try:
        return STRICT.decode(source)
    except RecursionError:
        return Unread(TOO_DEEP)
    except json.JSONDecodeError as error:
        return Unread(f"is not JSON: {error.msg} at column {error.colno}. Write one JSON value, quotes escaped.")
    except ValueError as error:
        return Unread(str(error))


def jsonl(path: Path) -> Rows:
    """One JSON value per line; blank lines are no rows."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                try:
                    yield f"line {number}", parsed(line.strip().decode())
                except UnicodeDecodeError as error:
                    yield f"line {number}", Unread(f"{_not_utf8(error)} Save the file as UTF-8.")


def json_list(path: Path) -> Rows:
    """The items of a list, or of the list that an object holds under `data`, `rows` or `examples`.

    Raises:
        DataError: not UTF-8, not JSON, or JSON of another shape.
    """
    try:
        source = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise DataError([f"{path}: {_not_utf8(error)} Save the file as UTF-8."]) from error
    start = _blank(source, 0)
    if source[start : start + 1] == "[":
        yield from _items(path, source, start + 1)
    elif start < len(source):
        yield from ((f"row {i}", row) for i, row in enumerate(_wrapped(path, source), 1))


def table(path: Path) -> Rows:
    """The records of a CSV with a header row; empty cells are None.

    Cells of message columns hold JSON, and numbers in `domain`, `category` and `id` are numbers if they are written as
    JSON writes them: a CSV cannot tell 7 from "7".

    Raises:
        DataError: no usable header.
    """
    # Bytes that are not UTF-8 become lone surrogates, so that they are reported with their row.
    source = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    records = _records(source)
    place, header = next(records, ("line 1", []))
    if isinstance(header, Unread):
        raise DataError([f"{path}, {place}: {header.reason}"])
    if not header:
        return
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError([f"{path}, {place}: the header repeats {named(twice)}. Rename or remove one of them."])
    if len(header) == 1 and re.search("[;\t|]", header[0]):
        raise DataError(
            [f"{path}, {place}: the header has one column, {shown(header[0])}. Separate columns by commas."]
        )
    for place, cells in records:
        yield place, cells if isinstance(cells, Unread) else _record(header, cells)


def parquet(path: Path) -> Rows:
    """The rows of a Parquet file.

    Raises:
        DataError: not a Parquet file, a damaged one, or one whose columns share a name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError([f"{path}: the columns {named(twice)} occur twice. Rename or remove one of them."])
            for batch in file.iter_batches():
                for row in _batch_rows(batch):
                    number += 1
                    yield f"row {number}", row
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, MemoryError) as error:
        where = f" after row {number}" if number else ""
        raise DataError([f"{path} cannot be read as Parquet{where}: {one_line(error)} Write it anew."]) from error


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": jsonl,
    ".ndjson": jsonl,
    ".json": json_list,
    ".parquet": parquet,
    ".csv": table,
}


def one_line(error: BaseException) -> str:
    """An error of another library as the end of a sentence: its first line, cut at 300 characters."""
    first = str(error).strip().partition("\n")[0][:300].rstrip(".")
    return f"{first or type(error).__name__}."


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8: found byte 0x{error.object[error.start]:02x} at position {error.start}."


def _blank(source: str, position: int) -> int:
    """Where the next character that is no JSON white space stands."""
    found = BLANK.match(source, position)
    return found.end() if found else position


def _items(path: Path, source: str, position: int) -> Rows:
    """Item by item, so that each has its line and one that STRICT refuses does not hide the others."""
    line, counted = 1, 0
    position = _blank(source, position)
    ended = source[position : position + 1] == "]"
    while not ended:
        line, counted = line + source.count("\n", counted, position), position
        try:
            value, end = _item(source, position)
            end = _blank(source, end)
            ended = source[end : end + 1] == "]"
            if not ended and source[end : end + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' or ']'", source, end)
        except RecursionError as error:
            raise DataError([f"{path}, line {line}: {TOO_DEEP}"]) from error
        except json.JSONDecodeError as error:
            raise DataError([_syntax(path, error)]) from error
        yield f"line {line}", value
        position = end if ended else _blank(source, end + 1)
    rest = _blank(source, position + 1)
    if rest < len(source):
        raise DataError([_syntax(path, json.JSONDecodeError("Extra data", source, rest))])


def _item(source: str, position: int) -> tuple[Any, int]:
    try:
        return STRICT.raw_decode(source, position)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        return Unread(str(error)), LAX.raw_decode(source, position)[1]


def _syntax(path: Path, error: json.JSONDecodeError) -> str:
    return f"{path}, line {error.lineno}: is not JSON: {error.msg} at column {error.colno}. The rest cannot be read."


def _wrapped(path: Path, source: str) -> list[Any]:
    allowed = f"a list of rows, or an object with one list under {' or '.join(f'`{key}`' for key in WRAPPERS)}"
    value = parsed(source)
    if isinstance(value, Unread):
        lines = " If it holds one row per line, name it .jsonl." if "Extra data" in value.reason else ""
        raise DataError([f"{path}: {value.reason}{lines}"])
    lists = [value[key] for key in WRAPPERS if isinstance(value.get(key), list)] if isinstance(value, dict) else []
    if len(lists) != 1:
        found = f"an object with the keys {named(list(value))}" if isinstance(value, dict) else shown(value)
        raise DataError([f"{path}: should be {allowed}, found {found}. Write the rows as a list."])
    return lists[0]


def _records(source: str) -> Iterator[tuple[str, list[str] | Unread]]:
    """Records of a CSV with the line where each begins; a broken one does not hide the next."""
    limit = csv.field_size_limit(len(source) + 1)
    try:
        reader = csv.reader(io.StringIO(source, newline=""), strict=True)
        while True:
            place = f"line {reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield place, Unread(f'is not CSV: {one_line(error)} Quote cells with " and double the quotes inside.')
                continue
            bad = next((cell for cell in cells if UNUSABLE.search(cell)), None)
            if bad is not None:
                yield place, Unread(f"has a cell with bytes that are not UTF-8 text: {shown(bad)}. Save it as UTF-8.")
            elif cells:
                yield place, cells
    finally:
        csv.field_size_limit(limit)


def _record(header: list[str], cells: list[str]) -> dict[str, Any] | Unread:
    if len(cells) != len(header):
        return Unread(f"has {len(cells)} cells where the header has {len(header)}. Quote cells that contain commas.")
    record = {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}
    for name, value in record.items():
        if isinstance(value, Unread):
            return Unread(f"`{name}` {value.reason}")
    return record


def _cell(name: str, cell: str) -> Any:
    if not cell:
        return None
    if name in JSON_COLUMNS or MESSAGE_LIST.match(cell):
        return parsed(cell)
    if name in META and re.fullmatch(r"-?\d[\d.e+-]*", cell):
        value = parsed(cell)
        return value if not isinstance(value, Unread) and json.dumps(value) == cell else cell
    return cell


def _batch_rows(batch: Any) -> Iterator[Any]:
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError):
        # One value that Python cannot hold; row by row it hides no other.
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield Unread(f"cannot be read: {one_line(error)} Correct or remove it.")
