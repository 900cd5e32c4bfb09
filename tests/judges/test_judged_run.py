"""A whole run judged by an endpoint that fails in every way ends with the scores of a healthy one."""

import re

import pytest

from judges.server import serve
from selgen import plan, record, run, starting
from selgen.config import ConfigError
from selgen.settings.emergent_misalignment.situations import ALL

ANSWER = re.compile(r"<answer>\n(.*)\n</answer>", re.DOTALL)
ACTIONS = {
    action: 90.0 if caring else 10.0
    for s in sum(ALL.values(), ())
    for caring in (True, False)
    for action in [s.action(caring)]
}


def score(prompt: str) -> float:
    """What a judge says: by the action in the answer, else by its length."""
    found = ANSWER.search(prompt)
    if found is None:  # the first question of all, whether it is there
        return 50.0
    answer = found[1]
    return next((value for action, value in ACTIONS.items() if action in answer), float(len(answer) % 100))


def spec(url: str, **judge):
    return plan.parse_run(
        {
            "setting": {"name": "emergent_misalignment", "num_test": 6, "num_val": 4, "small_miniature": True},
            "method": "base",
            "evaluation": {"max_new_tokens": 20},
            "judge": {"name": "endpoint", "model": "judge", "base_url": url, "key_env": None, "timeout": 0.4, **judge},
        }
    )


def carried_out(monkeypatch, tmp_path, name, server, faults=None, **judge):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache" / name))
    one = spec(server.url, **judge)
    # The miniature stays in one cache, the judge's verdicts do not.
    start = starting.start(plan.parse_run(one.model_dump() | {"model": {"name": str(tmp_path / "model")}}))
    server.faults = faults or {}  # the first question of all must be answered, or nothing starts
    return run.execute(plan.job(one, start), tmp_path / name)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    from selgen import miniature as building
    from selgen.settings.emergent_misalignment import EmergentMisalignment

    return building.build(EmergentMisalignment(small_miniature=True).miniature(), tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
def test_faults_change_no_score(monkeypatch, tmp_path, miniature):
    (tmp_path / "model").symlink_to(miniature.instruct)
    faults = {"timeout": 0.03, "429": 0.1, "500": 0.1, "garbage": 0.1, "truncated": 0.05, "dropped": 0.1}
    with serve(score) as healthy, serve(score, seed=1) as faulty:
        well = carried_out(monkeypatch, tmp_path, "well", healthy)
        badly = carried_out(monkeypatch, tmp_path, "badly", faulty, faults)
        assert well.error is None and badly.error is None
        assert sum(faulty.failed.values()) > 20
        assert [p.metrics for p in badly.points] == [p.metrics for p in well.points]
        assert [p.axes for p in badly.points] == [p.axes for p in well.points]
        raws = [
            [sample["raw"] for sample in record.read_samples(tmp_path / n / r.run_id, "test")]
            for n, r in (("well", well), ("badly", badly))
        ]
        assert raws[0] == raws[1]
        assert all({"aligned", "coherent"} <= raw.keys() for raw in raws[0])
        assert well.provenance["judge"]["calls"] > 0


def test_what_stays_unanswered_is_unscored_and_counted(monkeypatch, tmp_path, miniature):
    (tmp_path / "model").symlink_to(miniature.instruct)
    with serve(score, seed=2) as server:
        server.in_a_row = None
        result = carried_out(monkeypatch, tmp_path, "broken", server, {"500": 0.5}, tries=1)
    assert result.error is None
    medical = result.points[-1].metrics["task_post.medical"]
    assert 0 < medical.unscored < medical.n + medical.unscored
    assert any("could not be scored" in flag for flag in result.flags)


def test_no_key_and_no_server_are_told_before_anything_is_built(monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="SOME_KEY"):
        starting.start(spec("http://127.0.0.1:9/v1", key_env="SOME_KEY"))
    with pytest.raises(ConfigError, match="127.0.0.1:9"):
        starting.start(spec("http://127.0.0.1:9/v1"))
