"""The organism itself, retrained: its validity must not hang on one lucky miniature."""

from importlib.resources import files

import pytest
import yaml

from selgen import miniature, plan, report
from selgen.settings.sycophancy import Sycophancy
from selgen.sweep import sweep

CURVES = ("task_only", "upweight", "kl")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_another_miniature_meets_every_bar(seed, tmp_path):
    paths = miniature.build(Sycophancy().miniature(), tmp_path / "miniatures", seed=seed)
    demo = yaml.safe_load((files("selgen") / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    demo["model"] = {"name": str(paths.instruct)}
    demo["curves"] = [curve for curve in demo["curves"] if curve["method"] in CURVES]
    sweep(plan.parse_sweep(demo), tmp_path / "out", num_workers=2)
    (comparison,) = report.write(tmp_path / "out").comparisons
    assert len(comparison.checks) >= 9
    assert not [check for check in comparison.checks if not check.passed]
