"""Verdicts on disk by content: a prompt is put to the same judge once. Never imports torch."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Lock
from typing import Any

from selgen import caches
from selgen.core import Judge, Judgement
from selgen.judges._reading import VERSION, declined

WAIT = 30.0
"""Longest wait, in seconds, for another process that writes."""
_AT_ONCE = 500
"""Keys per query; SQLite allows 999 in old versions."""
_TABLE = "CREATE TABLE IF NOT EXISTS judgements (key TEXT PRIMARY KEY, judgement TEXT NOT NULL) WITHOUT ROWID"


class CacheError(ValueError):
    """The file of verdicts cannot be used; the message says why and what to do."""


def default_path() -> Path:
    """`selgen/judgements.sqlite` in the user's cache directory (XDG_CACHE_HOME, else ~/.cache).

    It has to be on a local disk where processes of several machines use it: SQLite's shared memory spans one machine.
    """
    return caches.home() / "judgements.sqlite"


def identity(judge: Judge, **more: Any) -> dict[str, Any]:
    """What decides a judge's verdicts: its name and the fields that it does not declare `unhashed`, as JSON values.

    Args:
        judge: A dataclass instance.
        more: Replaces or adds values, e.g. a fingerprint for a path.
    """
    own = {f.name: getattr(judge, f.name) for f in fields(judge) if f.name not in judge.unhashed}  # type: ignore[arg-type]
    return {"judge": type(judge).__name__, **own, **more}


def worth_keeping(judgement: Judgement) -> bool:
    """Whether it is a verdict: a score, or the judge's word that there is nothing to score. All else is asked again."""
    return judgement.score is not None or declined(judgement.reply)


class Verdicts:
    """The verdicts of one judge, in a file that all judges, threads and processes share.

    Args:
        identity: What decides the judge's verdicts, as JSON values.
        path: Default: `default_path()`.

    Raises:
        CacheError: the file is damaged, or cannot be opened or written.
    """

    def __init__(self, identity: Mapping[str, Any], path: Path | None = None) -> None:
        self._identity, self.path = dict(identity), path or default_path()
        # One connection for all threads, one statement at a time.
        self._lock = Lock()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=WAIT, check_same_thread=False, isolation_level=None)
            try:
                self._write_ahead()
                self._file.execute(_TABLE)
            except BaseException:
                self._file.close()
                raise

    def __enter__(self) -> Verdicts:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def get(self, prompts: Sequence[str]) -> dict[str, Judgement]:
        """The verdicts that are there, by prompt.

        Raises:
            CacheError: the file is damaged.
        """
        keys = {self._key(prompt): prompt for prompt in prompts}
        wanted, found = list(keys), {}
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            query = f"SELECT key, judgement FROM judgements WHERE key IN ({','.join('?' * len(part))})"
            with self._lock, self._explained():
                for key, text in self._file.execute(query, part):
                    found[keys[key]] = Judgement(*json.loads(text))
        return found

    def put(self, prompt: str, judgement: Judgement) -> None:
        """Keep a verdict; it is on disk when this returns, so that a kill cannot lose it.

        Raises:
            CacheError: it cannot be written.
        """
        row = self._key(prompt), json.dumps([judgement.score, judgement.reply, judgement.reason])
        with self._lock, self._explained():
            self._file.execute("INSERT OR REPLACE INTO judgements VALUES (?, ?)", row)

    def _key(self, prompt: str) -> str:
        content = json.dumps([VERSION, self._identity, prompt], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _write_ahead(self) -> None:
        """Let others read while one writes. SQLite does not always wait for its turn to change the mode, so we do."""
        end = time.monotonic() + WAIT
        while True:
            try:
                self._file.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.05)
        # Safe against a killed process; a power cut may cost the last verdicts.
        self._file.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise CacheError(
                f"the judge's cache {self.path} cannot be used ({error}). Make its directory writable, or set "
                "XDG_CACHE_HOME to another one."
            ) from error
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise CacheError(
                f"the judge's cache {self.path} is damaged ({error}). Delete it and the files beside it whose names "
                "begin alike: what it held will be asked again."
            ) from error
