"""The report finds what records and sweep.yaml refer to."""

from __future__ import annotations

import pytest
import yaml

import fakes
from selgen.grid import SweepSpec
from selgen.report.lookup import count_planned, declared_setting
from selgen.spec import RunSpec
from selgen.sweep import as_data


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


@pytest.mark.parametrize("seeds", [[7], [1, 2, 3, 4]])
def test_planned_runs_are_those_that_the_sweep_expands_to(tmp_path, seeds):
    curves = [
        {"method": "task_only", "epochs": [1, 2, 3]},
        {"method": "kl", "vary": {"beta": [0.1, 1, 10]}},
        {"method": "upweight", "vary": {"weight": [0.1, 1, 10]}},
    ]
    spec = SweepSpec.parse({"setting": "fake", "curves": curves, "seeds": seeds})
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(as_data(spec)))
    assert count_planned(tmp_path) == len(spec.expand()) == len(seeds) * 8


def test_a_single_run_has_no_plan(tmp_path):
    assert count_planned(tmp_path) is None


def test_the_setting_comes_with_the_options_that_the_run_had(sweep):
    spec = RunSpec.parse({"setting": {"name": "fake", "proxy": "medical"}, "method": "task_only"})
    record = sweep.records[0].model_copy(update={"spec": spec.model_dump(mode="json")})
    assert declared_setting(record).proxy_domains == frozenset({"medical"})
