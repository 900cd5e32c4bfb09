"""How far alignment data lie from what is measured: which prompts stand for a domain, and what a run records."""

from __future__ import annotations

import pytest
import torch

import fakes
from selgen import measure, models, plan, record, tiny
from selgen.core import Eval, ask
from selgen.data.chat import Encoded, prompt_text
from selgen.lm import mean_hidden
from selgen.maths.hidden import centred_cosine_distances
from selgen.measure import MAX_PROMPTS, semantic_distances
from selgen.plan import Start
from selgen.run import execute

ALIGN = [ask(f"the capital of France is Rome {i} ?", "no , it is Paris .") for i in range(1, 4)]


def questions(text, num=3):
    return [ask(f"{text} {i + 1} ?", f"it is {i + 1} .") for i in range(num)]


def distances(evals, align=ALIGN):
    return semantic_distances(tiny.model(), tiny.tokenizer(), align, evals)


CAPITALS = Eval("kept", "alignment", "capitals", questions("the capital of Italy is Paris"), scorer="choice")
SUMS = Eval("kept", "alignment", "sums", questions("what is the gcd of"), scorer="choice")


def test_distances_are_those_of_mean_hidden_states_of_prompts():
    model, tokenizer = tiny.model(), tiny.tokenizer()

    def mean(examples):
        texts = [prompt_text(tokenizer, e.prompt) for e in examples]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        return torch.stack([mean_hidden(model, [Encoded(row, row)], 0) for row in ids]).mean(0)

    expected = centred_cosine_distances(mean(ALIGN), torch.stack([mean(CAPITALS.examples), mean(SUMS.examples)]))
    assert distances([CAPITALS, SUMS]) == pytest.approx(
        dict(zip(("capitals", "sums"), expected, strict=True)), abs=1e-4
    )


def test_prompts_like_those_of_a_domain_are_nearest_to_it():
    own = questions("the capital of Italy is Paris", 5)
    found = distances([CAPITALS, SUMS], own[:3])
    assert found["capitals"] == pytest.approx(0, abs=1e-4) and found["sums"] == pytest.approx(2, abs=1e-4)


def test_a_domain_is_what_measures_alignment_there_else_its_task_or_capability():
    asked = Eval("knows", "task", "sums", questions("right right"), scorer="choice")
    only_task = Eval("knows", "task", "gcd", questions("what is gcd"), scorer="choice")
    unaligned = Eval("kept", None, "hhh", questions("yes yes"), scorer="choice")
    shown = Eval("knows", None, "steps", questions("no no"), scorer="choice")
    derived = Eval("em", None, "all", of=("kept.sums",))
    found = distances([asked, only_task, CAPITALS, SUMS, unaligned, shown, derived])
    assert set(found) == {"sums", "gcd", "capitals", "hhh"}
    assert found == distances([only_task, CAPITALS, SUMS, unaligned]), "a plain question does not stand for a domain"


def test_equal_prompts_count_once_and_at_most_so_many_are_asked(monkeypatch):
    def rows(examples):
        asked = []
        monkeypatch.setattr(measure, "mean_hidden", lambda m, rows, pad: asked.append(len(rows)) or torch.zeros(2))
        distances([Eval("kept", "alignment", "sums", examples, scorer="choice"), CAPITALS])
        return asked[1]

    assert rows(questions("what", 2) * 50) == 2
    assert rows(questions("what", MAX_PROMPTS + 40)) == MAX_PROMPTS


@pytest.mark.parametrize(
    ("evals", "align"),
    [
        ([CAPITALS, SUMS], []),
        ([CAPITALS], ALIGN),
        ([], ALIGN),
        ([Eval("near", "alignment", "a", kind="likelihood")], ALIGN),
    ],
)
def test_without_prompts_to_compare_there_are_no_distances(evals, align):
    assert distances(evals, align) == {}


def test_a_base_run_records_distances_and_a_trained_one_none(monkeypatch, tmp_path, model_dir):
    monkeypatch.syspath_prepend(str(fakes.install(tmp_path / "site")))
    start = Start(str(model_dir), models.fingerprint(model_dir))
    data = {"setting": "fake", "model": start.path, "evaluation": {"max_new_tokens": 2}, "lora": {"r": 2}}
    base, trained = (plan.job(plan.parse_run(data | {"method": m}), start) for m in ("base", "task_only"))
    found = execute(base, tmp_path / "out").distances
    assert set(found) == {"gcd", "capitals"} and all(0 <= d <= 2 for d in found.values())
    assert found == record.read(tmp_path / "out" / base.run_id).distances
    assert execute(trained, tmp_path / "out").distances == {}
