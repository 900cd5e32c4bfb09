"use strict";

// Texts of models, users and settings reach the page through text nodes alone: nothing in them is ever read as HTML.

const PAGE = 20;
// The same list as safe.INVISIBLE: characters that hide, reorder or break what stands around them.
const INVISIBLE =
  /([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb\u{d800}-\u{dfff}\u{e0000}-\u{e007f}])/u;
const VERDICTS = {
  passed: ["✓", "passed"],
  failed: ["✗", "failed"],
  between: ["~", "between 0 and 1"],
  unscored: ["?", "unscored"],
  uncounted: ["–", "not counted"],
};

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Nodes that show a text with its invisible characters written out as ⟨U+202E⟩. */
function visible(text) {
  return text.split(INVISIBLE).map((part, i) => {
    if (i % 2 === 0) return document.createTextNode(part);
    const code = part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return make("span", "code", `⟨U+${code}⟩`);
  });
}

const plain = (text) => visible(text).map((node) => node.textContent).join("");

// ---- Tables -------------------------------------------------------------------------------------------------------

const MISSING = new Set(["", "–"]);
const NUMBER = /^[<>]?\s*[+\-−]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?/i;

function numberIn(text) {
  const found = text.match(NUMBER);
  return found ? Number(found[0].replace("−", "-").replace(/[<>\s]/g, "")) : null;
}

function cellText(row, column) {
  return row.cells[column] ? row.cells[column].textContent.trim() : "";
}

/** Orders rows by the number that leads each cell, or by text if a cell has none; missing values stay last. */
function sortRows(rows, column, direction) {
  const keyed = rows.map((row) => ({ row, text: cellText(row, column) }));
  const present = keyed.filter((entry) => !MISSING.has(entry.text));
  const missing = keyed.filter((entry) => MISSING.has(entry.text));
  const numeric = present.every((entry) => numberIn(entry.text) !== null);
  const compare = numeric
    ? (a, b) => numberIn(a.text) - numberIn(b.text)
    : (a, b) => a.text.localeCompare(b.text, "en", { numeric: true });
  present.sort((a, b) => direction * compare(a, b));
  return [...present, ...missing].map((entry) => entry.row);
}

function makeSortable(table) {
  const head = table.rows[0];
  if (!head || ![...head.cells].every((cell) => cell.tagName === "TH")) return;
  for (const [column, cell] of [...head.cells].entries()) {
    const button = make("button", "sort", ...cell.childNodes);
    button.type = "button";
    button.title = "Sort by this column";
    cell.append(button);
    button.addEventListener("click", () => {
      const ascending = cell.getAttribute("aria-sort") !== "ascending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.rows].slice(1);
      rows[0]?.parentNode.append(...sortRows(rows, column, ascending ? 1 : -1));
    });
  }
}

// ---- Samples ------------------------------------------------------------------------------------------------------

function verdictOf(sample) {
  if (!sample.counted) return "uncounted";
  return scoredAs(sample.value);
}

function scoredAs(value) {
  if (value === null) return "unscored";
  if (value === 1) return "passed";
  return value === 0 ? "failed" : "between";
}

function labelled(heading, text, className) {
  return make("p", className, make("span", "label", heading), " ", make("span", "said", ...visible(text)));
}

function verdictLine(sample) {
  const kind = verdictOf(sample);
  const [symbol, word] = VERDICTS[kind];
  const line = make("p", "verdict", make("span", kind, `${symbol} ${word}`));
  if (kind === "between") line.append(` (score ${Number(sample.value.toPrecision(3))})`);
  if (kind === "uncounted") {
    line.append(` (the eval's condition does not hold here; alone: ${VERDICTS[scoredAs(sample.value)][1]})`);
  }
  return line;
}

function said(response) {
  if (response === null) return make("p", "muted", "No text: the probability of the gold answer was scored.");
  return response === "" ? make("p", "muted", "The answer is empty.") : make("div", "text", ...visible(response));
}

function answerColumn(heading, sample) {
  const column = make("div", "answer", make("h5", "", ...visible(heading)));
  if (sample === null) {
    column.append(make("p", "muted", "Not asked here, or no samples on disk."));
    return column;
  }
  column.append(verdictLine(sample), said(sample.response));
  if (sample.answer !== null) column.append(labelled("scorer read", sample.answer, "small"));
  if (sample.reason !== null) column.append(labelled("reason", sample.reason, "small"));
  return column;
}

function itemArticle(entry, names) {
  const { item, base, tuned } = entry;
  const title = make("h4", "", ...visible(`${item.eval}.${item.domain}`));
  if (item.pair !== null) title.append(" ", make("span", "tag", ...visible(item.pair)));
  const turns = item.prompt.map(([role, content]) =>
    make("div", "turn", make("span", "label", ...visible(role)), make("div", "text", ...visible(content))),
  );
  if (item.gold !== null) {
    turns.push(make("div", "turn", make("span", "label", "gold answer"), make("div", "text", ...visible(item.gold))));
  }
  const answers = make("div", "answers");
  if (names.base !== null) answers.append(answerColumn(names.base, base));
  if (names.tuned !== null) answers.append(answerColumn(names.tuned, tuned));
  return make("article", "sample", title, ...turns, answers);
}

class Browser {
  constructor(form, data) {
    this.form = form;
    this.texts = data.texts;
    this.comparisons = data.comparisons;
    this.status = document.getElementById("matches");
    this.list = document.getElementById("items");
    this.more = document.getElementById("more");
    const on = (name, act) => form.elements[name].addEventListener("input", act);
    on("comparison", () => this.chooseComparison());
    on("seed", () => this.chooseSeed());
    on("curve", () => {
      form.elements.strength.replaceChildren();
      this.chooseCurve();
    });
    on("strength", () => this.chooseRun());
    for (const name of ["eval", "domain", "verdict", "differ", "words"]) on(name, () => this.filter());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.more.addEventListener("click", () => this.showMore());
    this.fill("comparison", this.comparisons.map((c, i) => [i, c.name]), 0);
    form.elements.comparison.closest("label").hidden = this.comparisons.length < 2;
    this.chooseComparison();
    form.hidden = false;
  }

  value(name) {
    return this.form.elements[name].value;
  }

  /** Puts options, pairs of value and text, into a select; keeps what was selected if it is still there. */
  fill(name, options, initial) {
    const select = this.form.elements[name];
    const before = select.value;
    select.replaceChildren(...options.map(([value, text]) => new Option(plain(String(text)), value)));
    const kept = options.some(([value]) => String(value) === before) ? before : initial;
    select.value = String(kept);
  }

  chooseComparison() {
    this.comparison = this.comparisons[this.value("comparison")];
    this.fill("seed", this.comparison.seeds.map((s, i) => [i, s.seed]), 0);
    this.chooseSeed();
  }

  chooseSeed() {
    const seed = this.comparison.seeds[this.value("seed")];
    this.items = seed.items;
    this.runs = seed.runs;
    const chosen = this.runs.find((run) => run.role === "chosen") ?? this.runs[this.runs.length - 1];
    const curves = [...new Set(this.runs.map((run) => run.curve))];
    this.fill("curve", curves.map((curve) => [curve, curve]), chosen.curve);
    const names = (key) => [["", "all"], ...[...new Set(this.items.map((item) => item[key]))].map((name) => [name, name])];
    this.fill("eval", names("eval"), "");
    this.fill("domain", names("domain"), "");
    this.chooseCurve();
  }

  /** Offers the strengths of the curve and selects the one chosen on val, else the last one. */
  chooseCurve() {
    const own = this.runs.filter((run) => run.curve === this.value("curve"));
    const marks = { chosen: " (chosen on val)", baseline: " (baseline)", base: "" };
    const options = own.map((run) => {
      const strength = run.strength === null ? "none" : `${run.strength_name} ${run.strength}`;
      return [run.strength, `${strength}${marks[run.role] ?? ""}`];
    });
    const first = own.find((run) => run.role !== null) ?? own[own.length - 1];
    this.fill("strength", options, first.strength);
    this.chooseRun();
  }

  read(sample) {
    if (sample === null || sample === undefined) return null;
    const [response, answer, reason, value, counted] = sample;
    const text = (place) => (place === null ? null : this.texts[place]);
    return { response: text(response), answer: text(answer), reason: text(reason), value, counted: Boolean(counted) };
  }

  chooseRun() {
    const seed = `seed ${this.comparison.seeds[this.value("seed")].seed}`;
    const [curve, strength] = [this.value("curve"), this.value("strength")];
    const run = this.runs.find((r) => r.curve === curve && String(r.strength) === strength);
    const base = this.runs.find((other) => other.role === "base");
    const name = (r) => (r.strength === null ? r.curve : `${r.curve}, ${r.strength_name} ${r.strength}`);
    this.names = {
      base: base ? `${name(base)}, ${seed}` : null,
      tuned: run === base ? null : `${name(run)}, ${seed}`,
    };
    this.entries = this.items.map((item, i) => {
      const first = base ? this.read(base.samples[i]) : null;
      return { item, base: first, tuned: run === base ? first : this.read(run.samples[i]) };
    });
    document.getElementById("place").replaceChildren(...visible(`${run.run}/samples.test.jsonl`));
    this.fill("verdict", this.verdictOptions(), "");
    this.filter();
  }

  /** All verdicts; "between 0 and 1" only where a score is. */
  verdictOptions() {
    const between = this.entries.some(({ tuned }) => tuned && verdictOf(tuned) === "between");
    const kinds = Object.keys(VERDICTS).filter((kind) => kind !== "between" || between);
    return [["", "all"], ...kinds.map((kind) => [kind, VERDICTS[kind].join(" ")])];
  }

  filter() {
    const words = this.value("words").trim().toLowerCase();
    const [evalName, domain, verdict] = ["eval", "domain", "verdict"].map((name) => this.value(name));
    const differ = this.form.elements.differ.checked;
    this.matching = this.entries.filter(({ item, base, tuned }) => {
      if (evalName && item.eval !== evalName) return false;
      if (domain && item.domain !== domain) return false;
      if (verdict && (tuned === null || verdictOf(tuned) !== verdict)) return false;
      if (differ && (base === null || tuned === null || verdictOf(base) === verdictOf(tuned))) return false;
      return !words || searchable(item, base, tuned).includes(words);
    });
    this.list.replaceChildren();
    this.showMore();
  }

  showMore() {
    const done = this.list.childElementCount;
    const next = this.matching.slice(done, done + PAGE);
    this.list.append(...next.map((entry) => itemArticle(entry, this.names)));
    const displayed = done + next.length;
    const left = this.matching.length - displayed;
    this.status.textContent = `${this.matching.length} of ${this.entries.length} samples match; ${displayed} displayed.`;
    this.more.textContent = `Show ${Math.min(PAGE, left)} more`;
    this.more.hidden = left === 0;
  }
}

function searchable(item, ...samples) {
  const said = samples.filter((s) => s !== null).flatMap((s) => [s.response ?? "", s.answer ?? "", s.reason ?? ""]);
  const asked = item.prompt.map(([, content]) => content);
  return [...asked, item.gold, item.pair ?? "", ...said].join("\n").toLowerCase();
}

for (const table of document.querySelectorAll("table")) makeSortable(table);
const samplesForm = document.getElementById("browser");
if (samplesForm) new Browser(samplesForm, JSON.parse(document.getElementById("samples-data").textContent));
