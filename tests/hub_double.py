"""A hub with one model in two revisions, and one that may not be read: real requests, answered on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMITS = {"main": "a" * 40, "first": "b" * 40}
MODEL, GATED = "tiny/model", "tiny/gated"


@contextmanager
def serving(monkeypatch: Any, cache: Path, revisions: dict[str, Path]) -> Iterator[list[str]]:
    """Let the hub's client ask this hub, with an empty cache and without a token.

    Args:
        revisions: Branch of `MODEL` -> directory with its files.

    Yields:
        The paths that were asked for.
    """
    from huggingface_hub import constants, hf_api

    asked: list[str] = []
    by_revision = {name: directory for branch, directory in revisions.items() for name in (branch, COMMITS[branch])}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            asked.append(path)
            if GATED in path:
                return self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            if MODEL not in path:
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            parts = path.strip("/").split("/")
            named = [parts[i + 1] for i, part in enumerate(parts) if part in ("resolve", "revision", "tree")]
            revision = named[0] if named else "main"
            if revision not in by_revision:
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            commit = COMMITS.get(revision, revision)
            directory = by_revision[revision]
            if "tree" in parts:  # of folders, which it has none of
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            if parts[0] == "api":
                names = [{"rfilename": p.name} for p in sorted(directory.iterdir())]
                content = json.dumps({"id": MODEL, "sha": commit, "siblings": names}).encode()
                return self._send(200, content if body else b"", {"Content-Type": "application/json"})
            file = directory / "/".join(parts[parts.index(revision) + 1 :])
            if not file.is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            content = file.read_bytes()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            self._send(200, content, headers, body)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool = True) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
