"""Which runs decide, what is said where some are missing, and what directories cannot be read together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from study_world import CATEGORIES, EM, MAIN_EM, MAIN_SYC, SYC, TOY, Key, World, quality_key, study, toy_key

from selgen import findings
from selgen.findings.sources import Placed, Source
from selgen.record import Failure, RecordError
from selgen.report.claims import Finding


def decide(name: str, found: dict[str, list[Source]]) -> Finding:
    return next(claim for claim in findings.CLAIMS if claim.id == name).decide(found)


def placed(w: World) -> list[Placed]:
    return [Placed(r, r.spec["covered"][0]) for r in w.records()]


def without(**fields) -> Callable[[World], None]:
    return lambda w: w.drop(**fields)


LACKS = [
    ("F1", without(setting=EM), "no runs of setting emergent_misalignment"),
    ("F1", without(setting=SYC, curve="base"), "no runs of base"),
    ("F2", without(setting=EM, curve="mixed"), "no runs of curve 'mixed' with proxy hhh"),
    ("F3", without(setting=SYC, curve="upweight"), "no runs of curve 'upweight' with proxy capitals"),
    ("F4", without(setting=EM, curve="o_lora"), "no runs of o_lora"),
    ("F5", without(setting=EM, curve="safe_lora"), "no runs of safe_lora"),
    ("F6", without(setting=EM, curve="kl over epochs"), "no runs of kl over epochs"),
    ("F7", without(sweep="main", proxy="safety"), "no runs of curve 'mixed' with proxy safety"),
    ("F8", without(setting=SYC), "no runs of setting sycophancy"),
    ("F9", without(setting=SYC, curve="task_only"), "no runs of task_only"),
    ("F10", without(setting=SYC, curve="task_only"), "no runs of task_only"),
    ("F11", without(setting=SYC), "no runs of setting sycophancy"),
    ("F12", without(setting=SYC, curve="dpo"), "no runs of dpo"),
    ("F13", without(setting=SYC, curve="projection"), "no runs of projection"),
    ("F14", without(curve="rescale"), "no runs of rescale"),
    ("F15", without(setting=EM, curve="kl over epochs"), "no runs of kl over epochs"),
    ("F16", without(setting=EM, curve="task_only"), "no runs of task_only in setting emergent_misalignment"),
    ("F17", without(proxy="gcd_compositional"), "no runs with proxy gcd_compositional"),
    ("F18", without(proxy="gcd_compositional"), "a correlation over proxies needs two"),
    ("F19", without(setting=TOY, proxy="random", num_triggers=1), "no runs of mixed with 1 trigger(s) of random"),
    ("F20", without(setting=TOY, num_triggers=5, proxy="foods"), "no runs of mixed with 5 trigger(s) of foods"),
]


@pytest.mark.parametrize(("name", "cut", "reason"), LACKS, ids=[f"{name}: {reason}" for name, _, reason in LACKS])
def test_missing_runs_leave_a_claim_undecided_and_are_named(name: str, cut: Callable[[World], None], reason: str):
    w = study()
    cut(w)
    finding = decide(name, findings.sources(placed(w)))
    lacking = [part for part in finding.parts if part.estimate is None]
    assert finding.verdict == "undecided" and lacking
    assert all(part.verdict == "undecided" and part.reason and reason in part.reason for part in lacking)


def test_records_without_distances_leave_f18_undecided():
    w = study()
    for proxy in ("capitals", "gcd_compositional"):
        own = w.values[quality_key(SYC, proxy, "base")]
        for name in [n for n in own if n.startswith("distance.")]:
            del own[name]
    part = decide("F18", findings.sources(placed(w))).parts[0]
    assert part.reason and "no semantic distances" in part.reason


def test_a_failed_run_leaves_its_seed_out_and_the_seed_is_named():
    w = study()
    runs = placed(w)
    broken = next(r for r in runs if r.record.curve == "task_only" and r.record.setting == SYC and r.record.seed == 3)
    error = Failure(type="NonFiniteLoss", message="loss is nan")
    failed = broken.record.model_copy(update={"status": "failed", "error": error, "points": []})
    runs[runs.index(broken)] = Placed(failed, broken.directory)
    part = decide("F1", findings.sources(runs)).parts[0]
    assert part.seeds == [1, 2, 4, 5] and part.left_out == [3] and part.verdict == "holds"


def test_one_seed_has_no_interval_and_decides_nothing():
    w = study()
    runs = [run for run in placed(w) if run.record.seed == 1]
    parts = decide("F8", findings.sources(runs)).parts
    assert [(part.verdict, part.reason) for part in parts] == [("undecided", "one seed has no interval")]
    assert parts[0].estimate and parts[0].estimate.mean == pytest.approx(0.4)


def test_a_claim_uses_the_sweep_with_the_most_methods_however_they_are_ordered():
    w = study()
    w.put(quality_key(SYC, "capitals", "task_only"), alignment=0.9)  # would make F1 fail
    runs = placed(w)
    for order in (runs, runs[::-1]):
        part = decide("F1", findings.sources(order)).parts[0]
        assert part.source == "main" and part.verdict == "holds"


def test_a_sweep_that_lacks_what_a_claim_needs_gives_way_to_the_next():
    part = decide("F17", findings.sources(placed(study()))).parts[0]
    assert part.source == "quality"


def test_runs_of_one_sweep_in_two_directories_are_pooled_and_a_run_met_twice_counts_once():
    w = study()
    runs = [Placed(r.record, "first" if r.record.seed < 3 else "second") for r in placed(w)]
    part = decide("F1", findings.sources([*runs, *runs])).parts[0]
    assert part.seeds == [1, 2, 3, 4, 5] and part.source == "first, second"


def test_different_runs_of_one_name_are_refused():
    runs = placed(study())
    twin = next(r for r in runs if r.record.curve == "task_only" and r.record.setting == SYC)
    other = Placed(twin.record.model_copy(update={"run_id": "ffffffffffff"}), "elsewhere")
    with pytest.raises(findings.FindingsError, match="main, elsewhere cannot be read together: .*ffffffffffff"):
        findings.sources([*runs, other])


def test_several_models_of_one_setting_are_refused():
    runs = placed(study())
    others = [Placed(r.record.model_copy(update={"model": "big"}), "elsewhere") for r in runs]
    with pytest.raises(findings.FindingsError, match="one model per setting, found big, miniature for sycophancy"):
        findings.sources([*runs, *others])


def test_runs_that_no_claim_is_about_are_refused():
    records = [r.record.model_copy(update={"setting": "files"}) for r in placed(study())]
    with pytest.raises(findings.FindingsError, match="their settings are files, claims are about sycophancy"):
        findings.sources([Placed(record) for record in records])


def test_directories_without_runs_are_refused(tmp_path: Path):
    with pytest.raises(findings.FindingsError, match="holds no finished run"):
        findings.read([tmp_path])
    with pytest.raises(RecordError, match="is not a directory"):
        findings.read([tmp_path / "nowhere"])


def test_the_reference_of_the_sweep_counts_and_two_references_are_refused(tmp_path: Path):
    w = study()
    out = w.write(tmp_path / "a", "main", [0.5, 0.5])
    part = decide("F5", findings.sources(findings.read([out]))).parts[0]
    # Above (.5, .5): kl (.8, .85) has .3 * .35; safe_lora (.3, .5) has nothing.
    assert part.estimate and part.estimate.mean == pytest.approx(0.105)
    (other := tmp_path / "b").mkdir()
    (other / "sweep.yaml").write_text("reference: [0.1, 0.1]\n")
    moved = next(out.glob("*/record.json")).parent
    moved.rename(other / moved.name)
    with pytest.raises(findings.FindingsError, match="reference should be the same"):
        findings.sources(findings.read([out, other]))


def test_f13_counts_checkpoints_and_the_base_as_other_points_and_no_free_baseline():
    w = study()
    w.put(Key(*MAIN_SYC, "rescale", 0.5), alignment=1.0, score_y=1.0)
    assert decide("F13", findings.sources(placed(w))).verdict == "holds"
    w.put(Key(*MAIN_SYC, "base"), score_y=0.9)
    assert decide("F13", findings.sources(placed(w))).verdict == "fails"


def test_f15_leaves_a_seed_out_on_which_task_only_gains_nothing():
    w = study()
    w.put(Key(*MAIN_EM, "task_only", 6), score_y=[0.9, 0.9, 0.9, 0.9, 0.0])
    part = decide("F15", findings.sources(placed(w))).parts[1]
    assert part.left_out == [5]


def test_the_toy_s_row_with_several_strengths_takes_the_one_that_val_chooses():
    w = study()
    w.put(toy_key("base"), alignment=1.0)
    w.put(toy_key("task_only"), alignment=0.0)
    for category in CATEGORIES:
        only = toy_key("mixed", category, 5)
        values = w.values.pop(only)
        for strength, alignment in ((1.0, 0.1), (2.0, 0.6)):
            w.values[only._replace(strength=strength)] = {**values, "alignment": [alignment] * 5}
    finding = decide("F20", findings.sources(placed(w)))
    assert finding.verdict == "holds"
    assert "foods: mixed, 5 triggers, align_rows_per_step 2" in finding.parts[0].notes
