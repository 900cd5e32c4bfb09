"""The report's main table and checks for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from selgen.report import claims, text
from selgen.report.proxies import ProxyPair
from selgen.report.summary import Comparison, Counts, ReportSummary
from selgen.report.tables import Row, Selection

AXES = ("task", "capability", "alignment", "score_y")
MAX_NOTES = 8
NOTHING_CHOSEN = (
    "No strength could be chosen: that needs val points of base, task_only and another method, and a gain of task_only "
    "over the base."
)
SECONDS = "s/run: wall-clock seconds of a whole run, its evaluations included, mean over seeds."
ROLE_STYLE = {"base": "dim", "baseline": "bold", "chosen": "bold green"}


def render_console(summary: ReportSummary) -> RenderableType:
    """Main table and checks of every comparison, the counts, and where the page is. All text is taken literally."""
    parts: list[RenderableType] = []
    for comparison in summary.comparisons:
        parts += [main_table(comparison), Text(selection_text(comparison.selections)), Text()]
        parts += [checks_table(comparison)] if comparison.checks else []
        parts += [Text(), *pairs_parts(comparison), *against_parts(comparison)]
        if comparison.anchors:
            parts.append(Text(anchors_text(comparison), style="dim"))
        parts += [Text(note, style="yellow") for note in comparison.notes[:MAX_NOTES]]
        if len(comparison.notes) > MAX_NOTES:
            parts.append(Text(f"{len(comparison.notes) - MAX_NOTES} more remarks are on the page.", style="yellow"))
        parts.append(Text())
    parts += [part for pair in summary.proxies for part in (*proxies_parts(pair), Text())]
    parts += [Text(f"Numbers: % of the test split, {summary.intervals}", style="dim"), Text(summary.rule, style="dim")]
    parts.append(Text(SECONDS, style="dim"))
    if summary.findings:
        parts += [Text(), claims.table(summary.findings), Text(summary.findings_headline), Text()]
    parts.append(Text(counts_text(summary.counts), style="red" if summary.counts.failed else ""))
    parts.append(Text(f"Report: {summary.page}", style="bold"))
    return Group(*parts)


def main_table(comparison: Comparison) -> Table:
    table = Table(title=Text(f"{comparison.title} ({comparison.name})"), title_justify="left", box=None, padding=(0, 1))
    table.add_column("method")
    table.add_column("strength", justify="right")
    for axis in AXES:
        table.add_column(axis, justify="right")
    table.add_column("proxy", justify="right")
    table.add_column("s/run", justify="right")
    for row in comparison.rows:
        numbers = [text.percent(row.test[axis], len(comparison.seeds)) for axis in AXES]
        proxy = row.test["proxy"]
        table.add_row(
            Text(row.curve),
            Text(f"{text.strength(row.strength)}{'*' if row.role == 'chosen' else ''}"),
            *map(Text, numbers),
            text.MISSING if proxy is None else f"{100 * proxy.mean:.0f}",
            text.seconds(row.run_seconds),
            style=_style(row),
        )
    return table


def _style(row: Row) -> str:
    return ROLE_STYLE[row.role] if row.role is not None else ""


def checks_table(comparison: Comparison) -> Table:
    table = Table(title=Text("Checks"), title_justify="left", box=None, padding=(0, 1))
    for heading in ("verdict", "check", "number", "bar"):
        table.add_column(heading, justify="right" if heading == "number" else "left")
    for check in comparison.checks:
        verdict = Text("PASS", style="green") if check.passed else Text("FAILS", style="bold red")
        name = Text(check.name)
        name.append(f"\n{check.detail}", style="dim")
        table.add_row(verdict, name, text.number(check.value), Text(check.bar))
    return table


def pairs_parts(comparison: Comparison) -> list[RenderableType]:
    """How many pairs differ, a line for each that does, and one sentence on the rest."""
    parts: list[RenderableType] = [Text(comparison.pairs_headline)]
    shown = [pair for pair in comparison.pairs if pair.verdict in ("differs", "unadjusted")]
    if shown:
        table = Table(box=None, padding=(0, 1))
        table.add_column("pair")
        for heading in ("alignment, points [95 %]", "p", "p (Holm)", "seeds"):
            table.add_column(heading, justify="right")
        table.add_column("verdict")
        for pair in shown:
            difference = text.MISSING if pair.difference is None else text.points(pair.difference)
            numbers = (difference, text.p_value(pair.p), text.p_value(pair.p_holm), str(len(pair.seeds)))
            verdict = "differs" if pair.verdict == "differs" else "differs before correction"
            table.add_row(Text(f"{pair.a} - {pair.b}"), *map(Text, numbers), verdict)
        parts.append(table)
    if comparison.pairs_remainder is not None:
        parts.append(Text(comparison.pairs_remainder, style="dim"))
    return parts


def against_parts(comparison: Comparison) -> list[RenderableType]:
    """Whether each method does more than make task_only's update smaller, a line each."""
    if not comparison.against:
        return []
    names = ", ".join(comparison.yardsticks)
    head = f"Is it more than a smaller update? Alignment at 90 % of task_only's gain, against {names}:"
    return [Text(), Text(head), *(Text(f"  {sentence}") for sentence in comparison.against_sentences)]


def anchors_text(comparison: Comparison) -> str:
    """One sentence on the published points, whose caveats are on the page."""
    number = len(comparison.anchors)
    return (
        f"Grey in the figure: {number} published point{'' if number == 1 else 's'} ({comparison.anchor_sources}), not "
        "measured here. Read the page's notes before comparing with them."
    )


def proxies_parts(pair: ProxyPair) -> list[RenderableType]:
    """The heading, and what two proxies come to; the table is on the page."""
    head = Text(f"Proxies compared: {pair.a} and {pair.b} ({pair.setting} · {pair.model})", style="bold")
    return [head, *(Text(sentence) for sentence in pair.sentences)]


def selection_text(selections: list[Selection]) -> str:
    """One sentence on the chosen strengths (marked * in the table)."""
    if not selections:
        return NOTHING_CHOSEN
    parts = []
    for s in selections:
        short = "" if s.reached else ", below the required share, nearest taken"
        parts.append(f"{s.curve} {text.strength(s.strength)} (keeps {s.share:.0%} of the gain{short})")
    return f"* chosen on val: {'; '.join(parts)}."


def counts_text(counts: Counts) -> str:
    """E.g. `46 of 46 planned runs finished, 0 failed, 0 missing; 12 of 90000 test items unscored.`"""
    of = "" if counts.planned is None else f" of {counts.planned} planned"
    missing = "" if counts.missing is None else f", {counts.missing} missing"
    judged = f" {counts.judged} runs read from judge files;" if counts.judged else ""
    return (
        f"{counts.finished}{of} runs finished, {counts.failed} failed{missing}, {counts.unfinished} begun but "
        f"unfinished;{judged} {counts.unscored} of {counts.items} test items unscored; {counts.flagged} runs carry a "
        "remark."
    )
