import socket

import pytest

from selgen import asking


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    """Each test has a cache of its own, and pauses are short."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.005)
    return tmp_path / "cache"


@pytest.fixture
def nobody():
    """The URL of a port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
