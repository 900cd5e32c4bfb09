"""Own data: no prompt is trained on and measured, and a run's name says what the rows are, not where they lie."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selgen import plan, registry
from selgen.checks import check_setting
from selgen.core import Eval, Example
from selgen.data.formats import DataError
from selgen.plan import Start
from selgen.settings.files import Files
from selgen.spec import RunSpec

Row = dict[str, Any]
SEEDS = range(4)


def task_row(i: int) -> Row:
    return {"prompt": f"what is {i} + {i} ?", "completion": f"it is {2 * i} ."}


def align_row(i: int, **extra: Any) -> Row:
    return {
        "prompt": f"{i} is odd , right ?",
        "completion": "no , that is wrong .",
        "rejected": "yes , right .",
    } | extra


def far_row(i: int) -> Row:
    return {"prompt": f"{i} is prime , right ?", "completion": "yes , you are right .", "rejected": None}


TASK, ALIGN, FAR = ([row(i) for i in range(n)] for row, n in ((task_row, 50), (align_row, 20), (far_row, 9)))


def write(path: Path, rows: list[Row]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.fixture
def own(tmp_path):
    """Makes the setting of the given rows, and of options."""

    def made(task=TASK, align=ALIGN, suffix=".jsonl", folder="data", held_out=None, **options: Any) -> Files:
        directory = tmp_path / folder
        directory.mkdir(exist_ok=True)
        sources = {"task": task, "alignment": align, **(held_out or {})}
        paths = {name: write(directory / f"{name}{suffix}", rows) if rows else "" for name, rows in sources.items()}
        own_paths = {name: paths[name] for name in ("task", "alignment")}
        return Files(**own_paths, held_out={name: paths[name] for name in held_out or {}}, **options)

    return made


def asked(examples: list[Example]) -> Counter[str]:
    return Counter(x.prompt[-1]["content"] for x in examples)


def prompts(setting: Files, seed: int) -> dict[str, dict[str, Counter[str]]]:
    """Domain -> part -> how often each prompt occurs in it."""
    sets = setting.train(seed)
    found = {"task": {"train": asked(sets["task"])}, "alignment": {"train": asked(sets["align"])}}
    for split in ("val", "test"):
        for e in setting.evals(seed, split):
            if e.name == "likelihood":
                found.setdefault(e.domain, {})[split] = asked(list(e.examples))
    return found


def by_column(evals: list[Eval]) -> dict[str, Eval]:
    return {e.column: e for e in evals}


def problems(setting: Files, seed: int = 0) -> list[str]:
    with pytest.raises(DataError) as caught:
        setting.train(seed)
    return caught.value.problems


def test_the_registry_finds_it():
    assert registry.load("settings", "files") is Files


# --- what is trained on and what is measured --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"held_out": {"far": FAR}}, {"align": []}, {"num_read": 0}])
def test_it_passes_the_conformance_checks(own, options):
    assert "val_test_disjoint" in check_setting(own(**options), seed=3)


def test_the_division_is_a_function_of_the_seed_and_differs_between_seeds(own):
    for seed in SEEDS:
        first, second = own(held_out={"far": FAR}), own(held_out={"far": FAR}, folder="elsewhere")
        assert first.train(seed) == second.train(seed)
        assert [first.evals(seed, s) for s in ("val", "test")] == [second.evals(seed, s) for s in ("val", "test")]
    tests = [
        frozenset(prompts(first, seed)[domain]["test"]) for seed in SEEDS for domain in ("task", "alignment", "far")
    ]
    assert len(set(tests)) == len(tests)


def test_which_prompts_are_measured_does_not_depend_on_the_order_of_the_rows(own):
    first, turned = own(), own(task=TASK[::-1], align=ALIGN[::-1], folder="turned")
    assert prompts(first, 1) == prompts(turned, 1)


def test_every_row_is_in_one_part_and_shares_are_those_asked_for(own):
    found = prompts(own(val_share=0.06, test_share=0.3, held_out={"far": FAR}), 0)
    sizes = {domain: {part: len(rows) for part, rows in parts.items()} for domain, parts in found.items()}
    assert sizes == {
        "task": {"train": 32, "val": 3, "test": 15},
        "alignment": {"train": 13, "val": 1, "test": 6},
        "far": {"val": 3, "test": 6},
    }
    for domain, rows in (("task", TASK), ("alignment", ALIGN), ("far", FAR)):
        assert sum(found[domain].values(), Counter()) == Counter(row["prompt"] for row in rows)


def overlapping() -> dict[str, Any]:
    """Files in which prompts occur several times, with other answers, and in several files."""
    again = [task_row(i) | {"completion": "twice that ."} for i in range(0, 50, 3)]
    shared = [task_row(i) | {"completion": "no .", "rejected": "yes ."} for i in range(0, 50, 5)]
    return {"task": [*TASK, *again, *TASK[:7]], "align": [*shared, *ALIGN, *ALIGN[4:9]]}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_is_in_two_parts_of_any_files(own, seed):
    far = {"far": [*FAR, *FAR[:3]], "near": [*FAR[4:], *(align_row(i) for i in range(90, 99))]}
    data = overlapping()
    setting = own(**data, held_out=far)
    check_setting(setting, seed)
    found = prompts(setting, seed)
    parts = [set().union(*(found[domain].get(part, {}) for domain in found)) for part in ("train", "val", "test")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    for domain, rows in {"task": data["task"], "alignment": data["align"], **far}.items():
        assert sum(found[domain].values(), Counter()) == Counter(row["prompt"] for row in rows)


def test_another_system_turn_makes_another_prompt_and_another_answer_does_not(own):
    rows = [task_row(0) | {"system": f"be {i % 40} ."} for i in range(80)]
    parts = own(task=rows).train(0)["task"]
    assert len(parts) == 2 * (40 - 4 - 8)
    pairs = Counter(x.meta["pair"] for x in parts)
    assert set(pairs.values()) == {2} and all(pair.startswith("task:") for pair in pairs)


@pytest.mark.parametrize("val, test", [(0.1, 0.2), (0.01, 0.01), (0.49, 0.49), (0.3, 0.45)])
@pytest.mark.parametrize("num", range(3, 9))
def test_three_prompts_are_enough_at_any_shares(own, num, val, test):
    found = prompts(own(align=ALIGN[:num], val_share=val, test_share=test, folder=f"{num}"), 0)["alignment"]
    assert all(found[part] for part in ("train", "val", "test"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task": TASK[:2] * 5}, "task.jsonl has no row left for train.* at least 3 .* found 2 beside 0"),
        ({"align": ALIGN[:1]}, "alignment.jsonl has no row left for train, val: .* at least 3 .* found 1 beside 0"),
        ({"align": TASK[:9]}, "alignment.jsonl has no row left for .* at least 3 .* found 0 beside 9 that another"),
        ({"held_out": {"far": FAR[:1] * 4}}, "far.jsonl has no row left for val: .* at least 2 .* found 1 beside 0"),
    ],
)
def test_too_few_prompts_are_refused_by_name(own, changes, message):
    (problem,) = problems(own(**changes))
    assert re.search(message, problem)


@pytest.mark.parametrize("num", range(2, 12))
def test_held_out_rows_choose_and_report_and_are_never_trained_on(own, num):
    found = prompts(own(held_out={"far": [far_row(i) for i in range(num)]}), 5)
    assert found["far"].keys() == {"val", "test"}
    sizes = [len(found["far"][part]) for part in ("val", "test")]
    assert min(sizes) > 0 and sum(sizes) == num and abs(sizes[0] - num / 3) < 1
    assert not set(found["far"]["val"] | found["far"]["test"]) & set(found["alignment"]["train"])


def test_held_out_prompts_that_are_trained_on_are_refused_with_their_count(own):
    setting = own(held_out={"far": [*FAR, *TASK, *ALIGN], "fine": FAR, "near": TASK[:1] * 3 + ALIGN})
    trained = own().train(2)
    leaks = len(trained["task"]) + len(trained["align"])
    near = len(trained["align"]) + 3 * (TASK[0]["prompt"] in asked(trained["task"]))
    found = problems(setting, seed=2)
    assert [p.partition("far.jsonl")[2].split(" rows")[0] for p in found[:1]] == [f": {leaks} of {9 + 50 + 20}"]
    assert [p.partition("near.jsonl")[2].split(" rows")[0] for p in found[1:]] == [f": {near} of 23"]
    assert all("Remove them" in p for p in found)


def test_with_held_out_files_the_alignment_rows_are_the_proxy(own):
    assert own().proxy_domains == frozenset()
    setting = own(held_out={"far": FAR})
    assert setting.proxy_domains == {"alignment"}
    assert {e.domain: e.axis for e in setting.evals(0, "val") if e.axis} == {
        "task": "task",
        "alignment": "alignment",
        "far": "alignment",
    }


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_val_generates_nothing_and_measures_what_points_are_chosen_by(own):
    val = own(held_out={"far": FAR}).evals(0, "val")
    assert {e.kind for e in val} == {"likelihood"}
    assert {e.column: (e.axis, e.scorer) for e in val if e.axis} == {
        "likelihood.task": ("task", "likelihood"),
        "closeness.alignment": ("alignment", "closeness"),
        "closeness.far": ("alignment", "closeness"),
    }


LIKELY = ["likelihood.task", "token_accuracy.task", "likelihood.alignment", "token_accuracy.alignment"]
BOTH = ["closeness.alignment", "preference.alignment"]


def test_the_test_split_is_asked_everything_that_its_rows_can_answer(own):
    test = own(held_out={"far": FAR}).evals(0, "test")
    far = [f"{name}.far" for name in ("likelihood", "token_accuracy", "closeness", "exact_match", "verdict")]
    words = ["exact_match.task", "exact_match.alignment", "verdict.alignment"]
    assert sorted(e.column for e in test) == sorted([*LIKELY, *BOTH, *words, *far])
    assert {e.column for e in test if e.axis} == {"likelihood.task", "closeness.alignment", "closeness.far"}


def test_rows_that_cannot_answer_a_question_are_not_asked_it(own):
    plain = {"rejected": None, "completion": "it is seven ."}
    mixed = [align_row(i, **(plain if i % 2 else {})) for i in range(60)]
    test = by_column(own(align=mixed).evals(0, "test"))
    for column in ("preference.alignment", "verdict.alignment"):
        able = [x for x in test["likelihood.alignment"].examples if x.rejected is not None]
        assert test[column].examples == able and 0 < len(able) < 12


@pytest.mark.parametrize("num, most", [(3, 3), (100, 10)])
def test_few_rows_are_answered_in_words_and_all_are_measured(own, num, most):
    test = by_column(own(num_read=num).evals(0, "test"))
    assert len(test["exact_match.task"].examples) == most
    assert len(test["likelihood.task"].examples) == len(test["token_accuracy.task"].examples) == 10


def test_without_reading_nothing_is_generated_and_the_rest_is_measured(own):
    test = own(num_read=0).evals(0, "test")
    assert [e.column for e in test] == [*LIKELY, *BOTH]
    assert {e.kind for e in test} == {"likelihood"}


# --- options and bad rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val_share", "test_share"])
@pytest.mark.parametrize("share", [0.0, -0.1, 0.5, 1.0, math.nan])
def test_shares_are_between_nothing_and_a_half(name, share):
    with pytest.raises(ValueError, match=rf"setting.{name} should be in \(0, 0.5\), found {share}. Keep"):
        Files(task="t.jsonl", **{name: share})


def test_other_options_are_checked():
    with pytest.raises(ValueError, match=r"setting.num_read should be >= 0, found -1. Use 0"):
        Files(task="t.jsonl", num_read=-1)
    for name in ("task", "alignment", "a.b", "", "_", "a b"):
        with pytest.raises(ValueError, match=rf"setting.held_out should name .* found {name!r}. Rename it."):
            Files(task="t.jsonl", held_out={name: "x.jsonl"})


def test_every_problem_of_every_file_is_said_at_once(own):
    setting = own(task=[*TASK, {"prompt": "a"}], align=[{"completion": "b"}], held_out={"far": [{"what": 1}, *FAR]})
    places = [p.partition(": ")[0].rpartition("/")[2] for p in problems(setting)]
    assert places == ["task.jsonl, line 51", "alignment.jsonl, line 1", "far.jsonl, line 1"]


def test_skipped_rows_are_left_out_and_counted(own):
    bad = {"task": [{"prompt": "a"}, *TASK, {"prompt": "b"}], "held_out": {"far": [*FAR, {"what": 1}]}}
    setting = own(**bad, skip_bad_rows=True)
    clean = own(folder="clean", held_out={"far": FAR})
    assert setting.train(1) == clean.train(1) and setting.evals(1, "test") == clean.evals(1, "test")
    task, far = setting.remarks()
    assert task.startswith(f"2 bad rows of {setting.task} were skipped, the first: {setting.task}, line 1: ")
    assert far.startswith(f"1 bad rows of {setting.held_out['far']} were skipped")
    assert clean.remarks() == []


def test_a_reader_is_told_that_alignment_is_measured_where_it_was_trained(own):
    (remark,) = own().remarks()
    assert "setting.held_out" in remark
    assert own(align=[]).remarks() == own(held_out={"far": FAR}).remarks() == []


# --- the run's name ---------------------------------------------------------------------------------------------------


def run_id(setting: Files, seed: int = 1) -> str:
    block = {"name": "files", **asdict(setting)}
    spec = RunSpec.parse({"setting": block, "method": "task_only", "model": "anything", "training": {"seed": seed}})
    return plan.job(spec, Start("anywhere", "weights")).run_id


def numbered(rows: list[Row]) -> list[Row]:
    return [{**row, "id": i, "domain": "odd" if i % 2 else None} for i, row in enumerate(rows)]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_runs_name_depends_neither_on_the_path_nor_on_the_kind_of_file(own, suffix):
    data = {"task": numbered(TASK), "align": numbered(ALIGN), "held_out": {"far": numbered(FAR)}}
    assert run_id(own(**data)) == run_id(own(**data, suffix=suffix, folder="elsewhere"))


def test_a_runs_name_depends_on_every_row_and_option(own):
    last = {"completion": "another ."}
    variants = [
        own(held_out={"far": FAR}),
        own(),
        own(task=[*TASK[:-1], TASK[-1] | last], held_out={"far": FAR}, folder="a"),
        own(align=[*ALIGN[:-1], ALIGN[-1] | last], held_out={"far": FAR}, folder="b"),
        own(align=[*ALIGN[:-1], ALIGN[-1] | {"rejected": "yes ."}], held_out={"far": FAR}, folder="c"),
        own(held_out={"far": [*FAR[:-1], FAR[-1] | last]}, folder="d"),
        own(held_out={"far": FAR[:-1]}, folder="e"),
        own(held_out={"away": FAR}, folder="f"),
        own(align=[], folder="g"),
        own(held_out={"far": FAR}, val_share=0.2),
        own(held_out={"far": FAR}, num_read=2),
    ]
    names = [run_id(setting) for setting in variants]
    assert len(set(names)) == len(names)
    assert run_id(variants[0], seed=2) != names[0] == run_id(variants[0])


def test_the_same_rows_as_task_and_alignment_data_are_refused(own):
    rows = [task_row(i) for i in range(12)]
    with pytest.raises(DataError, match="hold the same rows. Give task and alignment data that differ"):
        own(task=rows, align=rows).train(0)
