"""Verdicts survive kills, are shared by threads and processes, and belong to one judge."""

import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selgen.core import Judge, Judgement
from selgen.judges._cache import CacheError, Verdicts, default_path, identity, worth_keeping

WRITERS, FILES, EACH = 6, 30, 5


@dataclass
class Fake(Judge):
    model: str
    hurry: int = 1

    unhashed = ("hurry",)

    def judge_many(self, prompts):
        return [Judgement(1.0) for _ in prompts]


def write(name: str, directory: Path, together: Any) -> None:
    for file in range(FILES):
        together.wait(60)
        with Verdicts({"model": "m"}, directory / f"{file}.sqlite") as verdicts:
            for i in range(EACH):
                verdicts.put(f"{name} {i}", Judgement(float(i), f"{i}"))


def test_a_verdict_comes_back_as_it_was():
    kept = [Judgement(71.25, "71"), Judgement(None, "REFUSAL", "declined"), Judgement(3.0, "\ud800 三", None)]
    with Verdicts({"model": "m"}) as verdicts:
        for prompt, judgement in zip("abc", kept, strict=True):
            verdicts.put(prompt, judgement)
    with Verdicts({"model": "m"}) as verdicts:
        assert verdicts.get(["a", "b", "c", "d"]) == dict(zip("abc", kept, strict=True))


def test_more_prompts_than_fit_in_a_query_are_found():
    prompts = [f"p {i}" for i in range(1203)]
    with Verdicts({"model": "m"}) as verdicts:
        for prompt in prompts:
            verdicts.put(prompt, Judgement(1.0))
        assert set(verdicts.get(prompts)) == set(prompts)


def test_another_judge_has_other_verdicts():
    with Verdicts({"model": "m"}) as verdicts:
        verdicts.put("a", Judgement(1.0))
    with Verdicts({"model": "n"}) as verdicts:
        assert verdicts.get(["a"]) == {}


def test_how_a_judge_is_reached_is_no_part_of_who_it_is():
    assert identity(Fake("m", hurry=1)) == identity(Fake("m", hurry=2)) == {"judge": "Fake", "model": "m"}
    assert identity(Fake("m"), model="fingerprint") == {"judge": "Fake", "model": "fingerprint"}


@pytest.mark.parametrize(
    ("judgement", "kept"),
    [
        (Judgement(0.0, "0"), True),
        (Judgement(None, "REFUSAL", "declined"), True),
        (Judgement(None, "CODE", "declined"), True),
        (Judgement(None, "hm", "no number"), False),
        (Judgement(None, None, "no answer"), False),
    ],
)
def test_only_verdicts_are_kept(judgement, kept):
    assert worth_keeping(judgement) is kept


def test_the_file_lies_in_the_users_cache_directory(cache_home):
    assert default_path() == cache_home / "selgen" / "judgements.sqlite"


def test_threads_write_to_one_file_at_once():
    with Verdicts({"model": "m"}) as verdicts:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: verdicts.put(f"p {i}", Judgement(float(i))), range(200)))
        found = verdicts.get([f"p {i}" for i in range(200)])
    assert found == {f"p {i}": Judgement(float(i)) for i in range(200)}


def test_processes_that_open_a_new_file_at_the_same_moment_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WRITERS)
    writers = [context.Process(target=write, args=(f"w{k}", tmp_path, together)) for k in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    expected = {f"w{k} {i}": Judgement(float(i), f"{i}") for k in range(WRITERS) for i in range(EACH)}
    for file in range(FILES):
        with Verdicts({"model": "m"}, tmp_path / f"{file}.sqlite") as verdicts:
            assert verdicts.get(list(expected)) == expected


def test_a_damaged_file_is_named_with_what_to_do():
    path = default_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database, " * 100)
    with pytest.raises(CacheError, match=r"judgements.sqlite is damaged \(file is not a database\). Delete it"):
        Verdicts({"model": "m"})


def test_a_row_that_is_no_verdict_is_damage():
    with Verdicts({"model": "m"}) as verdicts:
        verdicts.put("a", Judgement(1.0))
        other = sqlite3.connect(verdicts.path)
        other.execute("UPDATE judgements SET judgement = '[1'")
        other.commit()
        other.close()
        with pytest.raises(CacheError, match="is damaged .* Delete it"):
            verdicts.get(["a"])


def test_a_place_where_nothing_can_be_written_is_named(cache_home):
    cache_home.write_text("a file where a directory should be")
    with pytest.raises(CacheError, match=r"judgements.sqlite cannot be used .* set XDG_CACHE_HOME to another one"):
        Verdicts({"model": "m"})
