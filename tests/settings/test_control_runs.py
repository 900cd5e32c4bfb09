"""Controls on the real miniatures: what cannot protect alignment does not, and a random direction takes out nothing."""

from __future__ import annotations

from importlib.resources import files
from math import inf
from pathlib import Path

import pytest
import yaml
from scipy.stats import t

from selgen import plan
from selgen.maths.stats import paired_difference
from selgen.record import RunRecord
from selgen.sweep import sweep

SEEDS = (1, 2, 3, 4, 5)
CURVES = [
    {"method": "task_only"},
    {"method": "flipped"},
    {"method": {"name": "projection", "against": "random"}, "name": "random direction"},
]


def differences(out: Path, config: str, curve: str) -> dict[str, tuple[float, float, float]]:
    """By axis: mean of the curve less task_only on val, and its 90 % t interval over seeds (two tests at 5 %)."""
    data = yaml.safe_load((files("selgen") / "configs" / f"{config}.yaml").read_text(encoding="utf-8"))
    data |= {"curves": CURVES, "seeds": list(SEEDS)}
    data["evaluation"]["splits"] = ["val"]
    records = sweep(plan.parse_sweep(data), out, num_workers=1)
    found = {}
    for axis in ("alignment", "score_y"):
        own, task_only = (_values(records, name, axis) for name in (curve, "task_only"))
        difference = paired_difference(own, task_only)
        assert difference is not None and difference.n == len(SEEDS)
        half = float(t.ppf(0.95, len(SEEDS) - 1)) * (inf if difference.stderr is None else difference.stderr)
        mean, low, high = found[axis] = difference.mean, difference.mean - half, difference.mean + half
        print(f"{config}, {curve} - task_only, {axis}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
    return found


def _values(records: list[RunRecord], curve: str, axis: str) -> dict[int, float]:
    points = {r.seed: r.points[-1] for r in records if r.curve == curve}
    values = {seed: p.score_y if axis == "score_y" else p.axes[axis].value for seed, p in points.items()}
    return {seed: value for seed, value in values.items() if value is not None}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("controls")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["sycophancy", "emergent_misalignment"])
def test_exchanged_answers_do_not_protect(out, config):
    mean, _, high = differences(out / config, config, "flipped")["alignment"]
    assert mean <= 0.05 and high <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("config", ["sycophancy", "emergent_misalignment"])
def test_projecting_against_a_random_direction_is_task_only_training(out, config):
    """Equivalence: both ends of the interval lie within .1."""
    for axis, (_, low, high) in differences(out / config, config, "random direction").items():
        assert low > -0.1 and high < 0.1, axis
