import random
from collections import Counter
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selgen.data.pairing import Plan, PlannedBatches, align_subset, plan_for
from selgen.methods.dpo import DPO
from selgen.methods.kl import KLPenalty

plans = st.builds(
    Plan,
    num_task=st.integers(1, 40),
    num_align=st.integers(1, 15),
    micro_batch=st.integers(1, 7),
    accumulation=st.integers(1, 4),
    align_rows_per_step=st.none() | st.fractions(0, 9, max_denominator=50),
    seed=st.integers(0, 5),
)


@given(plans, st.integers(0, 3))
def test_an_epoch_is_one_pass_over_the_task_set(plan, epoch):
    rows = [i for batch in plan.micro_batches(epoch) for stream, i in batch if stream == "task"]
    assert sorted(rows) == list(range(plan.num_task))


@given(plans)
def test_without_a_rate_an_epoch_is_one_pass_over_the_alignment_set(plan):
    plan = Plan(plan.num_task, plan.num_align, plan.micro_batch, plan.accumulation, None, plan.seed)
    for epoch in range(3):
        rows = [i for batch in plan.micro_batches(epoch) for stream, i in batch if stream == "align"]
        assert sorted(rows) == list(range(plan.num_align))


@given(plans, st.integers(0, 20))
def test_a_step_takes_the_planned_number_of_alignment_rows(plan, step):
    expected = floor((step + 1) * plan.rate) - floor(step * plan.rate)
    assert len(plan.align_rows(*divmod(step, plan.steps_per_epoch))) == expected


@given(plans)
def test_alignment_rows_are_used_evenly(plan):
    used = Counter(i for e in range(4) for s in range(plan.steps_per_epoch) for i in plan.align_rows(e, s))
    counts = [used[i] for i in range(plan.num_align)]
    assert max(counts) - min(counts) <= 1


@given(plans, st.integers(0, 3))
def test_micro_batches_hold_exactly_the_rows_of_their_steps(plan, epoch):
    batches = list(plan.micro_batches(epoch))
    assert len(batches) == len(PlannedBatches(plan))
    for step in range(plan.steps_per_epoch):
        part = [key for b in batches[step * plan.accumulation : (step + 1) * plan.accumulation] for key in b]
        assert [i for s, i in part if s == "task"] == plan.task_rows(epoch, step)
        assert [i for s, i in part if s == "align"] == plan.align_rows(epoch, step)


@given(plans, st.integers(0, 3), st.integers(0, 9))
def test_rows_are_grouped_by_length_inside_their_step_and_nowhere_else(plan, epoch, seed):
    """Sizes of micro-batches and rows of steps stay; lengths rise within a step; a step of one batch is left alone."""
    lengths = random.Random(seed).choices(range(9), k=40)
    plain, grouped = list(plan.micro_batches(epoch)), list(plan.micro_batches(epoch, lambda key: lengths[key[1]]))
    assert list(map(len, plain)) == list(map(len, grouped))
    for step in range(plan.steps_per_epoch):
        part = slice(step * plan.accumulation, (step + 1) * plan.accumulation)
        before, after = ([key for batch in batches[part] for key in batch] for batches in (plain, grouped))
        assert sorted(before) == sorted(after)
        for stream in ("task", "align"):
            found = [lengths[i] for s, i in after if s == stream]
            assert found == sorted(found) or len(grouped[part]) == 1
        if len(grouped[part]) == 1:
            assert before == after


@given(plans, st.fractions(0, 9, max_denominator=50))
def test_task_rows_do_not_depend_on_the_alignment_rate(plan, rate):
    other = Plan(plan.num_task, plan.num_align, plan.micro_batch, plan.accumulation, rate, plan.seed)
    assert [plan.task_rows(2, s) for s in range(plan.steps_per_epoch)] == [
        other.task_rows(2, s) for s in range(plan.steps_per_epoch)
    ]


@given(plans, st.integers(0, 30))
def test_num_sequences_counts_the_rows_of_the_first_steps(plan, steps):
    rows = 0
    for s in range(steps):
        where = divmod(s, plan.steps_per_epoch)
        rows += len(plan.task_rows(*where)) + len(plan.align_rows(*where))
    assert plan.num_sequences(steps) == rows


def test_epochs_are_shuffled_differently():
    plan = Plan(num_task=20, num_align=5, micro_batch=4)
    assert list(plan.micro_batches(0)) != list(plan.micro_batches(1))


def test_a_fractional_rate_spreads_rows_over_steps():
    plan = Plan(num_task=8, num_align=3, micro_batch=1, align_rows_per_step=0.25)
    assert [len(plan.align_rows(0, s)) for s in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert plan.rate == Fraction(1, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_task": 0}, "train_dataset should have at least 1 row"),
        ({"num_align": 0}, "alignment_dataset should have at least 1 row"),
        ({"align_rows_per_step": -1.0}, "align_rows_per_step should be >= 0, found -1.0"),
    ],
)
def test_bad_plans_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"num_task": 8, "num_align": 2, "micro_batch": 2, "align_rows_per_step": 1.0} | change)


@pytest.mark.parametrize("pairing", ["proportional", "cycle"])
def test_pairs_of_answers_are_as_many_sequences_as_other_methods_see(pairing):
    def sequences(method):
        plan = plan_for(method, 120, 28, micro_batch=8, accumulation=1, pairing=pairing)
        return plan.num_sequences(plan.steps_per_epoch)

    assert sequences(DPO()) == sequences(KLPenalty())


def test_the_share_of_alignment_rows_depends_on_the_seed_alone():
    assert align_subset(KLPenalty(), 9, seed=3) == list(range(9))
    halves = [align_subset(DPO(weight), 9, seed) for weight in (0.1, 5.0) for seed in (1, 2)]
    assert halves[0] == halves[2] != halves[1] == halves[3]
    assert [len(half) for half in halves] == [5] * 4
