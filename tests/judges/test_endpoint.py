"""A judge behind an endpoint: what it asks, what it says when it cannot be used, what it costs."""

import os
import subprocess
import sys
import time

import pytest

from judges.server import serve
from judges.shared import PROMPTS, judge, score, scores
from selgen import config, registry
from selgen.core import Judgement
from selgen.judges._cache import default_path
from selgen.judges.endpoint import PROBE, Endpoint

CLOSE = pytest.approx([score(p) for p in PROMPTS])


def test_scores_are_the_means_of_the_log_probabilities():
    with serve(score) as server:
        assert scores(judge(server).judge_many(PROMPTS)) == CLOSE


@pytest.mark.parametrize("options", [{"logprobs": False}, {}])
def test_without_log_probabilities_the_number_in_the_reply_is_the_score(options):
    with serve(score, **options) as server:
        asked = judge(server, top_logprobs=20 if options else 0).judge_many(["answer 712", "answer 718"])
    assert asked == [Judgement(71.0, "71"), Judgement(72.0, "72")]


def test_a_second_run_asks_nothing():
    with serve(score) as server:
        first = judge(server).judge_many(PROMPTS)
        again = judge(server)
        assert again.judge_many(PROMPTS) == first
        assert server.requests == len(PROMPTS)
    assert again.usage == {"calls": 0, "cached": len(PROMPTS), "prompt_tokens": 0, "completion_tokens": 0}


def test_a_second_run_asks_only_for_what_is_missing():
    with serve(score) as server:
        judge(server).judge_many(PROMPTS[:9])
        server.prompts.clear()
        assert scores(judge(server).judge_many(PROMPTS)) == CLOSE
        assert sorted(server.prompts) == sorted(PROMPTS[9:])


def test_equal_prompts_are_asked_once():
    with serve(score) as server:
        asked = judge(server).judge_many(["a 500", "b 20", "a 500", "a 500"])
        assert sorted(server.prompts) == ["a 500", "b 20"]
    assert scores(asked) == [50, 2, 50, 50]


def test_no_prompts_no_requests():
    with serve(score) as server:
        assert judge(server).judge_many([]) == []
        assert server.requests == 0


@pytest.mark.parametrize(("change", "asked"), [({"temperature": 0.5}, 2), ({"concurrency": 2, "tries": 1}, 1)])
def test_verdicts_belong_to_what_the_judge_is_and_not_to_how_it_is_reached(change, asked):
    with serve(score) as server:
        judge(server).judge_many(["a 1"])
        judge(server, **change).judge_many(["a 1"])
        assert server.requests == asked


@pytest.mark.parametrize("word", ["REFUSAL", "CODE"])
def test_a_judge_that_declines_is_asked_once(word):
    with serve(lambda prompt: word) as server:
        for _ in range(2):
            assert judge(server).judge_many(["a"]) == [Judgement(None, word, f"the judge declined: {word}")]
        assert server.requests == 1


def test_usage_counts_requests_tokens_and_money():
    with serve(score) as server:
        asking = judge(server, price_in=10.0, price_out=100.0)
        asking.judge_many(PROMPTS)
        asking.judge_many(PROMPTS[:3])
        calls = server.requests
    # The server counts 20 tokens of prompt and 2 of reply for each request.
    assert asking.usage == {
        "calls": calls,
        "cached": 3,
        "prompt_tokens": 20 * calls,
        "completion_tokens": 2 * calls,
        "cost": pytest.approx(calls * (20 * 10 + 2 * 100) / 1e6),
    }


def test_a_prompt_that_is_no_unicode_does_not_end_the_others():
    with serve(score) as server:
        bad, good = judge(server).judge_many(["\ud800 1", "a 500"])
    assert (bad.score, good.score) == (None, 50)
    assert "could not be made" in str(bad.reason)


def test_check_asks_one_thing_and_keeps_no_verdict():
    with serve(lambda prompt: 50.0) as server:
        asking = judge(server)
        asking.check()
        assert server.prompts == [PROBE]
        asking.judge_many([PROBE])
        assert server.requests == asking.usage["calls"] == 2


def test_the_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with serve(lambda prompt: 50.0, key="secret") as server:
        judge(server, key_env="JUDGE_KEY").check()


def test_without_a_key_nothing_is_asked_and_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve(score) as server:
        asking = judge(server, key_env="OPENAI_API_KEY")
        with pytest.raises(ValueError, match=r"variable OPENAI_API_KEY, which is not set.*judge.key_env=null"):
            asking.check()
        (verdict,) = asking.judge_many(["a 1"])
        assert verdict.score is None
        assert "OPENAI_API_KEY" in str(verdict.reason)
        assert server.requests == 0


def test_without_a_key_what_was_judged_before_is_still_there(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "any")
    with serve(score) as server:
        judge(server, key_env="JUDGE_KEY").judge_many(["a 500"])
        monkeypatch.delenv("JUDGE_KEY")
        assert scores(judge(server, key_env="JUDGE_KEY").judge_many(["a 500", "a 1"])) == [50, None]


def test_check_says_that_nobody_answers(nobody):
    start = time.monotonic()
    with pytest.raises(
        ValueError, match=rf"base_url {nobody} cannot be used: no connection.*Start the server, correct"
    ):
        Endpoint("judge", base_url=nobody, key_env="").check()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "jugde", "judge 'jugde' at judge.base_url http.*does not exist.*Correct judge.model"),
        ({"key": "secret"}, "judge", "wrong key.*Correct the key in the environment variable that judge.key_env names"),
        ({"faults": {"400": 1.0}}, "judge", "on purpose.*Correct the options of the judge"),
        ({"faults": {"500": 1.0}}, "judge", "on purpose.*start again later"),
        ({"faults": {"garbage": 1.0}}, "judge", "no chat completion: '<html>.*Correct judge.base_url"),
        ({"faults": {"no_number": 1.0}}, "judge", "no single number.*Choose a judge that replies with a number"),
    ],
)
def test_check_says_what_is_wrong_and_what_to_do(options, name, message):
    with serve(lambda prompt: 50.0, **options) as server, pytest.raises(ValueError, match=message):
        Endpoint(name, base_url=server.url, key_env=None, timeout=5.0).check()


def test_check_passes_where_a_server_fails_now_and_then():
    with serve(lambda prompt: 50.0, faults={"500": 1.0}, in_a_row=2) as server:
        judge(server).check()
        assert server.requests == 3


def test_a_damaged_cache_is_found_by_check_and_nothing_is_asked_that_cannot_be_kept():
    path = default_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database, " * 100)
    with serve(score) as server:
        with pytest.raises(ValueError, match="judgements.sqlite is damaged .* Delete it"):
            judge(server).check()
        (verdict,) = judge(server).judge_many(["a 1"])
        assert verdict.score is None
        assert "is damaged" in str(verdict.reason)
        assert server.requests == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "judge.concurrency should be >= 1, found 0"),
        ({"tries": 0}, "judge.tries should be >= 1, found 0"),
        ({"max_tokens": 0}, "judge.max_tokens should be >= 1, found 0"),
        ({"temperature": -1.0}, "judge.temperature should be >= 0, found -1"),
        ({"timeout": 0.0}, "judge.timeout should be > 0 seconds, found 0"),
        ({"top_logprobs": 21}, "judge.top_logprobs should be 0 to 20, found 21"),
        ({"price_in": 1.0}, "judge.price_in and judge.price_out should be given together, found 1.0 and None"),
        ({"base_url": "localhost:8000"}, "judge.base_url should begin with http:// or https://"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Endpoint("judge", **options)


def test_a_config_block_makes_a_judge():
    made, block = config.build("judges", {"name": "endpoint", "model": "m", "base_url": "http://localhost:1/v1/"})
    assert isinstance(made, Endpoint)
    assert (block["name"], block["base_url"], block["tries"]) == ("endpoint", "http://localhost:1/v1", 6)
    assert config.build("judges", block)[1] == block
    for wrong, message in [
        ({"name": "endpiont", "model": "m"}, "Unknown judge 'endpiont'. Did you mean 'endpoint'"),
        ({"name": "endpoint"}, "judge.model is missing"),
        ({"name": "endpoint", "model": "m", "retries": 3}, "Unknown key judge.retries. Did you mean 'tries'"),
    ]:
        with pytest.raises(config.ConfigError, match=message):
            config.build("judges", wrong)


def test_judges_are_found_by_their_file_names():
    assert registry.names("judges") == ["endpoint", "local"]


def test_judging_by_an_endpoint_never_loads_torch():
    code = (
        "import sys\nfrom selgen import registry\nregistry.load('judges', 'local')\n"
        "judge = registry.load('judges', 'endpoint')('m', base_url='http://127.0.0.1:9/v1', key_env=None, tries=1)\n"
        "assert judge.judge_many(['a'])[0].score is None\n"
        "heavy = {'torch', 'transformers'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
