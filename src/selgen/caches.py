"""Where selgen keeps what it would take long to make again."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`selgen` in the user's cache directory: XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selgen"
