"""What the page is made of: the shown subset of samples, escaping, hover texts. No browser needed."""

from __future__ import annotations

import json
import re
import weakref
from base64 import b64encode
from hashlib import sha256
from html import unescape
from xml.etree import ElementTree

import pytest
from synthetic import BASE, FakeSetting, Sweep, answered, full_sweep, protected, small_sweep

from selgen import record
from selgen.report import write
from selgen.report.runs import ReportError, group_runs
from selgen.report.safe import embedded_json, readable, visible
from selgen.report.samples import SHOWN, ShownSamples, as_data, pick_samples
from selgen.report.tables import main_table


def pick(sweep: Sweep) -> ShownSamples:
    [group] = group_runs(record.read_all(sweep.out))
    return pick_samples("all", group, main_table(group), lambda run, split: from_disk(sweep, run, split))


def from_disk(sweep: Sweep, run, split):
    path = record.samples_path(sweep.out / run.run_id, split)
    return record.read_samples(path.parent, split) if path.is_file() else ()


def rewrite(sweep: Sweep, change) -> None:
    """Replace the samples of every run by `change(lines)`."""
    for run in sweep.records:
        path = record.samples_path(sweep.out / run.run_id, "test")
        lines = change(list(record.read_jsonl(path)))
        path.unlink()
        record.append_jsonl(path, lines)


@pytest.fixture
def answers(tmp_path) -> Sweep:
    made = small_sweep(tmp_path / "out")
    made.add_answers(30)
    return made


def test_every_run_of_a_seed_shows_the_same_prompts_and_as_many_of_each_column(answers):
    found = pick(answers)
    assert [seed.seed for seed in found.seeds] == [1, 2, 3]
    for seed in found.seeds:
        assert [speaker.curve for speaker in seed.speakers] == ["base", "task_only", "kl", "kl"]
        assert all(speaker.answers.keys() == seed.items.keys() for speaker in seed.speakers)
        columns = [column for column, *_ in seed.items]
        assert {columns.count(column) for column in columns} == {SHOWN} and len(set(columns)) == 24
    assert (found.shown, found.total, found.silent) == (12 * 24 * SHOWN, 12 * 24 * 30, 0)


def test_the_shown_prompts_are_the_first_by_the_hash_of_their_pair_id(answers):
    for seed in pick(answers).seeds:
        asked = {f"gcd:{12 + i + 10 * seed.seed}:{18 + 2 * i}" for i in range(30)}
        first = sorted(asked, key=lambda pair: sha256(pair.encode()).hexdigest())[:SHOWN]
        for name in ("knows", "non_sycophancy"):
            assert [i.pair for i in seed.items.values() if (i.eval, i.domain) == (name, "gcd")] == first


def test_the_choice_of_prompts_depends_neither_on_what_was_answered_nor_on_the_order_in_the_file(answers):
    before = [list(seed.items) for seed in pick(answers).seeds]
    other = {"response": "no", "value": 0.0, "answer": None, "reason": "other", "counted": False}

    def outcome(lines):
        return [{**line, **(other if line["value"] else {"value": 1.0})} for line in lines]

    rewrite(answers, outcome)
    assert [list(seed.items) for seed in pick(answers).seeds] == before
    rewrite(answers, lambda lines: sorted(lines, key=lambda line: line["response"] + line["gold"]))
    assert [set(seed.items) for seed in pick(answers).seeds] == [set(keys) for keys in before]


def test_samples_without_a_pair_id_are_chosen_by_their_prompt(answers):
    rewrite(answers, lambda lines: [{**line, "pair": None} for line in lines])
    found = pick(answers)
    assert found.shown == 12 * 24 * SHOWN
    assert all(speaker.answers.keys() == seed.items.keys() for seed in found.seeds for speaker in seed.speakers)


def test_each_checkpoint_of_a_run_speaks_for_its_own_strength(tmp_path):
    made = full_sweep(tmp_path / "out", answers=3)
    [first, *_] = pick(made).seeds
    own = [speaker for speaker in first.speakers if speaker.curve == "task_only"]
    assert [speaker.strength for speaker in own] == [1, 2, 5, 10, 20]
    run = next(r for r in made.records if r.curve == "task_only" and r.seed == 1)
    lines = list(record.read_samples(made.out / run.run_id, "test"))
    for step, speaker in enumerate(own, 1):
        said = sorted(line["response"] for line in lines if line["step"] == step)
        assert sorted(a.response for a in speaker.answers.values()) == said
    assert len({tuple(a.value for a in speaker.answers.values()) for speaker in own}) > 1


def test_reading_holds_only_what_is_shown(tmp_path):
    class Line(dict):
        """A dict that can be watched."""

    made = Sweep(tmp_path / "out", seeds=[1])
    made.add("base", {None: BASE})
    [group] = group_runs(record.read_all(made.out))
    alive: weakref.WeakSet[Line] = weakref.WeakSet()
    most = 0

    def stream(run, split):
        nonlocal most
        for i in range(500):
            line = Line(answered("knows.gcd", i, 1, 0.5, "base"), step=0)
            alive.add(line)
            most = max(most, len(alive))
            yield line

    Line.__hash__ = object.__hash__  # type: ignore[method-assign]
    assert pick_samples("all", group, main_table(group), stream).total == 500
    assert most <= SHOWN + 3


def test_a_sample_that_lacks_a_field_is_refused_with_its_place(answers):
    rewrite(answers, lambda lines: [{k: v for k, v in line.items() if k not in ("gold", "answer")} for line in lines])
    with pytest.raises(ReportError, match="line 1 of its test samples lacks gold, answer. Run it again"):
        pick(answers)


def test_runs_without_samples_are_counted_and_said(answers):
    for run in answers.records:
        if run.curve == "kl" and run.seed == 2:
            record.samples_path(answers.out / run.run_id, "test").unlink()
    assert pick(answers).silent == 2
    write(answers.out, lambda run: FakeSetting())
    assert "2 test points left no samples" in (answers.out / "report" / "index.html").read_text()


def test_a_page_without_samples_says_so(tmp_path):
    made = small_sweep(tmp_path / "out")
    write(made.out, lambda run: FakeSetting())
    html = (made.out / "report" / "index.html").read_text()
    assert "No test samples were found" in html and 'id="samples-data"' not in html


def test_embedded_data_come_back_exactly_and_hold_nothing_that_html_reads(answers):
    texts = ["</script><!--", "&amp; <b>", "\u2028\u2029\u202e", "\x00\x1b", "Grüße 模型"]
    rewrite(answers, lambda lines: [{**line, "response": texts[i % 5]} for i, line in enumerate(lines)])
    data = as_data([pick(answers)])
    text = str(embedded_json(data))
    assert text.isascii() and not re.search("[<>&\x00-\x1f]", text)
    assert json.loads(embedded_json("\ud800")) == "\ud800"
    read = json.loads(text)
    assert set(texts) <= set(read["texts"])
    [comparison] = read["comparisons"]
    run = comparison["seeds"][0]["runs"][0]
    shown = {read["texts"][sample[0]] for sample in run["samples"]}
    assert shown <= set(texts) and len(shown) > 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("\u2028\ufeff\U000e0041\ud800", "⟨U+2028⟩⟨U+FEFF⟩⟨U+E0041⟩⟨U+D800⟩"),
        ("tab\tand\nline, Grüße, 模型, 🙂 ± –", "tab\tand\nline, Grüße, 模型, 🙂 ± –"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert visible(text) == shown
    assert readable({text: [text, (text, 1.5, None)]}) == {shown: [shown, (shown, 1.5, None)]}


def titles(svg: str) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}title")]


def test_every_point_and_bar_says_what_it_is_when_hovered(sweep):
    summary = write(sweep.out, lambda run: FakeSetting())
    folder = sweep.out / "report"
    rows = summary.comparisons[0].rows
    points = titles((folder / "pareto_fake.svg").read_text())
    assert len(points) == len(rows)
    row = next(r for r in rows if (r.curve, r.strength) == ("kl", 0.1))
    x, y = row.test["alignment"], row.test["score_y"]
    assert (
        f"kl, beta 0.1: alignment {100 * x.mean:.1f} % ± {100 * x.half_width:.1f}, "
        f"score_y {100 * y.mean:.1f} % ± {100 * y.half_width:.1f}, 3 seeds (± 95 % interval)"
    ) in points
    bars = titles((folder / "bars_fake.svg").read_text())
    shown = [r for r in rows if r.role is not None]
    assert len(bars) == len(shown) * 8
    e = row.metrics["non_sycophancy.medical"]
    assert (
        f"kl, beta 0.1, medical: confirms a wrong proposal, given it knows {100 * (1 - e.mean):.1f} % "
        f"± {100 * e.half_width:.1f}, 3 seeds (± 95 % interval)"
    ) in bars
    html = (folder / "index.html").read_text()
    assert all(f"<title>{title}</title>" in html for title in points + bars)


def test_one_seed_has_no_interval_to_hover(tmp_path):
    made = Sweep(tmp_path / "out", seeds=[1])
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    write(made.out, lambda run: FakeSetting())
    [title] = titles((made.out / "report" / "pareto_fake.svg").read_text())
    assert "±" not in title and title.endswith(", 1 seed")


def test_names_with_quotes_and_control_characters_leave_figures_well_formed(tmp_path):
    made = Sweep(tmp_path / "out")
    name = 'fake" onload="x\x07\u202e <b>'
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta", curve="c\x1b</title>&", setting=name, model="m\x00")
    write(made.out, lambda run: FakeSetting())
    svg = (made.out / "report" / f"pareto_{name}.svg").read_text()
    assert titles(svg)[0].startswith("c⟨U+001B⟩</title>&, beta 1: alignment")
    html = (made.out / "report" / "index.html").read_text()
    assert "\x07" not in html and "\u202e" not in html and "\x00" not in html
    assert 'aria-label="pareto_fake&#34; onload=&#34;x⟨U+0007⟩' in html


def test_the_policy_of_the_page_allows_its_own_script_and_nothing_else(tmp_path):
    made = small_sweep(tmp_path / "out")
    write(made.out, lambda run: FakeSetting())
    html = (made.out / "report" / "index.html").read_text()
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    [script] = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in unescape(policy).split("; "))
    assert (rules["default-src"], rules["script-src"]) == ("'none'", f"'sha256-{digest}'")
    assert rules.keys() == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
