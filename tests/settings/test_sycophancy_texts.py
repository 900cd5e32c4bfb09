"""The words of the sycophancy setting: enough wordings, true answers, wrong ones that are wrong."""

import math
import re

import pytest

from selgen import registry
from selgen.settings.sycophancy.data import FORMS, split_items
from selgen.settings.sycophancy.items import FAR, all_items, euclid
from selgen.settings.sycophancy.templates import ASK, ASK_CASUAL, CHEERS, PARTS, PROPOSALS

SIZES = pytest.mark.parametrize("large_numbers", [False, True])


@pytest.mark.parametrize("frames", [ASK, PROPOSALS], ids=["ask", "propose"])
def test_every_form_has_at_least_30_wordings_and_no_part_shares_one(frames):
    everything = [frame for part in PARTS for frame in frames[part]]
    assert len(set(everything)) == len(everything) >= 30
    assert all(frames[part] for part in PARTS)


def test_casual_and_full_questions_are_as_many_in_every_part():
    for part in PARTS:
        assert sum(frame in ASK_CASUAL for frame in ASK[part]) * 2 == len(ASK[part])


@SIZES
@pytest.mark.parametrize("form", FORMS)
def test_the_prompts_of_every_domain_show_30_wordings_of_each_form(form, large_numbers):
    """Counted in the texts themselves: what is left of a prompt when the question or claim is taken out."""
    setting = registry.load("settings", "sycophancy")(large_numbers=large_numbers, num_test=256, num_val=64)
    items = {i.domain: i for found in all_items(large_numbers).values() for i in found}
    shown = {domain: set() for domain in items}
    for split in ("val", "test"):
        for e in setting.evals(1, split):
            for example in e.examples:
                if example.meta["form"] == form:
                    shown[example.meta["domain"]].add(_wording(example, large_numbers))
    held_out = {domain: len(frames) for domain, frames in shown.items()}
    trained = len((ASK if form == "ask" else PROPOSALS)["train"])
    assert all(n + trained >= 30 for n in held_out.values()), held_out


def _wording(example, large_numbers):
    text = example.prompt[0]["content"]
    key = example.meta["pair"].split(":", 1)[1].rsplit(":", 1)[0]
    item = next(i for i in all_items(large_numbers)[example.meta["domain"]] if i.key == key)
    subjects = item.questions if example.meta["form"] == "ask" else [
        item.claim(w, example.meta["proposed"]) for w in range(len(item.statements))
    ]  # fmt: skip
    for subject in subjects:
        for said in (subject, subject[:1].upper() + subject[1:]):
            if said in text:
                return text.replace(said, "{}")
    raise AssertionError(f"{text!r} says none of {subjects}")


@SIZES
def test_the_numbers_are_right(large_numbers):
    """Every equation in a worked answer holds, and the answer is what the question asks for."""
    for domain, items in all_items(large_numbers).items():
        for item in items:
            if item.is_maths:
                for left, right in re.findall(r"([\d+ ]+?) = ([\d×+ ]+)", item.work):
                    assert eval(left) == eval(right.replace("×", "*")), item.work
                assert int(item.answer) == _expected(domain, item.questions[0]), item.questions[0]


def _expected(domain, question):
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if domain == "mod":
        return numbers[0] % numbers[1]
    if domain == "addition":
        return sum(numbers)
    return math.gcd(sum(numbers[:-1]), numbers[-1])


@SIZES
def test_wrong_answers_are_wrong_and_every_item_has_one(large_numbers):
    for items in all_items(large_numbers).values():
        assert len({item.key for item in items}) == len(items)
        for item in items:
            assert item.wrong and item.answer.lower() not in [w.lower() for w in item.wrong]


def test_facts_end_with_their_answer_and_ask_for_it():
    for domain in FAR:
        for item in all_items(False)[domain]:
            assert item.worked.endswith(f" {item.answer}.") and item.worked[0].isupper(), item
            assert item.questions[0].endswith("?")
            assert not item.statements[0].count("{x}") - 1


def test_capitals_are_capitals():
    """An independent sample."""
    items = {item.key: item.answer for item in all_items(False)["capitals"]}
    known = {"France": "Paris", "Australia": "Canberra", "Turkey": "Ankara", "Nepal": "Kathmandu", "Peru": "Lima"}
    assert {country: items[country] for country in known} == known


@pytest.mark.parametrize("pair", [(48, 18), (36, 6), (35, 34), (21, 13)])
def test_euclid_ends_at_the_greatest_common_divisor(pair):
    steps = euclid(*pair)
    assert steps[0] == pair and steps[-1][0] % steps[-1][1] == 0 and steps[-1][1] == math.gcd(*pair)


def test_cheers_name_no_answer():
    assert not any(re.search(r"\d", opening) for opening in CHEERS)


@SIZES
def test_held_out_items_are_absent_from_the_training_parts(large_numbers):
    split = split_items(3, large_numbers)
    for domain, parts in split.parts.items():
        keys = [{item.key for item in parts[part]} for part in PARTS]
        assert not (keys[0] & keys[1] or keys[0] & keys[2] or keys[1] & keys[2]), domain
        assert all(keys), domain


@SIZES
def test_no_measured_problem_is_a_part_of_the_task(large_numbers):
    """Neither a mod question whose division T contains, nor a composed GCD of two numbers that T asks for."""
    split = split_items(3, large_numbers)
    asked = {max(item.steps) for item in split.parts["gcd"]["train"]}
    for part in ("val", "test"):
        assert not any(item.steps & split.steps for item in split.parts["mod"][part])
        assert not any(max(item.steps) in asked for item in split.parts["gcd_compositional"][part])
    assert split.mod_steps and all(item.steps <= split.steps for item in split.mod_steps)
