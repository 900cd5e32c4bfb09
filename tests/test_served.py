"""Answers of a server are those of this process, for the model and for adapters; and what it refuses is told."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model

import fakes
from command import selgen
from selgen import asking, models, record, run, served, tiny
from selgen.asking import Fault
from selgen.blocks import EndpointSpec
from selgen.config import ConfigError
from selgen.core import Example, ask
from selgen.generate import Generation, generate
from selgen.plan import parse_run
from selgen.spec import RunSpec
from selgen.vllm import EndpointError, parse
from serving import serve_model

SHORT = Generation(max_new_tokens=8)
DRAW = random.Random(0)
EXAMPLES = [ask(" ".join(DRAW.choices(tiny.WORDS[2:], k=DRAW.randint(3, 15))), "it is 6 .") for _ in range(20)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.005)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    """A tiny model that ends some of its answers itself."""
    path = tmp_path_factory.mktemp("model")
    tiny.model(seed=1).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def adapter_dir(model_dir, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    path = tmp_path_factory.mktemp("adapter")
    get_peft_model(models.load(str(model_dir))[0], config).save_pretrained(path)
    return path


def answers(endpoint: EndpointSpec | None, path: Path, examples: list[Example] = EXAMPLES) -> list[str]:
    model, tokenizer = models.load(str(path))
    with served.answering(endpoint, str(path), "test") as source:
        return source.answers(model, tokenizer, examples, SHORT)


def endpoint(server: Any, **options: Any) -> EndpointSpec:
    return EndpointSpec(url=server.url, **{"timeout": 5.0, "concurrency": 4, **options})


# -- equal answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_ids", [True, False])
def test_greedy_answers_of_the_server_are_those_of_this_process(model_dir, adapter_dir, tells_ids):
    with serve_model(model_dir, tells_ids=tells_ids) as server:
        examples = [*EXAMPLES, *EXAMPLES[:5]]
        local = [answers(None, path, examples) for path in (model_dir, adapter_dir)]
        assert [answers(endpoint(server), path, examples) for path in (model_dir, adapter_dir)] == local
        assert len(set(local[0])) > 5 and local[0] != local[1]
        assert set(server.ended) == {"stop", "length"}
        [name] = server.names
        assert server.asked == {"served": 20, name: 20}, "equal prompts are asked once"
        assert name.startswith("test-") and not server.loaded


def test_faults_that_pass_change_no_answer(model_dir, adapter_dir):
    faults = {"timeout": 0.02, "429": 0.1, "500": 0.1, "garbage": 0.1, "truncated": 0.1, "dropped": 0.1}
    with serve_model(model_dir, faults=faults, seed=1) as server:
        assert answers(endpoint(server, timeout=0.5), adapter_dir) == answers(None, adapter_dir)
        assert sum(server.failed.values()) > 3


def test_sampled_answers_repeat_with_their_seed_and_equal_prompts_are_each_drawn(model_dir):
    model, tokenizer = models.load(str(model_dir))
    warm = [Generation(max_new_tokens=8, temperature=1.0, seed=seed) for seed in (0, 0, 1)]
    with serve_model(model_dir) as server, served.answering(endpoint(server), str(model_dir), "test") as source:
        first, again, other = (source.answers(model, tokenizer, [EXAMPLES[0]] * 10, g) for g in warm)
    assert first == again != other
    assert len(set(first)) > 3


def test_an_adapter_is_unloaded_even_where_asking_fails(model_dir, adapter_dir):
    with serve_model(model_dir, faults={"400": 1.0}, in_a_row=None) as server:
        with pytest.raises(EndpointError, match="on purpose"):
            answers(endpoint(server, concurrency=1), adapter_dir)
        assert server.names and not server.loaded
        assert server.requests == 1, "what one prompt cannot get fails the evaluation, so the others need not be asked"


# -- whole runs --------------------------------------------------------------------------------------------------------


def config(model_dir: Path, url: str | None, **changes: Any) -> dict[str, Any]:
    evaluation = {"max_new_tokens": 4}
    if url is not None:
        evaluation["endpoint"] = {"url": url, "timeout": 5.0, "tries": 3}
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.1}
    lora = {"r": 2, "lora_alpha": 4}
    blocks = {"setting": "fake", "model": str(model_dir), "training": training, "lora": lora, "evaluation": evaluation}
    return blocks | {"method": "task_only"} | changes


def measured(result: record.RunRecord, out: Path) -> list[Any]:
    assert result.error is None, result.error
    said = [list(record.read_samples(out / result.run_id, split)) for split in ("val", "test")]
    return [result.run_id, said, [p.model_dump(exclude={"eval_seconds"}) for p in result.points]]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "base"},
        {"epochs": [1, 2]},
        pytest.param({"method": {"name": "rescale", "alpha": 0.5}}, marks=pytest.mark.slow),
        pytest.param({"first": {"training": {"num_train_epochs": 1}}}, marks=pytest.mark.slow),
    ],
    ids=["base", "trained", "post-hoc", "on top of a run"],
)
def test_a_run_has_the_same_name_answers_and_points_wherever_it_is_answered(model_dir, tmp_path, changes):
    here, there = tmp_path / "here", tmp_path / "there"
    with serve_model(model_dir) as server:
        local = run.run(parse_run(config(model_dir, None, **changes)), here)
        found = run.run(parse_run(config(model_dir, server.url, **changes)), there)
    assert measured(found, there) == measured(local, here)
    assert local.provenance["answers"] == {"from": "transformers"}
    about = found.provenance["answers"]
    assert about["from"] == "endpoint" and about["url"] == server.url and about["vllm"] == "0.0.double"
    assert about["model"] == "served" and about["root"] == str(model_dir)
    if found.method == "base":
        assert list(server.asked) == ["served"] and "adapter" not in about
    else:
        assert about["adapter"].startswith(f"selgen-{found.run_id}-") and server.asked[about["adapter"]]
        assert not server.asked["served"], "the answers should be the adapter's"
    assert not server.loaded


def test_answers_on_a_server_count_in_a_runs_name_only_where_they_are_sampled(model_dir):
    from selgen.identity import run_id
    from selgen.spec import make_setting

    def name(url: str | None, temperature: float) -> str:
        data = config(model_dir, url)
        data["evaluation"]["temperature"] = temperature
        spec = RunSpec.parse(data)
        return run_id(spec, setting=make_setting(spec.setting), data="d", weights="w", miniature=None)

    assert name(None, 0) == name("http://a/v1", 0) == name("http://b/v1", 0)
    assert name(None, 1) != name("http://a/v1", 1) == name("http://b/v1", 1)


# -- through the command line ------------------------------------------------------------------------------------------


def train(model_dir: Path, tmp_path: Path, url: str, *overrides: str) -> tuple[int, str]:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config(model_dir, url)))
    return selgen("train", "-c", path, "--out", tmp_path / "out", *overrides)


BEFORE, AT_ONCE = 2, 1
"""Exit codes: found before anything is written, found when the run begins."""


@pytest.mark.parametrize(
    ("fault", "overrides", "code", "words"),
    [
        ({}, ["evaluation.endpoint.model=other"], BEFORE, ["found 'other'; it serves 'served'", "Correct it"]),
        (
            {"directory_said": "/elsewhere"},
            [],
            BEFORE,
            ["should serve the starting model", "'served' (read from /else"],
        ),
        ({"loads": False}, [], BEFORE, ["VLLM_ALLOW_RUNTIME_LORA_UPDATING=True", "--enable-lora"]),
        ({"key": "secret"}, [], BEFORE, ["Unauthorized", "evaluation.endpoint.key_env"]),
        ({}, ["evaluation.endpoint.key_env=NOT_SET"], BEFORE, ["NOT_SET, which is not set"]),
        ({"max_model_len": 12}, [], BEFORE, ["found a limit of 12", "--max-model-len"]),
        (
            {"max_lora_rank": 1},
            [],
            AT_ONCE,
            ["LoRA rank 2 is greater than max_lora_rank 1", "--max-lora-rank", "lora.r"],
        ),
        ({"sees": False}, [], AT_ONCE, ["No adapter found for", "share or mount the directory of --out"]),
        ({"cut": 2}, ["method=base"], AT_ONCE, ["cut an answer short after 2 of 4 tokens", "--max-model-len"]),
        ({"faults": {"500": 1.0}, "in_a_row": None}, ["method=base"], AT_ONCE, ["on purpose", "concurrency"]),
        ({"faults": {"garbage": 1.0}, "in_a_row": None}, ["method=base"], AT_ONCE, ["is no completion", "try again"]),
    ],
    ids=[
        *("unknown name", "another model", "no loading", "wrong key", "no key", "too short"),
        *("rank", "unreadable", "cut", "broken", "garbage"),
    ],
)
def test_what_a_server_refuses_is_told_with_the_remedy_and_is_no_failed_run(
    model_dir, tmp_path, fault, overrides, code, words
):
    said_root = fault.pop("directory_said", None)
    with serve_model(model_dir, **fault) as server:
        if said_root is not None:
            server.directory = Path(said_root)
        found, said = train(model_dir, tmp_path, server.url, *overrides)
        assert found == code, said
        assert all(word in said for word in words), said
        assert "Traceback" not in said and not server.loaded
        assert not list((tmp_path / "out").rglob(record.RECORD))
        assert not list((tmp_path / "out").rglob(record.METRICS)), "it should be told before anything is trained"


def test_a_server_that_is_not_there_is_told_before_anything_is_trained(model_dir, tmp_path):
    with serve_model(model_dir) as server:
        gone = server.url
    code, said = train(model_dir, tmp_path, gone)
    assert code == BEFORE
    assert f"evaluation.endpoint {gone}: no connection" in said and "Start the server" in said
    assert not (tmp_path / "out").exists()


def test_eval_asks_the_server_of_the_run_or_another_or_none(model_dir, tmp_path):
    with serve_model(model_dir) as server:
        assert train(model_dir, tmp_path, server.url)[0] == 0
        [found] = record.read_all(tmp_path / "out")
        before = server.asked.total()
        code, said = selgen("eval", tmp_path / "out" / found.run_id)
        assert code == 0, said
        assert server.asked.total() > before and server.asked["served"], "both sides are asked"
        assert not server.loaded
    code, there = selgen("eval", tmp_path / "out" / found.run_id)
    assert code == BEFORE and "no connection" in there
    code, here = selgen("eval", tmp_path / "out" / found.run_id, "evaluation.endpoint=null")
    assert code == 0
    assert here == said


@pytest.mark.slow
def test_a_sweep_whose_server_dies_stops_and_goes_on_when_it_is_back(model_dir, tmp_path):
    path = tmp_path / "sweep.yaml"
    curves = [{"method": "kl", "vary": {"beta": [0.1, 1]}}]
    with serve_model(model_dir) as server:
        data = config(model_dir, server.url, curves=curves, seeds=[1])
        del data["method"]
        path.write_text(yaml.safe_dump(data))
        server.max_lora_rank = 1
        arguments = ["sweep", "-c", path, "--out", tmp_path / "out", "--workers", 1, "--retry", 2]
        code, said = selgen(*arguments)
        assert code == 1 and "--max-lora-rank" in said
        assert {r.method for r in record.read_all(tmp_path / "out")} <= {"base"}
        server.max_lora_rank = 16
        code, said = selgen(*arguments)
        assert code == 0, said
        assert [r.status for r in record.read_all(tmp_path / "out")] == ["success"] * 3


# -- configs and bodies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": None}, "lora should not be null with evaluation.endpoint"),
        ({"lora": {"r": 2, "use_dora": True}}, "lora.use_dora should be false with evaluation.endpoint"),
        ({"evaluation": {"endpoint": {"url": "localhost:8000"}}}, "evaluation.endpoint.url should begin with http"),
        ({"evaluation": {"endpoint": {}}}, "evaluation.endpoint.url is missing"),
        ({"evaluation": {"endpoint": {"url": "http://a", "modl": "b"}}}, "Did you mean"),
    ],
)
def test_configs_that_no_server_can_carry_out_are_refused(model_dir, changes, words):
    with pytest.raises(ConfigError, match=words):
        RunSpec.parse(config(model_dir, "http://localhost:8000/v1", **changes))


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "{}",
        '{"choices": []}',
        '{"choices": [{"text": null, "finish_reason": "stop"}]}',
        '{"choices": [{"text": "x", "finish_reason": "abort"}]}',
        '{"choices": [{"text": "x", "finish_reason": "stop", "token_ids": ["x"]}]}',
    ],
)
def test_bodies_that_are_no_completion_are_asked_again(body):
    with pytest.raises(Fault) as found:
        parse(body, 8)
    assert found.value.retry


def test_an_answer_that_the_limit_of_the_config_ends_is_none_that_the_server_cut():
    body = '{"choices": [{"text": " x ", "finish_reason": "length"}], "usage": {"completion_tokens": %d}}'
    assert parse(body % 8, 8).text == "x"
    with pytest.raises(Fault, match="after 7 of 8 tokens") as found:
        parse(body % 7, 8)
    assert found.value.stop and not found.value.retry


def test_this_process_answers_where_no_server_is_named(model_dir):
    with served.answering(None, str(model_dir), "test") as source:
        assert source.answers is generate
