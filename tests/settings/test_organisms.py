"""The organisms themselves, retrained: their validity must not hang on one lucky miniature."""

from importlib.resources import files

import pytest
import yaml

from selgen import miniature, plan, report
from selgen.spec import make_setting
from selgen.sweep import sweep


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("config", "num_bars"), [("demo", 7), ("emergent_misalignment", 5), ("triggers", 7)])
def test_another_miniature_meets_every_bar(config, num_bars, seed, tmp_path):
    data = yaml.safe_load((files("selgen") / "configs" / f"{config}.yaml").read_text(encoding="utf-8"))
    corpus = make_setting({"name": data["setting"]["name"]}).miniature()
    paths = miniature.build(corpus, tmp_path / "miniatures", seed=seed)
    data["model"] = {"name": str(paths.instruct)}
    data["curves"] = [{"method": "task_only", "epochs": [data["training"]["num_train_epochs"]]}]
    sweep(plan.parse_sweep(data), tmp_path / "out", num_workers=1)
    (comparison,) = report.write(tmp_path / "out").comparisons
    bars = [check for check in comparison.checks if check.name.startswith(("Base", "Task-only", "The update"))]
    for check in bars:
        print(f"miniature seed {seed}: {'PASS' if check.passed else 'FAILS'} {check.name}: {check.value} {check.bar}")
    assert len(bars) == num_bars
    assert not [check for check in bars if not check.passed]
