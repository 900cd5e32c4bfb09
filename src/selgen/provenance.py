"""What made a result: versions, code, device and time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("selgen", "torch", "transformers", "peft", "accelerate", "numpy")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def collect(started: str) -> dict[str, Any]:
    """Everything about this process that a reader of its results may need.

    Args:
        started: When the work began (`now()`).
    """
    return {
        "started": started,
        "finished": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device(),
        "versions": {name: _version(name) for name in PACKAGES},
        **_code(),
    }


@lru_cache
def _device() -> str:
    # Asked for after training, when torch is loaded anyway.
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@lru_cache
def _code() -> dict[str, Any]:
    """Commit of the working directory's checkout, and whether tracked files differ from it; None outside of one."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes) if commit else None}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
