"""The report finds what records and sweep.yaml refer to."""

from __future__ import annotations

import pytest
import yaml

import fakes
from selgen.grid import SweepSpec
from selgen.report.lookup import count_planned, declared_setting, hypervolume_reference
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


@pytest.mark.parametrize("reference", [[0.0, 0.0], [0.25, -0.5]])
def test_the_reference_is_the_sweeps(tmp_path, reference):
    curves = [{"method": "task_only", "epochs": [1, 2, 3]}]
    spec = SweepSpec.parse({"setting": "fake", "curves": curves, "reference": reference})
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(as_data(spec)))
    assert hypervolume_reference(tmp_path) == tuple(reference)


def test_without_a_sweep_areas_are_measured_from_zero(tmp_path):
    assert hypervolume_reference(tmp_path) == (0.0, 0.0)


def test_a_single_run_has_no_plan(tmp_path):
    assert count_planned(tmp_path) is None


def test_the_setting_comes_with_the_options_that_the_run_had(sweep):
    spec = RunSpec.parse({"setting": {"name": "fake", "proxy": "medical"}, "method": "task_only"})
    record = sweep.records[0].model_copy(update={"spec": spec.model_dump(mode="json")})
    assert declared_setting(record).proxy_domains == frozenset({"medical"})
