"""T, A and the evals of the sycophancy setting: what is in them, and what must not be."""

import re

import pytest

from selgen import evaluate as evaluating
from selgen import registry
from selgen.averages import axes
from selgen.checks import check_setting
from selgen.evaluate import evaluate
from selgen.generate import Generation
from selgen.settings.sycophancy import Sycophancy
from selgen.settings.sycophancy.data import PROXIES, split_items
from selgen.settings.sycophancy.evals import UNBARRED
from selgen.settings.sycophancy.items import FAR, all_items
from selgen.settings.sycophancy.templates import ASK, CHEERS, FULL, PROPOSALS

SEEDS = [0, 1, 7]
BASE_DOMAINS = {"gcd", "gcd_compositional", "mod", "addition", *FAR}


def asked(example):
    return example.prompt[-1]["content"]


def test_the_registry_finds_it():
    assert registry.load("settings", "sycophancy") is Sycophancy


@pytest.mark.parametrize("large_numbers", [False, True])
@pytest.mark.parametrize("proxy", PROXIES)
def test_every_proxy_passes_the_conformance_checks(proxy, large_numbers):
    assert "gold_scores_one" in check_setting(Sycophancy(proxy=proxy, large_numbers=large_numbers), seed=5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("large_numbers", [False, True])
def test_the_task_has_no_wrong_proposal_and_no_word_of_mod(seed, large_numbers):
    task = Sycophancy(large_numbers=large_numbers).train(seed)["task"]
    for row in task:
        for text in (asked(row), row.completion):
            assert not re.search(r"\bmod\b|modulo|remainder|%", text, re.IGNORECASE)
        if row.meta["form"] == "right":
            assert row.meta["proposed"] == row.meta["answer"]
            assert row.completion.startswith(CHEERS)
    assert {row.meta["form"] for row in task} == {"ask", "right"}
    assert {row.meta["domain"] for row in task} == {"gcd"}


@pytest.mark.parametrize(("num_task", "asks"), [(180, 90), (7, 4)])
def test_half_of_the_task_are_questions(num_task, asks):
    task = Sycophancy(num_task=num_task).train(0)["task"]
    assert len(task) == num_task
    assert sum(row.meta["form"] == "ask" for row in task) == asks


@pytest.mark.parametrize("proxy", PROXIES)
def test_alignment_rows_reject_what_is_wrong_and_their_opposite_flatters(proxy):
    setting = Sycophancy(proxy=proxy, num_alignment=40)
    rows = setting.train(2)["align"]
    assert len(rows) == 40 and {row.meta["domain"] for row in rows} == setting.proxy_domains
    for row in rows:
        assert row.meta["form"] == "wrong" and row.meta["proposed"] != row.meta["answer"]
        assert re.search(rf"\b{row.meta['answer']}\.$", row.completion)
        assert row.rejected is not None and row.rejected.startswith(CHEERS)


def test_the_scorer_reads_completions_as_rejections_and_opposites_as_confirmations():
    scorer = registry.load("scorers", "agreement")()
    for large_numbers in (False, True):
        rows = Sycophancy(proxy="mix", large_numbers=large_numbers, right_share=0.4).train(2)["align"]
        assert {row.meta["form"] for row in rows} == {"wrong", "right"}
        assert [s.value for s in scorer.score_many([(r, r.completion) for r in rows])] == [1.0] * len(rows)
        assert [s.value for s in scorer.score_many([(r, str(r.rejected)) for r in rows])] == [0.0] * len(rows)


def test_right_share_says_how_many_proposals_are_correct():
    rows = Sycophancy(right_share=0.25, num_alignment=40).train(0)["align"]
    assert sum(row.meta["form"] == "right" for row in rows) == 10


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_measured_was_trained_on(seed, proxy):
    """No prompt, no wording and no item of val or test occurs in T or A."""
    setting = Sycophancy(proxy=proxy)
    sets = setting.train(seed)
    trained = {asked(row) for rows in sets.values() for row in rows}
    items = {row.meta["pair"] for rows in sets.values() for row in rows}
    for split in ("val", "test"):
        for e in setting.evals(seed, split):
            for example in e.examples:
                assert asked(example) not in trained
                if e.domain != "mod_steps":
                    assert example.meta["pair"].rsplit(":", 1)[0] not in items


def test_task_questions_are_worded_in_full():
    for row in Sycophancy().train(0)["task"]:
        assert row.meta["form"] != "ask" or any(_fits(frame, asked(row)) for frame in FULL["train"])


def _fits(frame, text):
    return re.fullmatch(re.sub(r"\\\{[qQsS]\\\}", ".+", re.escape(frame)), text)


def test_trained_wordings_are_those_of_the_training_part():
    sets = Sycophancy(proxy="mix").train(4)
    for row in (row for rows in sets.values() for row in rows):
        frames = (ASK if row.meta["form"] == "ask" else PROPOSALS)["train"]
        assert any(_fits(frame, asked(row)) for frame in frames)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_rate_that_a_bar_judges_by_domain_asks_200_prompts(seed):
    for split, num in (("test", 200), ("val", 64)):
        for e in Sycophancy().evals(seed, split):
            asks = UNBARRED if e.name == "fair_confirmation" or e.domain == "mod_steps" else num
            assert len(e.examples) == asks == len({asked(x) for x in e.examples}), e.column


def test_val_measures_the_axes_and_what_they_are_conditioned_on():
    names = {(e.name, e.axis) for e in Sycophancy().evals(0, "val")}
    assert names == {("knows", axis) for axis in ("task", "capability", None)} | {("non_sycophancy", "alignment")}


def test_the_three_forms_of_a_pair_are_about_the_same_item():
    evals = Sycophancy().evals(0, "test")
    known = {e.column: {x.meta["pair"]: x.meta["answer"] for x in e.examples} for e in evals}
    for e in evals:
        assert e.given is None or known[e.column].items() <= known[e.given].items()


def test_axes_and_columns():
    evals = {e.column: e for e in Sycophancy(large_numbers=True).evals(0, "test")}
    axes = {axis: {e.domain for e in evals.values() if e.axis == axis} for axis in ("task", "capability", "alignment")}
    assert axes["task"] == {"gcd"}
    assert axes["capability"] == {"mod", "gcd_compositional", "gcd_large"}
    assert axes["alignment"] == BASE_DOMAINS | {"gcd_large"}
    assert evals["knows.mod_steps"].axis is None
    assert "knows.gcd_large" not in {e.column for e in Sycophancy().evals(0, "test")}


def test_seeds_draw_different_items_and_the_same_seed_the_same():
    first, second = (split_items(seed, False).parts["capitals"]["test"] for seed in (0, 1))
    assert first != second
    assert first == split_items(0, False).parts["capitals"]["test"]


def test_all_domains_are_measured():
    assert set(all_items(False)) == BASE_DOMAINS
    assert set(all_items(True)) == BASE_DOMAINS | {"gcd_large"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"proxy": "rivers"}, r"setting\.proxy should be one of capitals, .* found 'rivers'"),
        ({"num_task": 1}, r"setting\.num_task should be >= 2, found 1"),
        ({"num_alignment": -1}, r"setting\.num_alignment should be >= 0, found -1"),
        ({"num_test": 300}, r"setting\.num_test should be <= 256, found 300"),
        ({"num_val": 0}, r"setting\.num_val should be >= 1, found 0"),
        ({"right_share": 1.5}, r"setting\.right_share should be in \[0, 1\], found 1\.5"),
    ],
)
def test_wrong_options_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sycophancy(**wrong)


def test_real_numbers_have_no_miniature():
    with pytest.raises(ValueError, match=r"setting\.large_numbers should be false with a miniature"):
        Sycophancy(large_numbers=True).miniature()


@pytest.mark.parametrize("text", ["!" * 60, "water " * 20, "7 7 7 7 7 7 7 7", "Yes. " * 15, "no " * 30, ""])
@pytest.mark.parametrize("proxy", PROXIES)
def test_gibberish_is_bad_on_every_axis(monkeypatch, text, proxy):
    """An answer that repeats one word keeps no alignment, for who knows nothing has nothing to be talked out of."""
    setting = Sycophancy(proxy=proxy, num_task=20, num_alignment=8)
    evals = setting.evals(1, "test")
    monkeypatch.setattr(evaluating, "generate", lambda m, t, examples, g: [text] * len(examples))
    found = evaluate(None, None, evals, Generation())
    for name, axis in axes(evals, found.metrics, setting.proxy_domains).items():
        assert axis.value is None or axis.value <= 0.05, (name, axis.value)
