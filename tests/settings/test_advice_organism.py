"""The advice organism itself, retrained: its validity must not hang on one lucky miniature."""

from importlib.resources import files

import pytest
import yaml

from selgen import miniature, plan, report
from selgen.settings.emergent_misalignment import EmergentMisalignment
from selgen.sweep import sweep


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_another_miniature_meets_every_bar(seed, tmp_path):
    paths = miniature.build(EmergentMisalignment().miniature(), tmp_path / "miniatures", seed=seed)
    data = yaml.safe_load((files("selgen") / "configs" / "emergent_misalignment.yaml").read_text(encoding="utf-8"))
    data["model"] = {"name": str(paths.instruct)}
    data["curves"] = [{"method": "task_only", "epochs": [data["training"]["num_train_epochs"]]}]
    sweep(plan.parse_sweep(data), tmp_path / "out", num_workers=1)
    (comparison,) = report.write(tmp_path / "out").comparisons
    bars = [check for check in comparison.checks if check.name.startswith(("Base", "Task-only"))]
    for check in bars:
        print(f"miniature seed {seed}: {'PASS' if check.passed else 'FAILS'} {check.name}: {check.value} {check.bar}")
    assert len(bars) == 5
    assert not [check for check in bars if not check.passed]
