"""What the tests of the endpoint share."""

from judges.server import Server
from selgen.core import Judgement
from selgen.judges.endpoint import Endpoint


def score(prompt: str) -> float:
    """71.5 for `... 715`: a score that is a function of the prompt."""
    return int(prompt.split()[-1]) % 1001 / 10


def judge(server: Server, **options) -> Endpoint:
    return Endpoint("judge", **{"base_url": server.url, "key_env": None, "timeout": 5.0, **options})


def scores(judgements: list[Judgement]) -> list[float | None]:
    return [j.score for j in judgements]


PROMPTS = [f"answer {i}" for i in range(0, 1001, 77)]
