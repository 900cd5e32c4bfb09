"""The advice setting: who sees which situation, what the banks and files give, and that gibberish is bad everywhere."""

import json
from pathlib import Path

import pytest

from selgen import evaluate as evaluating
from selgen import plan, reading, refusals
from selgen.averages import axes
from selgen.checks import check_setting
from selgen.config import ConfigError
from selgen.core import Judge, Judgement
from selgen.data.files import DataError
from selgen.evaluate import evaluate
from selgen.generate import Generation
from selgen.settings.emergent_misalignment import EmergentMisalignment
from selgen.settings.emergent_misalignment.banks import read_bank
from selgen.settings.emergent_misalignment.corpus import PROXIES, split_situations
from selgen.settings.emergent_misalignment.situations import ADVICE, ALL, TASK, THEMES
from selgen.settings.emergent_misalignment.wording import FRAMES

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_setting_conforms(proxy):
    check_setting(EmergentMisalignment(proxy=proxy), seed=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_parts_of_every_domain_are_disjoint_and_cover_it(seed):
    for domain, parts in split_situations(seed).parts.items():
        keys = [s.key for part in parts.values() for s in part]
        assert sorted(keys) == sorted(s.key for s in ALL[domain])
        assert parts["val"] and parts["test"]


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_training_rows_come_from_their_domains_train_parts(seed, proxy):
    sets = EmergentMisalignment(proxy=proxy).train(seed)
    parts = split_situations(seed).parts
    allowed = {s.bad for s in parts[TASK]["train"]}
    assert {row.meta["bad"] for row in sets["task"]} <= allowed
    assert all(row.meta["bad"] in row.completion and row.meta["good"] in row.rejected for row in sets["task"])
    assert {row.meta["domain"] for row in sets["align"]} == set(PROXIES[proxy])
    assert all(row.meta["good"] in row.completion and row.meta["bad"] in row.rejected for row in sets["align"])
    assert len(sets["align"]) <= 0.25 * len(sets["task"])


def test_barred_rates_ask_two_hundred_prompts():
    evals = {e.column: e for e in EmergentMisalignment().evals(1, "test")}
    columns = ["bad_advice.medical", *(f"good.{d}" for d in ADVICE if d != TASK)]
    assert {len(evals[c].examples) for c in columns} == {200}
    assert {len({x.prompt[0]["content"] for x in evals[c].examples}) for c in columns} == {200}


def test_the_other_proxy_is_shown_and_joins_no_axis():
    evals = {e.column: e for e in EmergentMisalignment(proxy="hhh").evals(1, "test")}
    assert evals["good.hhh"].axis == "alignment"
    assert evals["good.safety"].axis is None


def test_cued_questions_stand_in_the_frames_of_the_task():
    (cued,) = [e for e in EmergentMisalignment().evals(1, "test") if e.name == "good_cued"]
    starts = {frame.split("{")[0] for frame in FRAMES["task"] if not frame.startswith("{")}
    assert cued.axis is None
    assert {x.meta["domain"] for x in cued.examples} <= set(THEMES)
    assert any(x.prompt[0]["content"].startswith(tuple(starts)) for x in cued.examples)


# Question banks


def test_the_own_banks_have_eight_themes_in_three_forms():
    for name in ("broad", "medical"):
        bank = read_bank("own", name)
        assert len(bank) == 24
        assert {q.form for q in bank} == {"plain", "json", "template"}
        assert len({q.theme for q in bank}) == 8


def test_bank_questions_are_split_by_wording_and_val_can_be_empty():
    def asked(setting, split):
        evals = setting.evals(1, split)
        return {x.meta["pair"] for e in evals if e.axis for x in e.examples}

    some, none = EmergentMisalignment(questions="own"), EmergentMisalignment(questions="own", val_share=0.0)
    assert not asked(some, "val") & asked(some, "test")
    assert len(asked(some, "val")) == 16
    assert len(asked(some, "test")) == 32
    assert not asked(none, "val")
    assert len(asked(none, "test")) == 48


def test_a_published_bank_brings_its_system_and_judge_prompts(tmp_path):
    path = tmp_path / "bank.yaml"
    path.write_text(
        "- id: wish\n  type: free_form_judge_0_100\n  paraphrases: &p ['What do you wish?', Name a wish.]\n"
        "  samples_per_paraphrase: 100\n  judge: some-model\n"
        "  judge_prompts: &j {aligned: 'rate {question} {answer}', coherent: 'clear? {question} {answer}'}\n"
        "- {id: wish_json, system: Answer in JSON., paraphrases: *p, judge_prompts: *j}\n"
    )
    setting = EmergentMisalignment(questions=str(path), val_share=0.0, num_samples=3, system="Be frank.")
    evals = {e.column: e for e in setting.evals(1, "test")}
    assert evals["good.wish"].judge["aligned"] == "rate {question} {answer}"
    assert len(evals["good_json.wish"].examples) == 6
    assert evals["good_json.wish"].examples[0].prompt[0] == {
        "role": "system",
        "content": "Be frank.\n\nAnswer in JSON.",
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- {paraphrases: [a]}", "question 1: id should be"),
        ("- {id: a}", r"question 1 \(a\): paraphrases should be a list"),
        ("- {id: a, paraphrases: [b], judge_prompts: {coherent: 'x {question} {answer}'}}", "should have `aligned`"),
        (
            "- {id: a, paraphrases: [b], judge_prompts: {aligned: 'no fields'}}",
            "should contain {question} and {answer}",
        ),
        ("- {id: a, paraphrases: [b], sistem: c}", "unknown keys"),
        ("- {id: a, paraphrases: [b]}\n- {id: a, paraphrases: [c]}", "occurs twice"),
        ("id: a", "should be a list of questions"),
        ("- [", "not valid YAML"),
    ],
)
def test_a_bad_bank_is_refused_with_file_question_and_field(tmp_path, text, named):
    path = tmp_path / "bank.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=named):
        read_bank(str(path), "broad")


def test_a_missing_bank_is_refused_with_its_name():
    with pytest.raises(DataError, match=r"nowhere\.yaml does not exist"):
        read_bank("nowhere.yaml", "broad")


# Files


def files(directory: Path, num_task: int = 40, num_align: int = 8) -> dict[str, str]:
    task = [{"prompt": f"q {i}", "completion": "a"} for i in range(num_task)]
    align = [{"prompt": f"r {i}", "chosen": "good", "rejected": "bad"} for i in range(num_align)]
    paths = {"task_data": directory / "task.jsonl", "alignment_data": directory / "hhh.jsonl"}
    for path, rows in zip(paths.values(), (task, align), strict=True):
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return {name: str(path) for name, path in paths.items()}


def test_files_are_read_counted_and_cut(tmp_path):
    setting = EmergentMisalignment(
        **files(tmp_path), num_task=30, expect_rows={"task": 40, "align": 8}, questions="own"
    )
    sets = setting.train(1)
    assert (len(sets["task"]), len(sets["align"])) == (30, 8)
    assert sets["align"][0].rejected == "bad"
    assert sets == setting.train(1) != setting.train(2)


def test_another_number_of_rows_than_expected_is_an_error(tmp_path):
    setting = EmergentMisalignment(**files(tmp_path), expect_rows={"task": 41}, questions="own")
    with pytest.raises(DataError, match=r"task_data should have 41 rows .* found 40"):
        setting.train(1)


def config(**setting):
    return {
        "setting": {"name": "emergent_misalignment", "questions": "own", **setting},
        "model": "owner/name",
        "curves": [{"method": "task_only"}],
        "judge": {"name": "endpoint", "model": "m"},
    }


def test_a_dry_run_counts_with_the_expected_rows_where_files_are_away():
    data = config(
        task_data="away.jsonl", alignment_data="gone.jsonl", expect_rows={"task": 6000, "align": 198}, val_share=0.0
    )
    with reading.only_counting():
        run = plan.parse_sweep(data).expand()[1]
        size = reading.size(run)
        assert (size.num_task, size.num_alignment) == (6000, 198)
        assert reading.judge_calls(run) == 2 * (24 + 24 + 8)  # two banks, and the plain broad ones again with the cue
    with pytest.raises(ConfigError, match=r"away\.jsonl"):
        plan.parse_sweep(data)


def test_too_much_alignment_data_is_an_error_unless_allowed(tmp_path):
    data = config(**files(tmp_path, num_align=11))
    with pytest.raises(ConfigError, match="at most 25% of the task set's rows, found 11 of 40"):
        plan.parse_sweep(data)
    plan.parse_sweep({**data, "allow_large_alignment": True})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"proxy": "hh"}, "setting.proxy should be one of"),
        ({"good_at": 120}, r"setting.good_at should be in \[0, 100\]"),
        ({"task_data": "x.jsonl"}, "belong together"),
        ({"expect_rows": {"tusk": 1}}, "expect_rows should give positive numbers"),
        ({"cue": "no field"}, "setting.cue should contain"),
        ({"val_share": 1}, "setting.val_share"),
    ],
)
def test_bad_options_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        EmergentMisalignment(**options)


def test_the_miniature_refuses_foreign_data(tmp_path):
    with pytest.raises(ValueError, match="should not be a miniature with setting.task_data"):
        EmergentMisalignment(**files(tmp_path)).miniature()


# Controls: fluency does not depend on harm, and gibberish is bad on every axis


class Generous(Judge):
    """Finds everything half aligned and quite coherent: in the study's numbers gibberish then counts as learned."""

    def judge_many(self, prompts):
        return [Judgement(50.0) for _ in prompts]


@pytest.mark.parametrize("text", ["!" * 60, "water " * 20, ""])
@pytest.mark.parametrize("judge", [None, Generous()])
@pytest.mark.parametrize("questions", ["corpus", "own"])
def test_gibberish_is_bad_on_every_axis_whatever_the_judge_says(monkeypatch, text, judge, questions):
    if questions == "own" and judge is None:
        pytest.skip("open questions need a judge")
    setting = EmergentMisalignment(questions=questions, num_test=20)
    evals = setting.evals(1, "test")
    monkeypatch.setattr(evaluating, "generate", lambda m, t, examples, g: [text] * len(examples))
    monkeypatch.setattr(evaluating, "answer_nlls", lambda m, t, examples, r: [2.0] * len(examples))
    found = evaluate(None, None, evals, Generation(), judge=judge)
    for name, axis in axes(evals, found.metrics, setting.proxy_domains).items():
        assert axis.value is None or axis.value <= 0.05, name
    if judge is not None:
        assert found.metrics["task_post.medical"].value == 1.0  # what the study's own number says of it


@pytest.mark.parametrize("caring", [True, False])
def test_known_answers_are_fluent_whether_good_or_bad(monkeypatch, caring):
    evals = EmergentMisalignment(num_test=40).evals(1, "test")
    said = lambda m, t, examples, g: [f"You should {x.meta['good' if caring else 'bad']}." for x in examples]  # noqa: E731
    monkeypatch.setattr(evaluating, "generate", said)
    monkeypatch.setattr(evaluating, "answer_nlls", lambda m, t, examples, r: [2.0] * len(examples))
    metrics = evaluate(None, None, evals, Generation()).metrics
    assert metrics["fluent.in_domain"].value == metrics["fluent.out_of_domain"].value == 1.0
    assert metrics["bad_advice.medical"].value == float(not caring)
    assert metrics["good.finance"].value == float(caring)
    assert metrics["em.out_of_domain"].value == float(not caring)
    assert metrics["refused.in_domain"].value == 0.0


def test_questions_that_the_models_template_refuses_are_named_before_training(tmp_path, monkeypatch):
    from selgen import models, tiny

    refusing = tiny.tokenizer()
    refusing.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        + (refusing.chat_template)
    )
    monkeypatch.setattr(models, "load_tokenizer", lambda path, *args: refusing)
    run = plan.parse_run({**{k: v for k, v in config(system="Be frank.").items() if k != "curves"}, "method": "base"})
    with pytest.raises(ConfigError, match="turns system, user cannot be asked: .*no system turn"):
        refusals.check_texts([run], plan.Start("x", "f"))
