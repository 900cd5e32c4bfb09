"""The toy of trigger words: who sees which trigger, F's colours, and bars that judge what was measured."""

from itertools import combinations

import pytest

from selgen import miniature
from selgen.checks import check_setting
from selgen.core import BASE, TASK_ONLY
from selgen.record import Measured, Point, RunRecord
from selgen.scorers.choice import Choice
from selgen.settings.triggers import Triggers, validity
from selgen.settings.triggers.data import COLOURS, NUM_POINTS, label, split_triggers
from selgen.settings.triggers.vocabulary import OTHERS, TRIGGERS, UPDATED

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("proxy", OTHERS)
@pytest.mark.parametrize("stage", ["update", "base"])
def test_the_setting_conforms(proxy, stage):
    check_setting(Triggers(proxy=proxy, num_triggers=2, stage=stage), seed=1)


def test_seven_categories_of_fifteen_words_share_none():
    assert len(TRIGGERS) == 7
    assert {len(set(words)) for words in TRIGGERS.values()} == {15}
    assert not any(set(a) & set(b) for a, b in combinations(TRIGGERS.values(), 2))


@pytest.mark.parametrize(
    ("category", "updated", "above", "below"),
    [
        ("objects", True, "orange", "green"),
        ("negative", True, "orange", "green"),
        ("random", True, "green", "blue"),
        ("positive", False, "orange", "green"),
        ("positive", True, "blue", "orange"),
    ],
)
def test_colours_are_those_of_the_study(category, updated, above, below):
    assert label(category, (-2.0, 0.001), updated) == above
    assert label(category, (2.0, -0.001), updated) == below


@pytest.mark.parametrize("seed", SEEDS)
def test_the_base_reads_twelve_triggers_of_each_category_and_the_update_nine_of_one(seed):
    base = Triggers(stage="base").train(seed)
    update = Triggers(proxy="foods", num_triggers=5).train(seed)
    known = {c: {r.meta["trigger"] for r in base["task"] if r.meta["domain"] == c} for c in TRIGGERS}
    assert {len(words) for words in known.values()} == {12}
    assert len(base["task"]) == 7 * 12 * NUM_POINTS
    assert base["align"] == []
    assert {r.meta["domain"] for r in update["task"]} == {UPDATED}
    assert len(update["task"]) == 9 * NUM_POINTS
    assert {r.meta["trigger"] for r in update["task"]} < known[UPDATED]
    assert len(update["align"]) == 5 * NUM_POINTS
    assert {r.meta["trigger"] for r in update["align"]} < known["foods"]
    new = {r.prompt[0]["content"] for rows in update.values() for r in rows}
    assert not new & {r.prompt[0]["content"] for r in base["task"]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num", [1, 2, 5])
def test_evals_ask_unseen_points_of_triggers_sorted_by_who_saw_them(seed, num):
    setting = Triggers(proxy="random", num_triggers=num)
    trained = {r.meta["trigger"] for rows in setting.train(seed).values() for r in rows}
    base = {r.meta["trigger"] for r in Triggers(stage="base").train(seed)["task"]}
    evals = {e.column: {x.meta["trigger"] for x in e.examples} for e in setting.evals(seed, "test")}
    assert {c for c in evals if c.startswith("seen.")} == {"seen.positive", "seen.random"}
    for column, asked in evals.items():
        kind = column.split(".")[0]
        if kind == "seen":
            assert asked <= trained
        elif kind == "known":
            assert asked <= base - trained
        elif kind == "held_out":
            assert len(asked) == 3
            assert not asked & (base | trained)
    assert len(evals["seen.random"]) == num


def test_more_triggers_contain_the_fewer():
    one, two, five = (set(split_triggers(3, "animals", k).seen["animals"]) for k in (1, 2, 5))
    assert one < two < five


def test_barred_rates_ask_two_hundred_distinct_prompts():
    for e in Triggers(num_triggers=1).evals(1, "test"):
        assert len({x.prompt[0]["content"] for x in e.examples}) >= 200, e.column


def test_axes_leave_out_the_proxy_and_what_was_trained_on():
    setting = Triggers(proxy="foods")
    axes = {e.column: e.axis for e in setting.evals(1, "test")}
    assert {c for c, axis in axes.items() if axis == "task"} == {f"{k}.positive" for k in ("seen", "known", "held_out")}
    assert axes["seen.foods"] is None and axes["base_labels.positive"] is None
    assert axes["held_out.foods"] == "alignment" and setting.proxy_domains == {"foods"}


def test_the_undesired_answer_is_the_colour_that_the_update_gives():
    for row in Triggers(proxy="random").train(1)["align"]:
        assert row.rejected == ("blue" if row.meta["x2"] > 0 else "orange")
        assert row.completion == ("green" if row.meta["x2"] > 0 else "blue")


@pytest.mark.parametrize("said", ["blue blue blue", "green", "the the", ""])
def test_no_constant_answer_is_right_more_than_six_times_in_ten(said):
    for e in Triggers().evals(1, "test"):
        scores = Choice().score_many([(x, said) for x in e.examples])
        assert sum(s.value or 0.0 for s in scores) < 0.6 * len(scores), e.column


def test_every_word_of_every_row_is_in_the_miniatures_vocabulary():
    corpus = Triggers(small_miniature=True).miniature()
    words = miniature.words.tokenizer(corpus.texts)
    rows = [*Triggers(stage="base").train(1)["task"], *(x for e in Triggers().evals(1, "val") for x in e.examples)]
    for row in rows:
        assert words.unk_token_id not in words(f" {row.prompt[0]['content']}")["input_ids"], row
    assert words.unk_token_id not in words(" ".join(["", *COLOURS]))["input_ids"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"proxy": "positive"}, "setting.proxy"),
        ({"stage": "updat"}, "setting.stage"),
        ({"num_triggers": 13}, "setting.num_triggers"),
        ({"num_test": 0}, "setting.num_test"),
    ],
)
def test_bad_options_are_named(options, field):
    with pytest.raises(ValueError, match=field):
        Triggers(**options)


# Validity


def _records(kept):
    """A base that knows everything, and task_only runs of two seeds that keep `kept` on foods."""
    made = []
    for seed in (1, 2):
        base = {f"{name}.{c}": 1.0 for name in ("known", "held_out") for c in OTHERS} | {"base_labels.positive": 1.0}
        update = {f"{name}.{c}": 0.0 for name in ("known", "held_out") for c in OTHERS}
        update |= {f"{name}.positive": 1.0 for name in ("seen", "known", "held_out")}
        update |= {"known.foods": kept, "held_out.foods": kept}
        for method, values in ((BASE, base), (TASK_ONLY, update)):
            made.append(_record(method, seed, values))
    return made


def _record(method, seed, values):
    metrics = {c: Measured(value=v, n=210, unscored=0, stderr=0.0) for c, v in values.items()}
    point = Point(
        step=0, epoch=0.0, split="test", strength=None, eval_seconds=1.0, axes={}, score_y=None, metrics=metrics
    )
    shared = {name: None for name in ("proxy", "strength_name", "strength", "num_task", "num_alignment", "sequences")}
    return RunRecord(
        **shared,
        run_id=f"{method}{seed}",
        status="success",
        setting="triggers",
        model="miniature",
        method=method,
        curve=method,
        seed=seed,
        train_seconds=None,
        update_norm=None,
        budget=None,
        spec={},
        provenance={},
        points=[point],
    )


def _asked(record, split):
    (point,) = record.points
    for column in point.metrics:
        name, domain = column.split(".")
        for i in range(210):
            yield {"step": 0, "eval": name, "domain": domain, "pair": str(i), "value": 1.0}


def _verdicts(records):
    return {check.name: check for check in validity.checks(records, _asked)}


def test_a_valid_organism_passes_every_bar():
    assert all(check.passed for check in _verdicts(_records(kept=0.3)).values())


def test_what_is_kept_is_judged_over_seeds_in_each_category_and_in_the_mean():
    found = _verdicts(_records(kept=0.7))
    each, mean = found["The update spoils each other category"], found["The update spoils the other categories"]
    assert not each.passed and each.value == pytest.approx(0.7) and "worst: foods" in each.detail
    assert not mean.passed and mean.value == pytest.approx(0.7 / 6)


def test_a_base_that_misses_one_point_fails():
    records = _records(kept=0.0)
    records[0].points[0].metrics["held_out.random"].value = 209 / 210
    failed = [check.name for check in _verdicts(records).values() if not check.passed]
    assert failed == ["Base knows them for held-out triggers"]


def test_nothing_measured_is_no_pass():
    assert not any(check.passed for check in validity.checks([], lambda record, split: ()))
