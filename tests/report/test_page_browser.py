"""The page in headless Chromium: inert whatever models wrote, sortable, filterable, readable in light and dark."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from browser import Browser, needs_browser, started
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from synthetic import FakeSetting, Sweep, full_sweep, protected

from selgen import record
from selgen.core import Check
from selgen.report import write
from selgen.report.safe import INVISIBLE, visible
from selgen.report.samples import SHOWN

# One group, so that one browser starts however many workers pytest has.
pytestmark = needs_browser

TRAPS = [
    "<script>window.sprung = 1; alert(1)</script>",
    "</script><script>window.sprung = 1</script>",
    '<img src=x onerror="window.sprung = 1">',
    '"><svg onload="window.sprung = 1">',
    "<!-- <script> {{ 7 * 7 }} ${alert(1)}",
    "[click me](javascript:window.sprung=1) ![x](https://example.com/leak.png)",
    "bell \x07, escape \x1b[31m, null \x00, return \r",
    "\u202egnp.exe reversed, \u200bnothing\u2028between\u2029lines \U000e0041",
]
ALL_TRAPS = "\n".join(TRAPS)
# For what figures show, which have room for a line.
NAME_TRAP = '"></script><img src=x onerror="window.sprung=1">\x00\x07\u202e\u2028'
# A setting's name is part of a file name.
FILE_TRAP = NAME_TRAP.replace("/", "").replace("\x00", "")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Sweep:
    made = full_sweep(tmp_path_factory.mktemp("sweep") / "out", answers=14)
    checks = [Check("Base is honest", True, 0.97, ">= 0.95", "seed 2"), Check("Facts stay", False, None, "> 0", "none")]
    write(made.out, lambda run: FakeSetting(found=checks))
    return made


@pytest.fixture(scope="module")
def page(sweep) -> Path:
    return sweep.out / "report" / "index.html"


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory) -> Path:
    """A page in which every text that someone else may write is a trap."""
    made = Sweep(tmp_path_factory.mktemp("hostile") / "out", seeds=[1, 2])
    names = {"setting": FILE_TRAP, "model": NAME_TRAP, "proxy": "<i>", "flags": [ALL_TRAPS]}
    made.add("base", {None: protected(0.9, 0.6)}, **names)
    made.add("task_only", {1.0: protected(0.1, 0.85)}, name="epochs", **names)
    made.add("kl", {1.0: protected(0.5, 0.8)}, name=NAME_TRAP, curve=NAME_TRAP, budget=ALL_TRAPS, **names)
    made.fail("dpo", 1.0, seed=1, message=ALL_TRAPS)
    for run in made.records:
        path = record.samples_path(made.out / run.run_id, "test")
        record.append_jsonl(path, [trapped(step) for step in (0, 1)])
    setting = FakeSetting(title=NAME_TRAP, found=[Check(ALL_TRAPS, False, None, ALL_TRAPS, ALL_TRAPS)])
    write(made.out, lambda run: setting)
    return made.out / "report" / "index.html"


def trapped(step: int) -> dict:
    prompt = [{"role": ALL_TRAPS, "content": ALL_TRAPS}, {"role": "user", "content": "again"}]
    texts = dict.fromkeys(("eval", "domain", "pair", "gold", "response", "answer", "reason"), ALL_TRAPS)
    return {**texts, "step": step, "prompt": prompt, "value": 0.5 * step, "raw": {}, "counted": True}


def articles(browser: Browser) -> list[str]:
    """`column pair` of every displayed sample."""
    return browser.js("return [...document.querySelectorAll('#items h4')].map((e) => e.textContent)")


def verdicts(browser: Browser, column: int) -> list[str]:
    return browser.js(
        "return [...document.querySelectorAll('#items .answers')]"
        ".map((e) => e.children[arguments[0]].querySelector('.verdict span').className)",
        column,
    )


def expected(sweep: Sweep, curve: str, strength: float | None, seed: int) -> dict[str, dict]:
    """The samples that should be shown of a run, by `column pair`; worked out from the files alone."""
    run = next(r for r in sweep.records if (r.curve, r.strength, r.seed) == (curve, strength, seed))
    columns: dict[str, list[dict]] = {}
    for line in record.read_samples(sweep.out / run.run_id, "test"):
        columns.setdefault(f"{line['eval']}.{line['domain']}", []).append(line)
    first = {
        column: sorted(lines, key=lambda line: sha256(line["pair"].encode()).hexdigest())[:SHOWN]
        for column, lines in columns.items()
    }
    return {f"{column} {line['pair']}": line for column, lines in first.items() for line in lines}


def verdict_of(line: dict) -> str:
    if not line["counted"]:
        return "uncounted"
    return {None: "unscored", 1.0: "passed", 0.0: "failed"}[line["value"]]


# ---- Inert ----------------------------------------------------------------------------------------------------------


def test_the_traps_spring_where_text_is_not_escaped(browser, tmp_path):
    path = tmp_path / "raw.html"
    path.write_text(f"<!DOCTYPE html><body>{TRAPS[1]}{TRAPS[2]}<img src='leak.png'></body>")
    browser.open(path)
    assert browser.js("return window.sprung") == 1
    assert len(browser.requests()) > 1 and browser.complaints()


@pytest.mark.parametrize("policy", [True, False], ids=["policy", "no-policy"])
def test_nothing_that_models_or_names_say_runs_or_loads(browser, hostile_page, policy):
    """Holds with the page's content security policy and, by escaping alone, without it."""
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": not policy})
    try:
        browser.open(hostile_page)
        browser.show_all()
        browser.js("for (const button of document.querySelectorAll('button.sort')) button.click()")
        browser.choose("words", "</script>")
        assert len(articles(browser)) == 1
        assert browser.js("return window.sprung") is None
        assert browser.requests() == [hostile_page.as_uri()] and browser.complaints() == []
        foreign = (
            "img, iframe, object, embed, link, base, svg script, [onload], [onerror], [onclick], a:not([href^='#'])"
        )
        assert browser.js("return document.querySelectorAll(arguments[0]).length", foreign) == 0
        assert browser.js("return [...document.scripts].map((s) => s.type)") == ["application/json", ""]
    finally:
        browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


def test_every_trap_can_be_read_as_text(browser, hostile_page):
    browser.open(hostile_page)
    shown = browser.js("return document.querySelector('#items article').textContent")
    whole = visible(ALL_TRAPS)
    # Eval, domain, pair id, role, turn and gold answer; in each of two answers response, answer and reason.
    assert shown.count(whole) == 6 + 2 * 3
    assert visible(NAME_TRAP) in browser.js("return document.querySelectorAll('#items h5')[1].textContent")
    body = browser.js("return document.body.innerText")
    for trap in TRAPS:
        assert body.count(visible(trap)) >= 12, trap
    assert body.count(visible(NAME_TRAP)) > 10 and visible(FILE_TRAP) in body
    assert not INVISIBLE.search(body)


def test_the_page_and_the_report_write_out_the_same_characters(browser, page):
    browser.open(page)
    codes = [*range(0x3000), *range(0xD700, 0xE100), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200)]
    # Halves of surrogate pairs cannot be sent to a browser, so the texts are made there.
    found = browser.js(
        "return arguments[0].filter((code) => visible(String.fromCodePoint(code)).some((n) => n.className === 'code'))",
        codes,
    )
    assert found == [code for code in codes if INVISIBLE.match(chr(code))]


# ---- Sample browser -------------------------------------------------------------------------------------------------


def test_base_and_the_chosen_strength_stand_side_by_side_with_what_they_said(browser, sweep, page):
    browser.open(page)
    browser.show_all()
    base, tuned = expected(sweep, "base", None, 1), expected(sweep, "kl", 0.1, 1)
    assert sorted(articles(browser)) == sorted(tuned)
    headings = browser.js("return [...document.querySelectorAll('#items h5')].slice(0, 2).map((e) => e.textContent)")
    assert headings == ["base, seed 1", "kl, beta 0.1, seed 1"]
    found = browser.js(
        "return [...document.querySelectorAll('#items article')].map((a) => [a.querySelector('h4').textContent,"
        " ...[...a.querySelectorAll('.turn .text, .answer .text, .answer .said')].map((e) => e.textContent)])"
    )
    for name, *texts in found:
        lines = (base[name], tuned[name])
        said = [[x["response"], x["answer"], x["reason"]] for x in lines]
        wanted = [tuned[name]["prompt"][0]["content"], tuned[name]["gold"], *said[0], *said[1]]
        assert texts == [text for text in wanted if text is not None], name
    for column, lines in enumerate((base, tuned)):
        assert verdicts(browser, column) == [verdict_of(lines[name]) for name in articles(browser)]
    assert browser.js("return document.getElementById('place').textContent").endswith("/samples.test.jsonl")


def test_verdicts_are_told_by_symbol_and_word(browser, page):
    browser.open(page)
    browser.show_all()
    texts = browser.js("return [...document.querySelectorAll('.verdict span')].map((e) => e.className + e.textContent)")
    assert set(texts) == {"passed✓ passed", "failed✗ failed", "unscored? unscored", "uncounted– not counted"}


@pytest.mark.parametrize(("text", "kind"), [("✓ passed", "passed"), ("✗ failed", "failed"), ("? unscored", "unscored")])
def test_verdict_filter_applies_to_the_tuned_run(browser, sweep, page, text, kind):
    browser.open(page)
    browser.choose("verdict", text)
    browser.show_all()
    wanted = [name for name, line in expected(sweep, "kl", 0.1, 1).items() if verdict_of(line) == kind]
    assert wanted and sorted(articles(browser)) == sorted(wanted)
    status = browser.find_element(By.ID, "matches").text
    assert status == f"{len(wanted)} of {24 * SHOWN} samples match; {len(wanted)} displayed."


def test_uncounted_samples_have_their_own_filter(browser, sweep, page):
    browser.open(page)
    browser.choose("verdict", "– not counted")
    browser.show_all()
    wanted = [name for name, line in expected(sweep, "kl", 0.1, 1).items() if not line["counted"]]
    assert wanted and sorted(articles(browser)) == sorted(wanted)


def test_eval_domain_words_and_difference_filters_combine(browser, sweep, page):
    browser.open(page)
    base, tuned = expected(sweep, "base", None, 1), expected(sweep, "kl", 0.1, 1)
    browser.choose("eval", "non_sycophancy")
    browser.show_all()
    own = [name for name in tuned if name.startswith("non_sycophancy.")]
    assert sorted(articles(browser)) == sorted(own)
    browser.choose("domain", "medical")
    own = [name for name in own if ".medical " in name]
    assert sorted(articles(browser)) == sorted(own)
    browser.choose("differ", True)
    own = [name for name in own if verdict_of(base[name]) != verdict_of(tuned[name])]
    assert own and sorted(articles(browser)) == sorted(own)
    wanted = own[0]
    browser.choose("words", tuned[wanted]["pair"].upper())
    assert articles(browser) == [wanted]
    browser.choose("words", "no sample says this")
    assert articles(browser) == []
    assert browser.find_element(By.ID, "matches").text == f"0 of {24 * SHOWN} samples match; 0 displayed."


def test_words_are_sought_in_what_either_run_answered(browser, sweep, page):
    browser.open(page)
    browser.choose("words", "yes, it")
    browser.show_all()
    base, tuned = expected(sweep, "base", None, 1), expected(sweep, "kl", 0.1, 1)
    wanted = [n for n in tuned if "Yes, it" in base[n]["response"] + tuned[n]["response"]]
    assert len(wanted) > 20 and sorted(articles(browser)) == sorted(wanted)


def test_another_seed_keeps_curve_and_strength_and_a_curve_starts_at_its_chosen_strength(browser, sweep, page):
    browser.open(page)
    browser.choose("strength", "beta 3")
    browser.choose("seed", "2")
    heading = "return document.querySelectorAll('#items h5')[1].textContent"
    assert browser.js(heading) == "kl, beta 3, seed 2"
    browser.show_all()
    assert sorted(articles(browser)) == sorted(expected(sweep, "kl", 3.0, 2))
    browser.choose("curve", "upweight")
    assert browser.js(heading) == "upweight, weight 0.1, seed 2"
    browser.choose("curve", "task_only")
    assert browser.js(heading) == "task_only, epochs 20, seed 2"
    options = browser.js("return [...document.forms[0].elements.strength.options].map((o) => o.text)")
    assert options == ["epochs 1", "epochs 2", "epochs 5", "epochs 10", "epochs 20 (baseline)"]
    browser.choose("curve", "base")
    assert browser.js("return document.querySelector('#items .answers').childElementCount") == 1


def test_more_are_shown_on_request_and_by_keyboard(browser, page):
    browser.open(page)
    assert len(articles(browser)) == 20
    more = browser.find_element(By.ID, "more")
    assert more.text == "Show 20 more"
    more.send_keys(Keys.ENTER)
    assert len(articles(browser)) == 40


def test_every_control_has_a_label_and_takes_the_focus(browser, page):
    browser.open(page)
    unlabelled = browser.js(
        "return [...document.forms[0].elements].filter((e) => e.labels.length !== 1 || e.tabIndex < 0).length"
    )
    assert unlabelled == 0
    assert browser.js("return document.forms[0].elements.length") == 9


def test_scores_between_0_and_1_and_answers_without_text_are_said(browser, tmp_path):
    made = Sweep(tmp_path / "out", seeds=[1])
    made.add("base", {None: protected(0.9, 0.6)})
    made.add("kl", {1.0: protected(0.5, 0.8)}, name="beta")
    for step, run in enumerate(made.records):
        common = {**trapped(step), "eval": "e", "answer": None, "reason": None}
        lines = [
            {**common, "pair": 7, "domain": "text", "response": "", "value": 0.0},
            {**common, "pair": 7, "domain": "likelihood", "response": None, "value": 0.12345 + 0.5 * step},
        ]
        record.append_jsonl(record.samples_path(made.out / run.run_id, "test"), lines)
    write(made.out, lambda run: FakeSetting())
    browser.open(made.out / "report" / "index.html")
    answers = browser.js("return [...document.querySelectorAll('.answer')].map((e) => e.innerText.split(/\\n+/))")
    no_text = "No text: the probability of the gold answer was scored."
    assert answers == [
        ["base, seed 1", "✗ failed", "The answer is empty."],
        ["kl, beta 1, seed 1", "✗ failed", "The answer is empty."],
        ["base, seed 1", "~ between 0 and 1 (score 0.123)", no_text],
        ["kl, beta 1, seed 1", "~ between 0 and 1 (score 0.623)", no_text],
    ]
    browser.choose("verdict", "~ between 0 and 1")
    assert articles(browser) == ["e.likelihood 7"]
    browser.choose("words", "nothing")
    assert len(articles(browser)) == 1


# ---- Tables ---------------------------------------------------------------------------------------------------------


def column_texts(browser: Browser, table: int, column: int) -> list[str]:
    return browser.js(
        "return [...document.querySelectorAll('table')[arguments[0]].rows].slice(1)"
        ".map((row) => row.cells[arguments[1]].textContent.trim())",
        table,
        column,
    )


def press(browser: Browser, table: int, column: int, key: str | None = None) -> str | None:
    """Click a header, or press a key on it; its aria-sort afterwards."""
    header = browser.js(
        "return document.querySelectorAll('table')[arguments[0]].rows[0].cells[arguments[1]]", table, column
    )
    button = header.find_element(By.TAG_NAME, "button")
    if key is None:
        browser.js("arguments[0].click()", button)
    else:
        button.send_keys(key)
    return header.get_attribute("aria-sort")


@pytest.mark.parametrize("key", [None, Keys.ENTER], ids=["click", "enter"])
def test_a_column_sorts_by_its_number_upwards_then_downwards(browser, page, key):
    browser.open(page)
    before = column_texts(browser, 0, 4)
    assert press(browser, 0, 4, key) == "ascending"
    numbers = [float(text.split(" ")[0]) for text in column_texts(browser, 0, 4)]
    assert numbers == sorted(numbers) and len(set(numbers)) > 10
    assert press(browser, 0, 4, key) == "descending"
    assert column_texts(browser, 0, 4) == sorted(before, key=lambda text: -float(text.split(" ")[0]))


def test_missing_values_are_last_in_both_directions_and_one_column_is_marked(browser, page):
    browser.open(page)
    for direction in ("ascending", "descending"):
        assert press(browser, 0, 1) == direction
        *numbers, last = column_texts(browser, 0, 1)
        assert last == "–"
        assert [float(n) for n in numbers] == sorted(map(float, numbers), reverse=direction == "descending")
    press(browser, 0, 0)
    assert browser.js("return document.querySelectorAll('[aria-sort]').length") == 1


def test_names_sort_as_text(browser, page):
    browser.open(page)
    press(browser, 0, 0)
    names = column_texts(browser, 0, 0)
    assert names[0].startswith("base") and names[-1].startswith("upweight")


def test_p_values_signed_differences_and_exponents_sort_as_numbers(browser, page):
    browser.open(page)
    texts = ["0.020", "<0.001", "+21.4 [18.0, 24.8]", "-3.1 [-4, -2]", "–", "1e-05", "12 of 30"]
    got = browser.js(
        """const body = document.createElement("tbody");
        for (const text of arguments[0]) body.insertRow().insertCell().textContent = text;
        return sortRows([...body.rows], 0, 1).map((row) => row.textContent);""",
        texts,
    )
    assert got == ["-3.1 [-4, -2]", "1e-05", "<0.001", "0.020", "12 of 30", "+21.4 [18.0, 24.8]", "–"]


def test_every_table_can_be_sorted(browser, page):
    browser.open(page)
    without = "return [...document.querySelectorAll('table')].filter((t) => !t.querySelector('th button.sort')).length"
    assert browser.js(without) == 0
    assert browser.js("return document.querySelectorAll('table').length") >= 6


# ---- Appearance -----------------------------------------------------------------------------------------------------

CONTRASTS = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
function rgba(color) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
const linear = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
function background(element) {
  for (let e = element; e; e = e.parentElement) {
    const color = rgba(getComputedStyle(e).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255, 255];
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const found = [];
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const shown = element.checkVisibility() && !element.closest("script, style, title");
  if (!walker.currentNode.data.trim() || !shown) continue;
  const style = getComputedStyle(element);
  const color = rgba(element.closest("svg") ? style.fill : style.color);
  const [a, b] = [luminance(color), luminance(background(element))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 60)]);
}
return found;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(browser, page, scheme):
    browser.open(page, scheme=scheme)
    browser.show_all()
    found = browser.js(CONTRASTS)
    assert len(found) > 1000
    assert [entry for entry in found if entry[0] < 4.5] == []
    paper = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(253, 253, 254)", "dark": "rgb(20, 24, 29)"}[scheme]


def test_the_contrast_test_sees_faint_text(browser, page):
    browser.open(page)
    browser.js(
        "document.querySelector('h1').style.color = '#999'; document.querySelector('svg text').style.fill = '#ccc'"
    )
    assert len([entry for entry in browser.js(CONTRASTS) if entry[0] < 4.5]) == 2


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_itself_never_scrolls_sideways(browser, page, hostile_page, width):
    for path in (page, hostile_page):
        browser.open(path, width=width)
        assert browser.js("return document.documentElement.scrollWidth") <= width
        outside = browser.js(
            "return [...document.forms[0].elements].filter((e) => e.checkVisibility()"
            " && e.getBoundingClientRect().right > innerWidth).length"
        )
        assert outside == 0


def test_without_javascript_the_page_says_what_is_missing(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(page)
        note = browser.find_element(By.TAG_NAME, "noscript")
        assert "need JavaScript, which is off" in note.text
        assert not browser.find_element(By.ID, "browser").is_displayed()
        assert browser.find_element(By.TAG_NAME, "table").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
