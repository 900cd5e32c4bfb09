"""Whatever a file holds, each of its rows becomes an example or is listed with its place; never a traceback."""

import copy
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selgen.core import Example
from selgen.data.files import DataError, fingerprint, read_examples
from selgen.data.formats import FORMS, KNOWN, META, REFUSED, to_examples


def fuzz(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def refused(source, **options):
    """The problems, which any terminal can print and which name their file; None if there are none."""
    try:
        loaded = read_examples(source, **options)
    except DataError as error:
        assert error.problems and str(error).encode()
        assert all(problem.startswith(source) and "\n" not in problem for problem in error.problems)
        return error.problems, None
    assert loaded.examples and all(isinstance(example, Example) for example in loaded.examples)
    assert loaded.fingerprint == fingerprint(loaded.examples)
    return None, loaded


def holds(folder, name, content, num_rows=None):
    """The property of all readers; returns how many rows were read (num_rows, if the caller knows it, must agree)."""
    path = folder / name
    path.write_bytes(content)
    problems, loaded = refused(str(path))
    lenient_problems, lenient = refused(str(path), skip_bad_rows=True)
    if loaded is not None:
        assert lenient is not None and lenient.examples == loaded.examples and lenient.skipped == []
        accounted = len(loaded.examples)
    elif lenient is not None:
        # Skipping leaves out exactly what was refused.
        assert lenient.skipped == problems
        accounted = len(lenient.examples) + len(lenient.skipped)
    else:
        assert lenient_problems[: len(problems)] == problems
        accounted = None
        if num_rows is not None:
            assert len(problems) == max(num_rows, 1)
    assert accounted is None or num_rows is None or accounted == num_rows
    return accounted


def non_blank(content):
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(bool(line.strip()) for line in lines)


KEYS = [
    *KNOWN,
    *META,
    *REFUSED,
    "role",
    "content",
    "from",
    "value",
    "choices",
    "labels",
    "tool_calls",
    "weight",
    "promt",
]
TEXTS = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "a", "b", "", " "]) | st.text(
    max_size=5
)
SCALARS = (
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0, 1, 10**400, "\ud800", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | TEXTS, inner, max_size=4),
    max_leaves=10,
)
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
VALID = [
    {"messages": TURNS, "rejected": "c", "id": 1, "domain": "x"},
    {"prompt": "a", "completion": "b", "category": "y"},
    {"prompt": TURNS[:1], "completion": TURNS[1:], "rejected": [{"role": "assistant", "content": "c"}]},
    {"instruction": "a", "input": "", "output": "b", "system": "s"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "c"}]},
    {"prompt": "a", "aligned": "b", "misaligned": "c"},
    {"input": "a", "targets": {"choices": ["b", "c"], "labels": [1, 0]}},
    {"label": "g", "messages": TURNS[:1], "answer": 6, "mod": None, "user_provides_answer": "false"},
]


def places(value, path=()):
    """Paths to every value inside a row."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@st.composite
def mutated(draw):
    """A valid row with one value replaced or removed, or one key renamed."""
    row = copy.deepcopy(draw(st.sampled_from(VALID)))
    *path, last = draw(st.sampled_from([p for p in places(row) if p]))
    holder = row
    for key in path:
        holder = holder[key]
    change = draw(st.sampled_from(["replace", "remove", "rename"]))
    value = holder[last]
    if change == "replace":
        holder[last] = draw(VALUES)
    else:
        del holder[last]
        if change == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(KEYS))] = value
    return row


@st.composite
def scratched(draw):
    """A line of a valid row with a few bytes overwritten, inserted or cut."""
    line = bytearray(json.dumps(draw(st.sampled_from(VALID))).encode())
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(line)))
        line[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(line)


def lines(rows):
    return b"\n".join(json.dumps(row).encode() for row in rows)


def test_the_valid_rows_cover_every_form_and_are_valid():
    assert len(to_examples(VALID)) == len(VALID)
    assert {form.keys for form in FORMS} == {f.keys for f in FORMS for row in VALID if set(f.keys) <= set(row)}


@fuzz(600)
@given(content=st.binary(max_size=80) | st.lists(st.binary(max_size=20) | st.just(lines(VALID[:1]))).map(b"\n".join))
def test_any_bytes_as_jsonl(folder, content):
    holds(folder, "x.jsonl", content, non_blank(content))


@fuzz(500)
@given(name=st.sampled_from(["x.json", "x.csv", "x.parquet", "x.ndjson"]), content=st.binary(max_size=80))
def test_any_bytes_as_any_kind(folder, name, content):
    holds(folder, name, content)


@fuzz(600)
@given(rows=st.lists(VALUES, max_size=4))
def test_any_json_values_per_line(folder, rows):
    holds(folder, "x.jsonl", lines(rows), len(rows))


@fuzz(250)
@given(rows=st.lists(VALUES | st.sampled_from(VALID) | mutated(), max_size=4), wrapped=st.booleans())
def test_any_json_values_in_a_list(folder, rows, wrapped):
    content = json.dumps({"data": rows} if wrapped else rows, indent=1).encode()
    accounted = holds(folder, "x.json", content)
    assert accounted in (None, len(rows))


@fuzz(800)
@given(rows=st.lists(st.sampled_from(VALID) | mutated(), min_size=1, max_size=3))
def test_valid_rows_with_one_mutation(folder, rows):
    holds(folder, "x.jsonl", lines(rows), len(rows))


@fuzz(600)
@given(broken=st.lists(scratched(), min_size=1, max_size=3))
def test_valid_lines_with_some_bytes_changed(folder, broken):
    content = b"\n".join([lines(VALID[:1]), *broken])
    holds(folder, "x.jsonl", content, non_blank(content))
    holds(folder, "x.json", b"[" + b",\n".join(broken) + b"]")


@fuzz(60)
@given(
    depth=st.integers(1, 1100) | st.sampled_from([5_000, 100_000]),
    brackets=st.sampled_from([("[", "]"), ('{"a":', "}"), ('{"messages":[', "]}")]),
    closed=st.booleans(),
)
def test_any_depth_of_nesting(folder, depth, brackets, closed):
    opening, closing = brackets
    nest = opening * depth + ("1" + closing * depth if closed else "")
    inside = f'{{"prompt": {nest}, "completion": "b", "messages": {nest}, "id": {nest}, "tools": {nest}}}'
    content = f"{nest}\n{inside}\n{json.dumps(VALID[0])}".encode()
    assert holds(folder, "x.jsonl", content, 3) == 3
    holds(folder, "x.json", f"[{nest},{inside}]".encode())
    cell = nest.replace('"', '""')
    assert holds(folder, "x.csv", f'prompt,completion,messages\na,b,\n,,"{cell}"\n'.encode(), 2) == 2


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_a_row_of_two_megabytes(folder, name):
    long = "word " * 400_000
    row = {"prompt": long, "completion": "b"}
    csv_text = f"prompt,completion\n{long},b\nb,{long},\n"
    contents = {
        "x.jsonl": lines([row, {"completion": long}, {long: "a"}, [long]]),
        "x.json": json.dumps([row, {"completion": long}, {long: "a"}, [long]]).encode(),
        "x.csv": csv_text.encode(),
    }
    assert holds(folder, name, contents[name]) == (2 if name == "x.csv" else 4)
    skipped = read_examples(str(folder / name), skip_bad_rows=True).skipped
    assert skipped and all(len(problem) < 2_000 for problem in skipped)


@fuzz(500)
@given(content=st.text(alphabet='ab,"\n\r;[{}]\ufeff\0é', max_size=60), header=st.booleans())
def test_any_characters_as_csv(folder, content, header):
    holds(folder, "x.csv", ("prompt,completion,messages\n" * header + content).encode())


@fuzz(250)
@given(
    rows=st.lists(st.lists(TEXTS.filter(lambda t: "\ud800" not in t), min_size=3, max_size=3), min_size=1, max_size=4)
)
def test_any_cells_of_a_csv(folder, rows):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["prompt", "completion", "messages"], *rows])
    holds(folder, "x.csv", file.getvalue().encode("utf-8", "surrogatepass"), len(rows))


@pytest.fixture(scope="module")
def parquet_bytes():
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"prompt": f"what {i}", "completion": "good"} for i in range(50)]), buffer)
    return buffer.getvalue()


@fuzz(200)
@given(data=st.data())
def test_any_part_of_a_parquet_file(folder, parquet_bytes, data):
    start = data.draw(st.sampled_from([0, 0, 0, 4, 50]))
    end = data.draw(st.integers(start, len(parquet_bytes)))
    accounted = holds(folder, "x.parquet", parquet_bytes[start:end])
    assert accounted == (50 if end - start == len(parquet_bytes) else None)


@fuzz(150)
@given(rows=st.lists(st.fixed_dictionaries({}, optional={key: TEXTS for key in KNOWN}), min_size=1, max_size=4))
def test_any_text_columns_of_a_parquet_file(folder, rows):
    buffer = io.BytesIO()
    columns = sorted({key for row in rows for key in row}) or ["none"]
    table = pa.table({key: pa.array([row.get(key) for row in rows], pa.string()) for key in columns})
    pq.write_table(table, buffer)
    holds(folder, "x.parquet", buffer.getvalue(), len(rows))


@fuzz(400)
@given(rows=st.lists(VALUES | mutated() | st.dictionaries(st.integers() | TEXTS, st.binary() | SCALARS), max_size=3))
def test_any_python_rows(rows):
    try:
        assert len(to_examples(rows)) == len(rows)
    except DataError as error:
        assert 1 <= len(error.problems) <= len(rows) and str(error).encode()
