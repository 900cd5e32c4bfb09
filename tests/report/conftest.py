from __future__ import annotations

from pathlib import Path

import pytest
from synthetic import Sweep, full_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return full_sweep(tmp_path / "out")
