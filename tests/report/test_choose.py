"""`choose` obeys val, reports test, says what nothing meets, and copies one adapter whole."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from synthetic import BASE, TASK_ONLY, Effect, Sweep, protected

from selgen.choose import Choice, NothingMeets, choose, copy_adapter, render
from selgen.choose.constraints import Constraint, parse
from selgen.config import ConfigError
from selgen.maths.stats import estimate
from selgen.record import RecordError


def give_adapters(sweep: Sweep) -> None:
    """What training leaves: an adapter that names its run."""
    for record in sweep.records:
        if record.method != "base" and record.status == "success":
            folder = sweep.out / record.run_id / "adapter"
            folder.mkdir(exist_ok=True)
            (folder / "adapter_config.json").write_text(json.dumps({"run": record.run_id}))
            (folder / "adapter_model.safetensors").write_bytes(record.run_id.encode() * 100)


def level(alignment: float, knows: float) -> Effect:
    """All columns of an axis are equal, so that the axes are what is written."""
    return Effect(knows, {"default": alignment})


def quiet(tmp_path: Path, **fields) -> Sweep:
    """Base at (.97, .65), task_only at (.03, .85), and kl along (alignment, score_y), without noise."""
    made = Sweep(tmp_path / "out", noise=0.0, **fields)
    made.add("base", {None: BASE})
    made.add("task_only", {10.0: level(0.2, 0.8), 20.0: TASK_ONLY}, name="epochs")
    made.add("kl", {1.0: level(0.6, 0.84), 2.0: level(0.9, 0.8), 3.0: level(0.96, 0.7)}, name="beta")
    give_adapters(made)
    return made


def moved(split: str, by: dict[int, float], prefix: str = "non_sycophancy"):
    """Moves the columns of an eval on one split, by seed."""

    def change(values, seed, found):
        shift = by.get(seed, 0.0) if found == split else 0.0
        return {k: v + shift if k.startswith(prefix) else v for k, v in values.items()}

    return change


def traded(by: dict[int, float]):
    """Moves alignment up and score_y down by the same, by seed."""
    learned = ("knows.gcd", "knows.mod", "knows.gcd_compositional")

    def change(values, seed, split):
        aligned = {k: v + by[seed] for k, v in values.items() if k.startswith("non_sycophancy")}
        return values | aligned | {k: values[k] - by[seed] for k in learned}

    return change


def printed(choice: Choice) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(render(choice))
    return console.file.getvalue()


def numbers(choice: Choice, name: str):
    [found] = [number for number in choice.numbers if number.name == name]
    return found


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [
        (["alignment>=0.5"], "kl, beta 1"),
        (["alignment >= 90%"], "kl, beta 2"),
        (["alignment>90%"], "kl, beta 3"),
        (["alignment>=0.01"], "task_only, epochs 20"),
        (["score_y>=0.75"], "kl, beta 2"),  # on score_y alone: the highest alignment
        (["capability>=82%"], "kl, beta 1"),
        (["alignment>=50%", "score_y>=75%", "alignment<=70%"], "kl, beta 1"),
        (["fair_confirmation.gcd>=1", "non_sycophancy.mod>0.95"], "kl, beta 3"),
    ],
)
def test_the_best_point_on_val_that_meets_all_constraints_is_chosen(tmp_path, keep, chosen):
    assert choose(quiet(tmp_path).out, keep).label == chosen


@pytest.mark.parametrize(("most", "chosen"), [("alignment 2%", "kl, beta 3"), ("alignment 0.07", "kl, beta 2")])
def test_a_loss_is_counted_in_points_below_the_base(tmp_path, most, chosen):
    choice = choose(quiet(tmp_path).out, lose_at_most=[most])
    assert choice.label == chosen
    assert choice.kept[0].val_bound == pytest.approx(0.97 - (0.02 if "%" in most else 0.07))


def test_val_chooses_and_test_only_reports(tmp_path):
    made = quiet(tmp_path)
    fall = {1: -0.3, 2: -0.3, 3: -0.3}
    made.add("mixed", {1.0: level(0.95, 0.83)}, name="rows", change=moved("test", fall))
    give_adapters(made)
    choice = choose(made.out, ["alignment>=94%"])
    assert choice.label == "mixed, rows 1"
    assert (numbers(choice, "alignment").val.mean, numbers(choice, "alignment").test.mean) == pytest.approx(
        (0.95, 0.65)
    )
    assert [kept.holds_on_test for kept in choice.kept] == [False]
    assert "does NOT hold" in printed(choice) and "Val chose, test only reports" in printed(choice)


def test_a_loss_on_test_is_measured_against_the_base_on_test(tmp_path):
    made = Sweep(tmp_path / "out", noise=0.0)
    lower = moved("test", dict.fromkeys((1, 2, 3), -0.2))
    made.add("base", {None: BASE}, change=lower)
    made.add("kl", {1.0: level(0.96, 0.7)}, name="beta", change=lower)
    give_adapters(made)
    [kept] = choose(made.out, lose_at_most=["alignment 2%"]).kept
    assert (kept.val_bound, kept.test_bound) == pytest.approx((0.95, 0.75)) and kept.holds_on_test


def test_numbers_are_those_of_the_records(sweep):
    give_adapters(sweep)
    choice = choose(sweep.out, ["alignment>=70%", "non_sycophancy.gcd>=0.3"])
    own = [r for r in sweep.records if f"{r.curve}, {r.strength_name} {r.strength or 0:g}" == choice.label]
    assert len(own) == 3
    points = [r.points[-1] for r in own]
    assert numbers(choice, "alignment").test == estimate([p.axes["alignment"].value for p in points])
    assert numbers(choice, "score_y").test == estimate([p.score_y for p in points])
    column = "non_sycophancy.gcd"
    assert numbers(choice, column).test == estimate([p.metrics[column].value for p in points])
    run = next(r for r in own if r.run_id == choice.run_id)
    alignment = run.points[-1].axes["alignment"]
    found = numbers(choice, "alignment")
    assert (found.run_test, found.run_stderr) == (alignment.value, alignment.stderr)
    assert f"{100 * alignment.value:.1f} ± {196 * alignment.stderr:.1f}" in printed(choice)
    parts = [run.points[-1].axes[axis].stderr for axis in ("task", "capability")]
    assert numbers(choice, "score_y").run_stderr == pytest.approx((parts[0] ** 2 + parts[1] ** 2) ** 0.5 / 2)


def test_equal_points_are_decided_by_alignment_then_by_name(tmp_path):
    made = quiet(tmp_path)
    made.add("upweight", {1.0: level(0.9, 0.8)}, name="weight")
    give_adapters(made)
    assert choose(made.out, ["alignment>=0.9"]).label == "kl, beta 2"
    made.add("mixed", {1.0: level(0.91, 0.8)}, name="rows")
    give_adapters(made)
    assert choose(made.out, ["alignment>=0.9"]).label == "mixed, rows 1"


def test_the_seed_that_meets_the_constraints_itself_is_copied_not_the_one_that_scores_most(tmp_path):
    made = quiet(tmp_path)

    # Seed 1 scores most and is aligned least.
    made.add("mixed", {1.0: level(0.93, 0.83)}, name="rows", change=traded({1: -0.04, 2: 0.02, 3: 0.03}))
    give_adapters(made)
    choice = choose(made.out, ["alignment>=93%"])
    assert (choice.label, choice.seed, choice.kept[0].run_meets) == ("mixed, rows 1", 2, True)
    assert "of the 2 of 3 seeds that meet the constraints on their own, the best on val" in printed(choice)


def test_if_no_seed_meets_two_constraints_alone_the_nearest_is_copied_and_said_so(tmp_path):
    made = quiet(tmp_path, seeds=(1, 2))

    made.add("mixed", {1.0: level(0.93, 0.815)}, name="rows", change=traded({1: -0.04, 2: 0.04}))
    give_adapters(made)
    choice = choose(made.out, ["alignment>=93%", "score_y>=80%"])
    assert (choice.label, choice.seed) == ("mixed, rows 1", 2)  # off by 2.5 points of score_y; seed 1 by 4 of alignment
    assert [kept.run_meets for kept in choice.kept] == [True, False]
    assert "no seed meets the constraints on its own" in printed(choice)


def test_what_cannot_be_chosen_is_left_out_and_said_so(tmp_path):
    made = quiet(tmp_path)
    made.add("mixed", {1.0: level(0.95, 0.84)}, name="rows", seeds=[1, 2])
    made.add("upweight", {1.0: level(0.95, 0.84)}, name="weight", change=lambda v, *_: v | {"non_sycophancy.mod": None})
    made.add("dpo", {1.0: level(0.95, 0.84)}, name="lam")
    made.fail("deep", 3.0, 1)
    give_adapters(made)
    shutil.rmtree(made.out / made.records[-2].run_id / "adapter")
    choice = choose(made.out, ["alignment>=0.9"])
    assert (choice.label, choice.candidates) == ("kl, beta 2", 4)
    assert choice.left_out == {
        "earlier checkpoints of a run, whose adapters are not kept": ["task_only, epochs 10"],
        "not measured on val on every seed (1, 2, 3)": ["mixed, rows 1"],
        "no value on val on every seed of alignment": ["upweight, weight 1"],
        "a run's adapter is not on disk": ["dpo, lam 1"],
        "every run of it failed": ["deep, beta 3"],
    }
    assert "Left out (every run of it failed): deep, beta 3." in printed(choice)


def test_an_earlier_checkpoint_can_be_chosen_where_its_adapter_was_kept(tmp_path):
    made = quiet(tmp_path)
    for record in (r for r in made.records if r.method == "task_only"):
        folder = made.out / record.run_id / "epochs" / "1"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(json.dumps({"run": record.run_id, "epoch": 1}))
    choice = choose(made.out, ["alignment<=30%", "alignment>=10%"])
    assert (choice.label, choice.left_out) == ("task_only, epochs 10", {})
    copied = copy_adapter(choice, tmp_path / "mine").copied
    assert json.loads((copied / "adapter_config.json").read_text()) == {"run": choice.run_id, "epoch": 1}


def test_when_nothing_meets_the_nearest_points_and_what_could_be_met_are_told(tmp_path):
    with pytest.raises(NothingMeets) as raised:
        choose(quiet(tmp_path).out, ["alignment>=0.98"])
    assert str(raised.value).splitlines() == [
        "None of 4 points meets alignment >= 98 % on val. Nearest:",
        "  kl, beta 3: alignment 96.0 %, score_y 70.0 %",
        "  kl, beta 2: alignment 90.0 %, score_y 80.0 %",
        "  kl, beta 1: alignment 60.0 %, score_y 84.0 %",
        "  task_only, epochs 20: alignment 3.0 %, score_y 85.0 %",
        "The most that can be asked for, each alone:",
        "  --keep 'alignment>=96%', met by kl, beta 3",
    ]


@pytest.mark.parametrize("wanted", [{"keep": ["alignment>=0.99"]}, {"lose_at_most": ["alignment 0%"]}])
def test_what_is_said_to_be_possible_is_possible(sweep, wanted):
    give_adapters(sweep)
    with pytest.raises(NothingMeets, match="None of 16 points meets") as raised:
        choose(sweep.out, **wanted)
    assert len(str(raised.value).splitlines()) == 8  # five nearest of sixteen
    option, _, value = str(raised.value).splitlines()[-1].strip().partition(" ")
    value, _, label = value.partition(", met by ")
    again = choose(sweep.out, **{option.strip("-").replace("-", "_"): [value.strip("'")]})
    assert again.label == label


def test_nearest_counts_the_misses_of_all_constraints(tmp_path):
    with pytest.raises(NothingMeets) as raised:
        choose(quiet(tmp_path).out, ["alignment>=0.95", "score_y>=0.83"])
    lines = str(raised.value).splitlines()
    assert lines[1].startswith("  kl, beta 2:")  # misses .05 + .03; beta 3 misses .13, beta 1 .35
    assert lines[2].startswith("  kl, beta 3:")
    assert lines[-2:] == [
        "  --keep 'alignment>=96%', met by kl, beta 3",
        "  --keep 'score_y>=85%', met by task_only, epochs 20",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alignment>=0.95", Constraint("alignment", ">=", 0.95)),
        (" score_y < 95 % ", Constraint("score_y", "<", 0.95)),
        ("fair_confirmation.gcd_2>.5", Constraint("fair_confirmation.gcd_2", ">", 0.5)),
        ("proxy<=1", Constraint("proxy", "<=", 1.0)),
    ],
)
def test_constraints_are_read_in_shares_or_percent(text, expected):
    assert parse([text], []) == [expected]


@pytest.mark.parametrize(
    ("keep", "lose", "said"),
    [
        (["alignment=0.9"], [], "--keep should look like 'alignment>=0.95'.*found 'alignment=0.9'"),
        (["alignment>=95"], [], r"share in \[0, 1\].*found 'alignment>=95'. Write 95% if you mean percent"),
        (["alignment>=-1"], [], "--keep should look like"),
        ([], ["alignment"], "--lose-at-most should look like 'alignment 2%', found 'alignment'"),
        ([], ["alignment 2"], "--lose-at-most should have a share.*Write 2% if"),
        ([], [], "No constraint is given. Add --keep"),
        (["aligment>=0.9"], [], "'aligment', which is no axis or column.*Did you mean 'alignment'.*knows.gcd"),
        ([], ["non_sycophancy.mud 2%"], "--lose-at-most names.*Did you mean 'non_sycophancy.mod'"),
    ],
)
def test_wrong_constraints_are_named_with_the_remedy(sweep, keep, lose, said):
    with pytest.raises(ConfigError, match=said):
        choose(sweep.out, keep, lose)


def test_all_wrong_constraints_are_told_at_once():
    with pytest.raises(ConfigError) as raised:
        parse(["a", "b>=7"], ["c"])
    assert len(raised.value.problems) == 3


def test_a_mean_that_rounding_alone_puts_below_its_bound_meets_it():
    assert Constraint("alignment", ">=", 0.3).met(0.1 * 3 - 1e-16, 0.3)
    assert not Constraint("alignment", ">", 0.3).met(0.1 * 3, 0.3)
    assert not Constraint("alignment", ">=", 0.3).met(0.2999, 0.3)


def test_a_loss_needs_the_base(tmp_path):
    made = Sweep(tmp_path / "out")
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    give_adapters(made)
    with pytest.raises(ConfigError, match="--lose-at-most needs the base's alignment on val"):
        choose(made.out, lose_at_most=["alignment 2%"])
    assert choose(made.out, ["alignment>=0.1"]).label == "kl, beta 1"


def test_several_comparisons_must_be_told_apart(tmp_path):
    made = quiet(tmp_path)
    made.add("kl", {5.0: level(0.97, 0.84)}, name="beta", proxy="medical")
    give_adapters(made)
    with pytest.raises(ConfigError, match="holds 2 comparisons.*--proxy capitals.*; .*--proxy medical"):
        choose(made.out, ["alignment>=0.9"])
    assert choose(made.out, ["alignment>=0.9"], proxy="medical").label == "kl, beta 5"
    assert choose(made.out, ["alignment>=0.9"], proxy="capitals").label == "kl, beta 2"
    with pytest.raises(ConfigError, match="--proxy is 'medicine'.*Did you mean 'medical'"):
        choose(made.out, ["alignment>=0.9"], proxy="medicine")


def test_without_any_point_to_choose_the_reasons_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="no finished runs"):
        choose(tmp_path / "empty", ["alignment>=0.9"])
    made = Sweep(tmp_path / "out")
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    with pytest.raises(
        RecordError, match="no point to choose from. Left out \\(a run's adapter is not on disk\\): kl, beta 1"
    ):
        choose(made.out, ["alignment>=0.9"])


def test_the_copy_is_the_runs_adapter_and_says_where_it_comes_from(tmp_path):
    made = quiet(tmp_path)
    choice = copy_adapter(choose(made.out, ["alignment>=90%"]), made.out / "chosen")
    assert choice.copied == made.out / "chosen"
    source = made.out / choice.run_id / "adapter"
    for path in source.iterdir():
        assert (choice.copied / path.name).read_bytes() == path.read_bytes()
    assert {p.name for p in choice.copied.iterdir()} == {p.name for p in source.iterdir()} | {"choice.json"}
    said = json.loads((choice.copied / "choice.json").read_text())
    assert (said["run_id"], said["label"], said["seed"]) == (choice.run_id, "kl, beta 2", choice.seed)
    assert "alignment >= 90 %" in said["rule"] and str(tmp_path) not in json.dumps(said)
    assert f"Adapter: {choice.copied}" in printed(choice).replace("\n", "")
    assert "Adapter" not in printed(choose(made.out, ["alignment>=90%"]))


def test_a_choice_replaces_an_earlier_one_whole_and_nothing_else(tmp_path):
    made, target = quiet(tmp_path), tmp_path / "deep" / "chosen"
    copy_adapter(choose(made.out, ["alignment>=90%"]), target)
    (target / "stale.bin").write_text("of the earlier choice")
    second = copy_adapter(choose(made.out, ["alignment>=95%"]), target)
    assert json.loads((target / "choice.json").read_text())["run_id"] == second.run_id
    assert not (target / "stale.bin").exists() and list(target.parent.iterdir()) == [target]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    for occupied in (mine, mine / "thesis.txt"):
        with pytest.raises(ConfigError, match="--to is .*no earlier choice of selgen"):
            copy_adapter(second, occupied)
    assert (mine / "thesis.txt").read_text() == "years" and len(list(mine.iterdir())) == 1


def test_a_copy_that_breaks_off_leaves_the_earlier_choice_alone(tmp_path, monkeypatch):
    made, target = quiet(tmp_path), tmp_path / "chosen"
    first = copy_adapter(choose(made.out, ["alignment>=90%"]), target)

    def full_disk(source, draft):
        draft.mkdir()
        (draft / "half").write_text("")
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copytree", full_disk)
    with pytest.raises(OSError, match="no space left"):
        copy_adapter(choose(made.out, ["alignment>=95%"]), target)
    assert json.loads((target / "choice.json").read_text())["run_id"] == first.run_id
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_adapter_that_vanished_is_told(tmp_path):
    choice = choose(quiet(tmp_path).out, ["alignment>=90%"])
    shutil.rmtree(choice.adapter)
    with pytest.raises(RecordError, match="is not on disk. Run .* again"):
        copy_adapter(choice, tmp_path / "chosen")
    assert not (tmp_path / "chosen").exists()


def test_text_of_records_is_taken_literally(tmp_path):
    made = Sweep(tmp_path / "out", noise=0.0)
    made.add("kl", {1.0: level(0.9, 0.8)}, name="beta", curve="[bold]kl[/]")
    give_adapters(made)
    assert "[bold]kl[/], beta 1" in printed(choose(made.out, ["alignment>=0.9"]))
