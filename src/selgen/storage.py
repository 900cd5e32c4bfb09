"""Full disks, paths and servers that cannot be used, told apart from runs that fail."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEARLY_NOTHING = 2**20
"""Bytes: where less is free, whatever fails there is taken to fail for that."""
_FULL = {errno.ENOSPC, errno.EDQUOT}
# Not every library raises OSError: safetensors puts the system's words into its own errors.
_FULL_WORDS = ("no space left", "os error 28", "disk quota exceeded")
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ELOOP}


class Unusable(RuntimeError):
    """Something that runs need cannot be used, which says nothing about any of them; the message says what to do."""


class StorageError(Unusable):
    """A disk is full, or a directory cannot be read or written; the message names it and says what to do."""


@contextmanager
def watched(directory: Path) -> Iterator[None]:
    """Raise what goes wrong inside because of a directory's disk as a `StorageError`, and the rest as it is.

    Raises:
        StorageError: the disk is full, or a path in the directory cannot be used.
    """
    try:
        yield
    except Unusable:
        raise
    except Exception as error:
        problem = trouble(error, directory)
        if problem is None:
            raise
        raise StorageError(problem) from error


def trouble(error: BaseException, directory: Path) -> str | None:
    """What is wrong with the disk of a directory, if that is why something failed there, and what to do about it."""
    for cause in _chain(error):
        number = cause.errno if isinstance(cause, OSError) else None
        path = Path(cause.filename) if isinstance(cause, OSError) and isinstance(cause.filename, str) else None
        if number in _FULL or any(words in str(cause).lower() for words in _FULL_WORDS):
            return _is_full(path or directory)
        if number in _UNUSABLE and path is not None and path.is_relative_to(directory):
            return (
                f"{path} should be readable and writable, found: {os.strerror(number or 0)}. Mend its permissions or "
                "its mount, or choose another --out. The same command goes on from there."
            )
    return None


def full(directory: Path) -> str | None:
    """What to do about the disk of a directory if nearly nothing is free on it, whatever just failed there."""
    return _is_full(directory) if _free(directory) < NEARLY_NOTHING else None


def _is_full(path: Path) -> str:
    return (
        f"{path} cannot be written: the disk is full ({_free(path) / 1e9:.3f} GB are free). Make room, or choose an "
        "--out on a larger disk. Nothing is lost but the run that was being written: the same command carries it out "
        "again."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _free(path: Path) -> int:
    """Bytes that are free on the disk of a path; what cannot be asked counts as enough."""
    try:
        return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
    except OSError:
        return NEARLY_NOTHING
