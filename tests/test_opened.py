"""What a run left behind opens again as it was, or says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from own import ALIGNMENT, FAST, LORA, TASK, save_model, the_run, untouched, write_rows
from selgen import opened, reading, record
from selgen.config import ConfigError
from selgen.generate import Generation
from selgen.record import Point, RecordError
from selgen.settings.files import data
from selgen.talk import Talk
from test_cli import selgen


@pytest.fixture
def place(tmp_path) -> Path:
    """A model and data of their own, to be spoilt."""
    save_model(tmp_path / "model")
    write_rows(tmp_path / "task.jsonl", TASK)
    write_rows(tmp_path / "align.jsonl", ALIGNMENT)
    return tmp_path


def train(place: Path, *more: object, model: Path | None = None, out: str = "out") -> Path:
    files = ["--task", place / "task.jsonl", "--alignment", place / "align.jsonl", "--method", "kl"]
    code, said = selgen("train", "--model", model or place / "model", *files, "--out", place / out, *FAST, *more)
    assert code == 0, said
    return the_run(place / out)


def measured(point: Point) -> dict:
    return {column: (m.value, m.n, m.unscored) for column, m in point.metrics.items()}


def recorded(run_dir: Path) -> dict:
    [test] = [p for p in record.read(run_dir).points if p.split == "test"]
    return measured(test)


@pytest.mark.parametrize("kind", [LORA, [*LORA, "lora.use_dora=true"], ["lora=null"]], ids=["LoRA", "DoRA", "full"])
def test_a_run_measures_again_as_it_was_recorded(kind, place):
    run_dir = train(place, *kind)
    one = opened.open_run(run_dir, [])
    assert one.is_tuned
    again = measured(one.measure("test")[0])
    assert again.keys() == recorded(run_dir).keys()
    for column, (value, *counts) in recorded(run_dir).items():
        assert again[column][0] == (None if value is None else pytest.approx(value, abs=1e-5))
        assert list(again[column][1:]) == counts
    base = opened.open_model(record.read(run_dir).spec, str(place / "model"), [])
    assert measured(one.measure_start("test")[0]) == measured(base.measure("test")[0])
    assert selgen("eval", "--model", place / "model", "-c", run_dir / "spec.yaml")[0] == 0


def test_the_start_of_a_run_on_an_adapter_is_that_adapter(place):
    first = train(place, *LORA)
    second = train(place, *LORA, model=first / "adapter", out="second")
    start = measured(opened.open_run(second, []).measure_start("test")[0])
    for name in ("likelihood.task", "likelihood.alignment"):
        assert start[name][0] == pytest.approx(recorded(first)[name][0], abs=1e-5)
        assert recorded(second)[name][0] != pytest.approx(recorded(first)[name][0], abs=1e-3)


def test_overrides_change_what_is_measured(place):
    run_dir = train(place, *LORA)
    code, said = selgen("eval", run_dir, "setting.num_read=0")
    assert code == 0 and "likelihood.task" in said and "exact_match" not in said


def test_a_directory_may_have_an_equals_sign_in_its_name(place):
    run_dir = train(place, *LORA, out="lr=0.05")
    assert selgen("eval", run_dir)[0] == 0


def test_talking_needs_no_data_but_measuring_does(place):
    run_dir = train(place, *LORA)
    (place / "align.jsonl").unlink()
    for cached in (reading._sets, reading._rows, data.load):  # as in another process
        cached.cache_clear()
    code, said = selgen("chat", run_dir, "--max-new-tokens", 3, typed="what is 1 ?\n")
    assert code == 0 and "tuned: kl, beta 1, seed 1" in said
    code, said = selgen("eval", run_dir)
    assert code == 2 and f"{place / 'align.jsonl'} does not exist" in said


def test_each_side_of_a_talk_reads_its_own_earlier_answers(place):
    talk = Talk(opened.open_run(train(place, *LORA), []), Generation(4), system="be right")
    first = talk.say("what is 1 ?")
    assert first[0] != first[1]
    for side, said in zip((talk._base, talk._tuned), first, strict=True):
        assert [(m["role"], m["content"]) for m in side] == [
            ("system", "be right"),
            ("user", "what is 1 ?"),
            ("assistant", said),
        ]
    second = talk.say("right ?")
    talk.restart()
    assert talk.say("what is 1 ?") == first, "nothing is remembered"
    assert len(second) == 2


def test_a_template_that_refuses_the_conversation_is_told(place):
    template = place / "model" / "chat_template.jinja"
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template.write_text(refusing + template.read_text())
    run_dir = train(place, *LORA)
    code, said = selgen("chat", run_dir, "--system", "be right", typed="what is 1 ?\n")
    assert code == 1 and "chat template refuses the conversation (no system role). If it is the system turn" in said
    more = write_rows(
        place / "more.jsonl", [{"system": "no", "prompt": f"is {i} ?", "completion": "yes"} for i in "123"]
    )
    wanted = [
        "--alignment",
        place / "align.jsonl",
        "--held-out",
        f"more={more}",
        "--out",
        place / "other",
        *FAST,
        *LORA,
    ]
    code, said = selgen("train", "--model", place / "model", "--task", place / "task.jsonl", "--method", "kl", *wanted)
    assert (
        code == 2
        and "the model's chat template refuses the conversation (no system role). If it is the system turn" in said
    )
    assert untouched(place / "other")


# -- what cannot be opened ---------------------------------------------------------------------------------------------


def test_what_is_no_finished_run_is_told_apart(place):
    run_dir = train(place, *LORA)
    assert "is a model and no run" in selgen("chat", run_dir / "adapter")[1]
    assert "is a model and no run" in selgen("eval", place / "model")[1]
    assert f"{place / 'none'} is no directory. Name the directory of a run" in selgen("chat", place / "none")[1]
    (run_dir / "record.json").unlink()
    for command in ("chat", "eval"):
        code, said = selgen(command, run_dir)
        assert code == 1 and "the run is unfinished. Resume its sweep, or name a finished run." in said


def test_all_runs_are_looked_at_before_one_is_measured(place):
    code, said = selgen("eval", train(place, *LORA), place / "none")
    assert code == 1 and "none is no directory" in said and "likelihood" not in said


def test_a_failed_run_has_no_model(place):
    files = ["--task", place / "task.jsonl", "--alignment", place / "align.jsonl", "--method", "kl"]
    wanted = [*files, "--out", place / "out", *FAST, *LORA, "training.learning_rate=1e30"]
    code, said = selgen("train", "--model", place / "model", *wanted)
    assert code == 1, said
    with pytest.raises(RecordError, match="failed .* so there is no model of it"):
        opened.open_run(the_run(place / "out"), [])


def test_a_starting_model_that_is_gone_or_another_one_is_told(place):
    run_dir = train(place, *LORA)
    model = place / "model"
    shutil.rmtree(model)
    with pytest.raises(ConfigError, match="there is no such directory. Correct the name, or download the model first"):
        opened.open_run(run_dir, [])
    save_model(model, seed=1)
    with pytest.raises(ConfigError, match="was trained on another base than the weights at"):
        opened.open_run(run_dir, [])


def test_an_adapter_that_is_gone_is_told(place):
    run_dir = train(place, *LORA)
    shutil.rmtree(run_dir / "adapter")
    code, said = selgen("eval", run_dir)
    assert code == 2 and str(run_dir / "adapter") in said and "Run it again" in said


def test_samples_say_which_side_said_what(place):
    run_dir = train(place, *LORA)
    code, said = selgen("eval", run_dir, "--samples", place / "s.jsonl", "--split", "test")
    assert code == 0, said
    sides = {"base": [], "tuned": []}
    for line in (place / "s.jsonl").read_text().splitlines():
        row = json.loads(line)
        sides[row["side"]].append(row["response"])
    assert sides["base"] != sides["tuned"] and len(sides["base"]) == len(sides["tuned"])
    code, said = selgen("eval", run_dir, "--samples", place / "s.jsonl")
    assert code == 2 and "--samples should name a new file" in said
    code, said = selgen("eval", run_dir, "--samples", place / "no" / "s.jsonl")
    assert code == 2 and "--samples should lie in a directory that exists" in said
