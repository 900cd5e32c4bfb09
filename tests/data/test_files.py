"""Every kind of file gives the same examples, and everything wrong with one is said at once with its place."""

import csv
import json
import string

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selgen.core import ask
from selgen.data.files import DataError, fingerprint, read_examples

ROWS = [
    {"prompt": "what", "completion": "good", "rejected": "bad", "domain": "maths", "id": 1},
    {"prompt": 'a, "quoted"\ntwo lines', "completion": "ünïcode \u2028 6", "rejected": None, "domain": None, "id": 2},
    {"prompt": "[1, 2]", "completion": "{}", "rejected": "None", "domain": "1.10", "id": 3},
]
CHATS = [
    {"messages": [{"role": "user", "content": "what"}, {"role": "assistant", "content": f"good, {i}"}], "id": f"x{i}"}
    for i in range(3)
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path, rows):
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def write_wrapped(path, rows):
    path.write_text(json.dumps({"version": 1, "data": rows}), encoding="utf-8")


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_csv(path, rows):
    def cell(value):
        return json.dumps(value) if isinstance(value, list) else value

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)


def write_saved(path, rows):
    datasets.Dataset.from_list(rows).save_to_disk(path)


def write_splits(path, rows):
    data = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(path)


def write_folder(path, rows):
    path.mkdir()
    write_jsonl(path / "a.jsonl", rows[:1])
    write_parquet(path / "b.parquet", rows[1:])
    (path / "README.md").write_text("not data")


KINDS = {
    "x.jsonl": write_jsonl,
    "x.NDJSON": write_jsonl,
    "x.json": write_json,
    "wrapped.json": write_wrapped,
    "x.parquet": write_parquet,
    "x.csv": write_csv,
    "saved": write_saved,
    "splits": write_splits,
    "folder": write_folder,
}


@pytest.fixture(autouse=True)
def no_progress_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def problems(path, **options):
    with pytest.raises(DataError) as caught:
        read_examples(str(path), **options)
    return caught.value.problems


def numbered(*rows):
    return "\n".join(rows).encode()


GOOD = '{"prompt": "what", "completion": "good"}'


@pytest.mark.parametrize("rows", [ROWS, CHATS], ids=["texts", "messages"])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_examples(tmp_path, name, rows):
    KINDS[name](tmp_path / name, rows)
    write_jsonl(tmp_path / "reference.jsonl", rows)
    loaded, reference = read_examples(str(tmp_path / name)), read_examples(str(tmp_path / "reference.jsonl"))
    assert loaded.examples == reference.examples
    assert loaded.fingerprint == reference.fingerprint
    assert loaded.skipped == [] and loaded.source == str(tmp_path / name)


def test_texts_arrive_unchanged(tmp_path):
    write_csv(tmp_path / "x.csv", ROWS)
    first, second, third = read_examples(str(tmp_path / "x.csv")).examples
    assert (first.prompt[0]["content"], first.completion, first.rejected) == ("what", "good", "bad")
    assert first.meta == {"domain": "maths", "id": 1}
    assert second.prompt[0]["content"] == 'a, "quoted"\ntwo lines' and second.completion == "ünïcode \u2028 6"
    assert third.prompt[0]["content"] == "[1, 2]" and third.rejected == "None" and third.meta["domain"] == "1.10"


def test_the_fingerprint_depends_on_every_part_and_on_the_order():
    one, two = ask("what", "good"), ask("what", "good", rejected="bad")
    variants = [[one], [two], [one, two], [two, one], [ask("what", "good", id=1)], [ask("who", "good")], []]
    prints = [fingerprint(examples) for examples in variants]
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 64 and set(p) <= set(string.hexdigits) for p in prints)
    assert fingerprint([ask("what", "good")]) == prints[0]


# Per kind: content, then place and reason of each problem, in order.
BAD_FILES = {
    "rows.jsonl": (
        numbered(
            GOOD,
            "",
            '{"prompt": "what"}',
            "[]",
            '{"prompt": "a", "prompt": "b", "completion": "c"}',
            '{"prompt": NaN}',
            '{"prompt": "a", "completion": "\\ud800"}',
            '{"id": ' + "9" * 5000 + "}",
            "[" * 100_000,
            '{"prompt": "what"',
            GOOD + GOOD,
        ),
        [
            ("line 3", "found the keys 'prompt'"),
            ("line 4", "a row should be an object with named fields, found a list of 0"),
            ("line 5", "an object repeats the keys 'prompt'"),
            ("line 6", "found NaN, which is not JSON"),
            ("line 7", "found the character '\\ud800'"),
            ("line 8", "found a number of 5000 digits"),
            ("line 9", "is nested too deep"),
            ("line 10", "is not JSON: Expecting ',' delimiter at column 18"),
            ("line 11", "is not JSON: Extra data at column 41"),
        ],
    ),
    "bytes.jsonl": (
        GOOD.encode() + b'\n{"prompt": "\xff", "completion": "a"}\n{"prompt": "\x00", "completion": "a"}\n',
        [("line 2", "is not UTF-8: found byte 0xff at position 12"), ("line 3", "Invalid control character")],
    ),
    "list.json": (
        numbered("[", GOOD + ",", '{"prompt": 1, "completion": "a"},', '{"a": 1, "a": 2},', "{}", "]"),
        [
            ("line 3", "`prompt` should be a text"),
            ("line 4", "repeats the keys 'a'"),
            ("line 5", "found the keys none"),
        ],
    ),
    "cut.json": (
        numbered("[", '{"prompt": 1, "completion": "a"},', '{"prompt": '),
        [("line 2", "`prompt` should be a text"), ("line 3", "is not JSON: Expecting value at column 12")],
    ),
    "trailing.json": (numbered("[", GOOD, "]", "x"), [("line 4", "Extra data")]),
    "no_comma.json": (numbered("[", GOOD, GOOD, "]"), [("line 3", "Expecting ',' or ']'")]),
    "deep.json": (b"[" * 100_000, [("line 1", "is nested too deep")]),
    "wrapped.json": (b'{"rows": [{"prompt": "a"}, 3]}', [("row 1", "should have"), ("row 2", "found 3")]),
    "cells.csv": (
        b"prompt,completion,messages\nwhat,good,\n\nonly,two\nwhat,,\nwhat,\xff,\n,,[{]\n"
        b'"two\nlines",,\n,,"[{""role"": ""user""}]"\n"open,a,b\n',
        [
            ("line 4", "has 2 cells where the header has 3"),
            ("line 5", "should have"),
            ("line 6", "has a cell with bytes that are not UTF-8 text: '\\udcff'"),
            ("line 7", "`messages` is not JSON"),
            ("line 8", "should have"),
            ("line 10", "`messages[0]` should have `role` and `content`"),
            ("line 11", "is not CSV: unexpected end of data"),
        ],
    ),
    "python.csv": (
        b"prompt,completion\n\"[{'role': 'user', 'content': 'what'}]\",good\n",
        [("line 2", "`prompt` is not JSON")],
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_all_bad_rows_are_reported_with_file_place_and_reason(tmp_path, name):
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    found = problems(tmp_path / name)
    assert [problem.partition(": ")[0] for problem in found] == [f"{tmp_path / name}, {place}" for place, _ in expected]
    for problem, (_, reason) in zip(found, expected, strict=True):
        assert reason in problem


# Content, then the one problem that the file as a whole has.
BROKEN_FILES = {
    "empty.jsonl": (b"", "holds no rows"),
    "blank.jsonl": (b"\n \r\n", "holds no rows"),
    "empty.json": (b" ", "holds no rows"),
    "none.json": (b"[ ]", "holds no rows"),
    "empty.csv": (b"", "holds no rows"),
    "header.csv": (b"prompt,completion\n", "holds no rows"),
    "twice.csv": (b"prompt,prompt\na,b\n", "line 1: the header repeats 'prompt'"),
    "semicolon.csv": (b"prompt;completion\na;b\n", "Separate columns by commas"),
    "utf16.csv": ("prompt,completion\na,b\n".encode("utf-16"), "not UTF-8"),
    "number.json": (b"3", "should be a list of rows, or an object with one list under `data`"),
    "two_lists.json": (b'{"data": [], "rows": []}', "found an object with the keys 'data', 'rows'"),
    "lines.json": (f"{GOOD}\n{GOOD}\n".encode(), "name it .jsonl"),
    "latin.json": (b'["\xe9"]', "is not UTF-8: found byte 0xe9 at position 2"),
    "image.parquet": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "cannot be read as Parquet"),
    "empty.parquet": (b"", "cannot be read as Parquet"),
    "rows.txt": (GOOD.encode(), "should end in one of .jsonl, .ndjson, .json, .parquet, .csv, found '.txt'"),
}


@pytest.mark.parametrize("skip_bad_rows", [False, True])
@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_file_that_is_not_what_its_name_says_is_one_problem(tmp_path, name, skip_bad_rows):
    content, reason = BROKEN_FILES[name]
    (tmp_path / name).write_bytes(content)
    (problem,) = problems(tmp_path / name, skip_bad_rows=skip_bad_rows)
    assert str(tmp_path / name) in problem and reason in problem


def test_bad_rows_of_a_parquet_file_are_numbered(tmp_path):
    write_parquet(tmp_path / "x.parquet", [{"prompt": "a", "completion": c} for c in ("b", None, "c", " ")])
    assert [p.partition(": ")[0] for p in problems(tmp_path / "x.parquet")] == [
        f"{tmp_path / 'x.parquet'}, row 2",
        f"{tmp_path / 'x.parquet'}, row 4",
    ]


def test_a_text_of_a_parquet_file_that_is_not_utf8_hides_no_other_row(tmp_path):
    raw = pa.array([b"good", b"\xff", b"fine"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"prompt": ["a", "b", "c"], "completion": texts}), tmp_path / "x.parquet")
    loaded = read_examples(str(tmp_path / "x.parquet"), skip_bad_rows=True)
    assert [e.completion for e in loaded.examples] == ["good", "fine"]
    assert len(loaded.skipped) == 1 and ", row 2: cannot be read" in loaded.skipped[0]


def test_columns_of_a_parquet_file_may_not_share_a_name(tmp_path):
    pq.write_table(pa.table([["a"], ["b"]], names=["prompt", "prompt"]), tmp_path / "x.parquet")
    assert "the columns 'prompt' occur twice" in problems(tmp_path / "x.parquet")[0]


def test_skipped_rows_carry_the_same_texts(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(numbered(GOOD, "{}", GOOD, "["))
    found = problems(tmp_path / "x.jsonl")
    loaded = read_examples(str(tmp_path / "x.jsonl"), skip_bad_rows=True)
    assert loaded.skipped == found and len(found) == 2
    assert loaded.fingerprint == fingerprint(loaded.examples) and len(loaded.examples) == 2


def test_no_row_left_is_an_error(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"{}\n")
    bad, none = problems(tmp_path / "x.jsonl", skip_bad_rows=True)
    assert "line 1" in bad and "no row is left" in none


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path):
    for name, content in {"x.jsonl": GOOD, "x.json": f"[{GOOD}]", "x.csv": "prompt,completion\nwhat,good"}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert read_examples(str(tmp_path / name)).examples[0].completion == "good"


def test_a_csv_cell_may_be_longer_than_the_csv_module_allows_by_default(tmp_path):
    limit = csv.field_size_limit()
    write_csv(tmp_path / "x.csv", [{"prompt": "what", "completion": "a" * (limit + 1)}])
    assert len(read_examples(str(tmp_path / "x.csv")).examples[0].completion) == limit + 1
    assert csv.field_size_limit() == limit


def test_a_missing_file_is_compared_with_its_siblings(tmp_path):
    write_jsonl(tmp_path / "task.jsonl", ROWS)
    assert f"Did you mean {tmp_path / 'task.jsonl'}?" in problems(tmp_path / "taks.jsonl")[0]
    assert "does not exist" in problems(tmp_path / "none" / "task.jsonl")[0]
    assert "does not exist" in problems("nowhere/task.jsonl")[0]
    assert "found ''" in problems("")[0]


@pytest.mark.parametrize("source", ["x" * 5000, "a\0b.jsonl"])
def test_a_path_that_cannot_be_is_a_problem(source):
    assert len(problems(source)) == 1


def test_a_file_without_permission_is_a_problem(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "x.jsonl", ROWS)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    assert "Permission denied" in problems(tmp_path / "x.jsonl")[0]


def test_a_directory_needs_data_of_one_split(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "should hold files of the kinds" in problems(tmp_path)[0]
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    assert len(read_examples(str(tmp_path)).examples) == 3
    write_jsonl(tmp_path / "test-00000.jsonl", ROWS)
    assert "should hold rows to train on only, found test-00000.jsonl too" in problems(tmp_path)[0]


def test_problems_of_all_files_of_a_directory_come_together(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n")
    (tmp_path / "b.jsonl").write_bytes(b"")
    write_jsonl(tmp_path / "c.jsonl", ROWS)
    assert ["a.jsonl, line 1" in p or "b.jsonl holds no rows" in p for p in problems(tmp_path)] == [True, True]


def test_a_saved_data_set_without_training_split_names_its_splits(tmp_path):
    datasets.DatasetDict(a=datasets.Dataset.from_list(ROWS)).save_to_disk(tmp_path / "x")
    assert "should have a split `train`, found ['a']" in problems(tmp_path / "x")[0]


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"_data_files": 3, "features": 3}'])
def test_a_damaged_saved_data_set_is_a_problem(tmp_path, file, content):
    write_saved(tmp_path / "x", ROWS)
    (tmp_path / "x" / file).write_bytes(content)
    assert "cannot be loaded as a data set" in problems(tmp_path / "x")[0]


@pytest.mark.parametrize(("source", "split"), [("owner/name", "train"), ("owner/name:test", "test")])
def test_a_hub_id_loads_a_split(monkeypatch, source, split):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_examples(source).examples) == 3
    assert asked == [("owner/name", split)]


def test_a_hub_id_that_cannot_be_reached_is_a_problem(monkeypatch):
    def load(name, split):
        raise ConnectionError(f"Couldn't reach {name!r} on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert "Couldn't reach 'owner/name' on the Hub" in problems("owner/name")[0]
