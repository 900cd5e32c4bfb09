"""Makes a test module an installed package, so that its entry points are found, by worker processes too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest


def write_metadata(directory: Path, name: str, entry_points: str) -> Path:
    """Write what an installed package of that name leaves behind; `directory` must be on the path."""
    info = directory / f"{name}-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return directory


@contextmanager
def installed(directory: Path, *modules: ModuleType) -> Iterator[None]:
    """The modules (with `install`) as packages, in folders of their own, for as long as the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.syspath_prepend(str(module.install(directory / module.__name__)))
        yield
