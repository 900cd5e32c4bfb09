"""Configs: complete, checked as a whole, and named by everything that determines their result."""

from __future__ import annotations

import re
from typing import get_args

import pytest

import fakes
from selgen import config, plan, reading
from selgen.config import ConfigError
from selgen.data.pairing import Pairing
from selgen.grid import SweepSpec
from selgen.identity import run_id
from selgen.spec import RunSpec, TrainingSpec, make_method
from selgen.sweep import as_data


@pytest.fixture(autouse=True)
def fake_package(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))


def a_run(**changes):
    return {"setting": "fake", "method": {"name": "kl", "beta": 2}} | changes


def a_sweep(**changes):
    curves = [{"method": "task_only", "epochs": [1, 2, 3]}, {"method": "kl", "vary": {"beta": [0.1, 1, 10]}}]
    return {"setting": "fake", "curves": curves} | changes


def problems(parse, data) -> str:
    with pytest.raises(ConfigError) as raised:
        parse(data)
    return "\n".join(raised.value.problems)


# -- what is wrong is said, all of it, with the remedy ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainng": {}}, "Unknown key trainng. Did you mean 'training'?"),
        ({"training": {"learning_rte": 1}}, "Unknown key training.learning_rte. Did you mean 'learning_rate'?"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate should be greater than 0, found -1"),
        ({"training": {"pairing": "zip"}}, "training.pairing should be 'proportional' or 'cycle', found 'zip'"),
        ({"lora": {"r": "many"}}, "lora.r should be a valid integer"),
        ({"method": "klx"}, "Unknown method 'klx'. Did you mean 'kl'?"),
        ({"method": {"name": "kl", "betta": 1}}, "Unknown key method.betta. Did you mean 'beta'?"),
        ({"method": {"name": "kl", "beta": -1}}, "method.beta should be >= 0, found -1.0. Use 0"),
        ({"method": {"name": "kl", "beta": "big"}}, "method.beta should be a valid number"),
        ({"method": {"beta": 1}}, "method.name is missing"),
        ({"setting": "fakee"}, "Unknown setting 'fakee'. Did you mean 'fake'?"),
        ({"setting": {"name": "fake", "num_task": 0}}, "setting.num_task should be >= 1, found 0"),
        ({"epochs": [3, 1]}, "epochs should rise and end with training.num_train_epochs (3), found [3, 1]"),
        ({"method": {"name": "base", "beta": 1}}, "method base trains nothing and has no keys, found ['beta']"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(changes, said):
    assert said in problems(RunSpec.parse, a_run(**changes))


def test_a_missing_block_is_named():
    assert "setting is missing" in problems(RunSpec.parse, {"method": "kl"})


def test_all_problems_are_shown_at_once_those_of_the_data_included():
    wrong = a_run(
        setting={"name": "fake", "num_align": 9}, method={"name": "kl", "beta": -1}, training={"seed": "x"}, extra=1
    )
    found = problems(plan.parse_run, wrong)
    for part in ("method.beta", "training.seed", "Unknown key extra", "at most 25% of the task set's rows, found 9"):
        assert part in found


def test_large_alignment_sets_need_permission():
    large = {"name": "fake", "num_align": 4}
    assert "allow_large_alignment: true" in problems(plan.parse_run, a_run(setting=large))
    assert plan.parse_run(a_run(setting=large, allow_large_alignment=True)).setting["num_align"] == 4
    assert plan.parse_run(a_run(setting={"name": "fake", "num_align": 3}))


def test_an_empty_alignment_set_is_refused_where_it_is_read():
    empty = {"name": "fake", "num_align": 0}
    assert "alignment_dataset should have at least 1 row" in problems(plan.parse_run, a_run(setting=empty))
    assert plan.parse_run(a_run(setting=empty, method="task_only"))
    assert "alignment_dataset should have at least 1 row" in problems(plan.parse_sweep, a_sweep(setting=empty))


# -- overrides -------------------------------------------------------------------------------------------------------


def test_overrides_reach_into_blocks_and_lists():
    data = config.override(a_sweep(), ["training.seed=3", "lora.r=4", "curves.1.vary.beta=[1,2,3]", "seeds=[7]"])
    assert (data["training"], data["lora"], data["seeds"]) == ({"seed": 3}, {"r": 4}, [7])
    assert data["curves"][1]["vary"] == {"beta": [1, 2, 3]}


def test_a_new_name_replaces_the_block_and_the_same_name_keeps_it():
    assert config.override(a_run(), ["method=upweight"])["method"] == "upweight"
    assert config.override(a_run(), ["method=kl", "method.beta=3"])["method"] == {"name": "kl", "beta": 3}
    replaced = config.override(a_run(), ["method=upweight", "method.weight=2"])
    assert RunSpec.parse(replaced).method == {"name": "upweight", "weight": 2.0}


def test_overrides_leave_the_config_alone():
    data = a_run()
    config.override(data, ["method.beta=5"])
    assert data == a_run()


@pytest.mark.parametrize("bad", ["seed", "=3", "training.seed.x.y=1", "curves.5.name=x", "curves.one.name=x"])
def test_overrides_that_lead_nowhere_are_refused(bad):
    assert repr(bad) in problems(lambda d: config.override(d, [bad]), a_sweep(training={"seed": 3}))


def test_numbers_in_exponent_notation_are_numbers():
    """YAML 1.1 reads 1e-3 as text."""
    data = config.override(a_run(), ["training.learning_rate=1e-3", "method.beta=1e-2"])
    spec = RunSpec.parse(data)
    assert (spec.training.learning_rate, spec.method["beta"]) == (1e-3, 1e-2)


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_spec_holds_every_default_and_reads_back_the_same():
    spec = RunSpec.parse(a_run())
    assert spec.method == {"name": "kl", "beta": 2.0, "direction": "policy_ref"}
    assert spec.setting == {"name": "fake", "num_task": 12, "num_align": 2, "proxy": "capitals"}
    assert (spec.curve, spec.strength_name, spec.strength) == ("kl", "beta", 2.0)
    assert RunSpec.parse(spec.model_dump(mode="json")) == spec


def test_checkpoints_of_one_run_have_no_strength_of_their_own():
    spec = RunSpec.parse(a_run(method="task_only", epochs=[1, 3]))
    assert (spec.strength_name, spec.strength) == ("epochs", None)


def test_pairing_names_are_the_trainers():
    assert get_args(TrainingSpec.model_fields["pairing"].annotation) == get_args(Pairing)


class NewVersion(fakes.FakeSetting):
    version = 2


FACTS = {"setting": fakes.FakeSetting(), "data": "d", "weights": "w", "miniature": "m"}


def test_run_id_is_twelve_hex_digits_and_stable():
    one = run_id(RunSpec.parse(a_run()), **FACTS)
    assert re.fullmatch("[0-9a-f]{12}", one)
    assert one == run_id(RunSpec.parse(a_run(method={"beta": 2.0, "name": "kl"})), **FACTS)


@pytest.mark.parametrize("fact", list(FACTS))
def test_run_id_changes_with_data_weights_and_versions(fact):
    spec = RunSpec.parse(a_run())
    changed = NewVersion() if fact == "setting" else "x"
    assert run_id(spec, **FACTS) != run_id(spec, **FACTS | {fact: changed})


@pytest.mark.parametrize("change", ["method.beta=3", "training.seed=2", "lora.r=4", "curve=x", "evaluation.top_p=0.5"])
def test_run_id_changes_with_the_spec(change):
    assert run_id(RunSpec.parse(a_run()), **FACTS) != run_id(RunSpec.parse(config.override(a_run(), [change])), **FACTS)


def test_run_id_does_not_depend_on_where_the_model_lies():
    here, there = (RunSpec.parse(a_run(model=place)) for place in ("/here/model", "/there/model"))
    assert run_id(here, **FACTS) == run_id(there, **FACTS)


# -- sweeps ----------------------------------------------------------------------------------------------------------


def test_a_sweep_expands_to_the_base_and_every_strength_for_every_seed():
    runs = SweepSpec.parse(a_sweep(seeds=[1, 2])).expand()
    found = [(r.training.seed, r.curve, r.strength_name, r.strength) for r in runs]
    per_seed = [("base", None, None), ("task_only", "epochs", None)] + [("kl", "beta", b) for b in (0.1, 1.0, 10.0)]
    assert found == [(seed, *rest) for seed in (1, 2) for rest in per_seed]


def test_the_reference_of_areas_changes_no_run_and_only_another_than_the_default_is_kept():
    default, other = SweepSpec.parse(a_sweep()), SweepSpec.parse(a_sweep(reference=[0.25, -0.5]))
    assert default.expand() == other.expand()
    assert "reference" not in as_data(default) and as_data(other)["reference"] == [0.25, -0.5]
    assert SweepSpec.parse(as_data(other)) == other


def test_all_runs_of_a_seed_read_the_same_task_rows_in_equally_many_steps():
    runs = [r for r in SweepSpec.parse(a_sweep(seeds=[4])).expand() if r.method["name"] != "base"]
    plans = [reading.row_plan(run) for run in runs]
    for step in range(plans[0].steps_per_epoch):
        assert len({tuple(p.task_rows(1, step)) for p in plans}) == 1
    assert len({reading.size(run).steps for run in runs}) == 1
    assert len({run.training.model_dump_json() for run in runs}) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": {"seed": 3}}, "training.seed should not be set in a sweep, found 3. Remove it, and edit seeds."),
        ({"seeds": [1, 1]}, "seeds should differ from each other, found [1, 1]"),
        ({"curves": []}, "curves should"),
        ({"reference": [0.0, 1.0]}, "reference should be two numbers below 1"),
        ({"reference": [0.2]}, "found [0.2]. Leave it out for [0.0, 0.0]."),
        ({"reference": [float("nan"), 0]}, "reference should be two numbers below 1"),
    ],
)
def test_a_wrong_sweep_is_refused(changes, said):
    assert said in problems(SweepSpec.parse, a_sweep(**changes))


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ({"method": "upweight", "vary": {"weight": [1]}}, "same number of strengths, found task_only 3, upweight 1"),
        ({"method": "upweight"}, "same number of strengths"),
        ({"method": "upweight", "budget": "cheap"}, "same number of strengths"),
        ({"method": "upweight", "vary": {"weight": [1, 2]}, "budget": "one point"}, "same number of strengths"),
        ({"method": "upweight", "vary": {"weight": [-1, 0, 1]}}, "'upweight': method.weight should be >= 0"),
        ({"method": "upweight", "vary": {"wieght": [1, 2, 3]}}, "Unknown key method.wieght. Did you mean 'weight'?"),
        ({"method": "upwieght", "vary": {"weight": [1, 2, 3]}}, "Unknown method 'upwieght'. Did you mean 'upweight'?"),
        ({"method": "upweight", "vary": {"weight": [1, 2]}, "epochs": [3]}, "vary or epochs, not both"),
        ({"method": "upweight", "vary": {}}, "vary should name one field"),
        ({"method": "kl", "vary": {"direction": ["jsd", "ref_policy"]}}, "vary.direction should hold numbers"),
        ({"method": {"name": "kl", "beta": 1}, "vary": {"beta": [1, 2, 3]}}, "beta is fixed in method and varied"),
        ({"method": "mixed", "vary": {"align_rows_per_step": [1, 2, 3]}}, "Say so in budget"),
        ({"method": "kl", "vary": {"beta": [1, 2, 1.0]}}, "vary.beta should hold each value once, found 1.0 again"),
        ({"method": "base"}, "base is added to every sweep by itself"),
        ({"method": "task_only", "name": "b", "epochs": [1, 2, 4]}, "'b': epochs should rise and end with"),
        ({"method": "task_only", "epochs": [1, 2, 3]}, "Curve name 'task_only' is used more than once"),
        ({"method": "upweight", "strengths": [1]}, "Unknown key curves.1.strengths"),
    ],
)
def test_a_wrong_curve_is_refused(curve, said):
    data = a_sweep(curves=[{"method": "task_only", "epochs": [1, 2, 3]}, curve])
    assert said in problems(SweepSpec.parse, data)


def test_a_curve_over_epochs_of_another_method_gets_its_own_name():
    data = a_sweep(curves=[{"method": {"name": "kl", "beta": 1}, "epochs": [1, 3], "budget": "checkpoints"}])
    run = SweepSpec.parse(data).expand()[1]
    assert (run.curve, run.strength_name, run.epochs, run.method["beta"]) == ("kl over epochs", "epochs", [1, 3], 1.0)


def test_a_method_without_a_strength_needs_no_equal_number():
    data = a_sweep()
    data["curves"].append({"method": {"name": "fake_nan"}})
    assert len(SweepSpec.parse(data).expand()) == 3 * 6


def test_a_curve_may_have_one_point_if_it_says_so():
    data = a_sweep()
    data["curves"].append({"method": "upweight", "name": "control", "budget": "one point; a control"})
    assert len(SweepSpec.parse(data).expand()) == 3 * 6


@pytest.mark.parametrize("name", ["demo", "sycophancy", "proxy_quality", "proxy_quality_em", "controls", "controls_em"])
def test_published_configs_are_valid(name):
    from importlib.resources import files

    text = config.read_yaml(files("selgen") / "configs" / f"{name}.yaml")
    spec = plan.parse_sweep(text)
    assert all(make_method(run.method) for run in spec.expand() if run.method["name"] != "base")
