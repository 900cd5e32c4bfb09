"""Whatever the server does, no verdict is lost and none is wrong; the rest is unscored, and asked again."""

import json
import random
import signal
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from judges.server import FAULTS, serve
from judges.shared import PROMPTS, judge, score, scores
from selgen import asking
from selgen.asking import Fault, retry_after
from selgen.judges import _asking
from selgen.judges._cache import Verdicts
from selgen.judges._chat import parse
from selgen.judges.endpoint import Endpoint

MANY = [f"answer {i}" for i in range(0, 1000, 4)]
FEW = MANY[:100]
LIKELIEST = (
    '{"choices": [{"message": {"content": "85"}, "logprobs": {"content": [{"token": "85", "top_logprobs": [%s]}]}}]}'
)
JUDGE = """
import json, sys
from selgen import asking
from selgen.judges.endpoint import Endpoint
asking.FIRST_PAUSE = 0.005
url, prompts = json.loads(sys.argv[1])
print(json.dumps([j.score for j in Endpoint("judge", base_url=url, key_env=None, timeout=5.0).judge_many(prompts)]))
"""


def process(url: str, prompts: list[str]) -> subprocess.Popen:
    """A judge in a process of its own; prints its scores."""
    return subprocess.Popen([sys.executable, "-c", JUDGE, json.dumps([url, prompts])], stdout=subprocess.PIPE)


@pytest.mark.parametrize("logprobs", [True, False])
def test_judgements_under_faults_equal_those_of_a_healthy_server(logprobs):
    with serve(score, logprobs=logprobs) as healthy:
        expected = judge(healthy, concurrency=16).judge_many(MANY)
    with serve(score, logprobs=logprobs, faults=dict.fromkeys(FAULTS, 0.06), seed=1, delay=0.5) as faulty:
        asking = judge(faulty, concurrency=16, timeout=0.4)
        assert asking.judge_many(MANY) == expected
        assert set(faulty.failed) == set(FAULTS)
        assert asking.usage["calls"] == faulty.requests
        asked = faulty.requests
        assert judge(faulty).judge_many(MANY) == expected
        assert faulty.requests == asked
    assert None not in scores(expected)


def test_what_stays_unanswered_is_unscored_counted_and_all_that_a_second_run_asks():
    with serve(score, faults={"500": 0.5}, in_a_row=None) as server:
        asking = judge(server, tries=2)
        first = asking.judge_many(FEW)
        lost = {p for p in FEW if server.fault(p, 0) and server.fault(p, 1)}
        assert 10 < len(lost) < 50  # a quarter
        assert {p for p, j in zip(FEW, first, strict=True) if j.score is None} == lost
        assert all("on purpose" in str(j.reason) for j in first if j.score is None)
        server.faults = {}
        server.prompts.clear()
        again = judge(server, tries=2)
        assert scores(again.judge_many(FEW)) == pytest.approx([score(p) for p in FEW])
        assert sorted(server.prompts) == sorted(lost)
        assert again.usage["cached"] == len(FEW) - len(lost)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_uses_up_the_tries_and_is_not_kept(fault):
    with serve(score, faults={fault: 1.0}, in_a_row=None, delay=0.5) as server:
        (verdict,) = judge(server, tries=3, timeout=0.25).judge_many(["a 1"])
        assert verdict.score is None
        assert verdict.reason
        assert verdict.reply == ("Well, hard to say." if fault == "no_number" else None)
        assert server.requests == 3
        server.faults = {}
        assert scores(judge(server).judge_many(["a 500"])) == [50]


def test_retry_after_is_obeyed():
    with serve(score, faults={"429": 1.0}, in_a_row=1, retry_after="1") as server:
        start = time.monotonic()
        assert scores(judge(server).judge_many(["a 500"])) == [50]
        assert 1 <= time.monotonic() - start < 4


def test_a_server_that_asks_for_an_hour_is_left():
    with serve(score, faults={"429": 1.0}, in_a_row=None, retry_after="3600") as server:
        start = time.monotonic()
        verdicts = judge(server, concurrency=4).judge_many(FEW)
        assert time.monotonic() - start < 5
        assert scores(verdicts) == [None] * len(FEW)
        assert server.requests <= 4


def test_pauses_double_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.5)
    tries = asking.Tries(6)
    for number, longest in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30]):
        pauses = [tries._pause(number) for _ in range(20)]
        assert all(longest / 2 <= p <= longest for p in pauses)
        assert len(set(pauses)) == 20


@pytest.mark.parametrize(
    ("status", "most"), [("401", 4), ("402", 4), ("404", 4), ("400", 40), ("403", 40), ("422", 40)]
)
def test_what_cannot_pass_is_not_tried_again_and_what_all_would_meet_ends_the_asking(status, most):
    prompts = FEW[:40]
    with serve(score, faults={status: 1.0}, in_a_row=None) as server:
        verdicts = judge(server, concurrency=4).judge_many(prompts)
        assert scores(verdicts) == [None] * 40
        assert all("on purpose" in str(v.reason) for v in verdicts)
        assert server.requests <= most
        assert server.requests == 40 or most == 4


def test_a_server_that_is_gone_is_not_asked_for_hours(nobody):
    unheard = Endpoint("judge", base_url=nobody, key_env=None, tries=2, concurrency=4)
    verdicts = unheard.judge_many([f"p {i}" for i in range(2000)])
    assert {v.score for v in verdicts} == {None}
    assert unheard.usage["calls"] <= 2 * asking.ABSENT + 4
    assert verdicts[-1].reason and verdicts[-1].reason.startswith("not asked: no connection")


def test_a_verdict_that_cannot_be_kept_is_returned_and_ends_the_asking(monkeypatch):
    def refuse(*_):
        raise _asking.CacheError("disk full")

    with serve(score) as server:
        monkeypatch.setattr(Verdicts, "put", refuse)
        verdicts = judge(server, concurrency=1).judge_many(PROMPTS)
        assert server.requests == 1
    assert scores(verdicts) == [pytest.approx(score(PROMPTS[0])), *[None] * (len(PROMPTS) - 1)]
    assert verdicts[-1].reason == "not asked: disk full"


def test_ctrl_c_ends_the_asking_and_keeps_what_was_said(monkeypatch):
    ask = _asking.Asking.ask

    def interrupted(self, prompt):
        if prompt == FEW[40]:
            raise KeyboardInterrupt
        return ask(self, prompt)

    with serve(score) as server:
        monkeypatch.setattr(_asking.Asking, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            judge(server, concurrency=2).judge_many(FEW)
        monkeypatch.setattr(_asking.Asking, "ask", ask)
        asked = server.requests
        assert asked < len(FEW)
        assert scores(judge(server).judge_many(FEW)) == pytest.approx([score(p) for p in FEW])
        assert server.requests == len(FEW)


def test_asking_again_leaves_the_random_numbers_of_training_alone():
    state = random.getstate()
    with serve(score, faults={"500": 0.5}) as server:
        judge(server).judge_many(PROMPTS)
    assert random.getstate() == state


def test_a_kill_loses_no_verdict_that_was_given():
    def slow(prompt: str) -> float:
        time.sleep(0.01)
        return score(prompt)

    with serve(slow) as server:
        killed = process(server.url, FEW)
        assert killed.stdout
        while server.requests < 40:
            assert killed.poll() is None
            time.sleep(0.005)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stdout.close()
        time.sleep(0.2)  # what the server has in its buffers is counted too
        answered = server.requests
        assert answered < len(FEW)
        server.prompts.clear()
        again = judge(server)
        assert scores(again.judge_many(FEW)) == pytest.approx([score(p) for p in FEW])
        # All but those that were under way, one in each of its 8 threads.
        assert again.usage["cached"] >= answered - 8
        assert server.requests == len(FEW) - again.usage["cached"]


def test_two_processes_share_what_they_learn():
    expected = pytest.approx([score(p) for p in FEW])
    with serve(score, faults={"500": 0.1, "dropped": 0.1}) as server:
        both = [process(server.url, FEW) for _ in range(2)]
        assert [json.loads(p.communicate(timeout=60)[0]) for p in both] == [expected, expected]
        server.prompts.clear()
        assert scores(judge(server).judge_many(FEW)) == expected
        assert server.requests == 0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"error": {"message": "overloaded"}}',
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": 85}}]}',
        LIKELIEST % "{}",
        LIKELIEST % '{"token": "85", "logprob": NaN}',
        LIKELIEST % '{"token": "85", "logprob": 1.0}',
        LIKELIEST % '{"token": "85", "logprob": null}',
        LIKELIEST % '{"token": 85, "logprob": 0.0}',
    ],
)
def test_bodies_that_are_no_chat_completion_are_faults(body):
    with pytest.raises(Fault, match="no chat completion") as caught:
        parse(body)
    assert caught.value.retry


def test_a_body_without_counts_or_log_probabilities_is_a_chat_completion():
    answer = parse('{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}')
    assert (answer.reply, answer.first, answer.cut, answer.prompt_tokens) == ("", [], True, 0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("2", 2), ("0.5", 0.5), ("-3", 0), ("soon", None), ("nan", None), ("inf", None)],
)
def test_the_seconds_of_retry_after(header, seconds):
    assert retry_after(header) == seconds


def test_the_date_of_retry_after():
    wait = retry_after(formatdate(time.time() + 60, usegmt=True))
    assert wait is not None
    assert 55 < wait <= 60
