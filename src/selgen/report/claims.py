"""Claims of a study with their verdicts, as typed data: what a report and `selgen findings` show of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from selgen.maths.stats import Estimate
from selgen.report.runs import Group

Verdict = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Part:
    """One statement about one number; a claim is one or several of them.

    Attributes:
        setting: Where it was measured.
        statistic: The number, in words.
        bound: What the claim says about it, e.g. `> 0.2`.
        estimate: With its 95 % interval; None if nothing could be measured.
        p_holm: Holm-adjusted p over the claim's parts, where the claim asks for it.
        seeds: Seeds behind the estimate.
        left_out: Seeds of the same runs on which it could not be measured.
        verdict: `holds`: the interval lies wholly on the claimed side of the bound; `fails`: wholly on the other.
        reason: Why it is undecided, if not because the interval holds the bound.
        notes: What was used: strengths with how they were chosen, numbers that stand beside it.
        source: Where the runs lie; None if there are none.
    """

    setting: str
    statistic: str
    bound: str
    estimate: Estimate | None
    p_holm: float | None
    seeds: list[int]
    left_out: list[int]
    verdict: Verdict
    reason: str | None
    notes: list[str]
    source: str | None

    @property
    def number(self) -> str:
        """E.g. `0.312 [0.250, 0.374]`, or a dash."""
        e = self.estimate
        if e is None:
            return "–"
        return f"{e.mean:.3f}" if e.low is None or e.high is None else f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]"


@dataclass(frozen=True)
class Finding:
    """A claim of the study and what the runs say about it.

    Attributes:
        id: E.g. `F7`.
        claim: What is claimed, in the reader's words.
        statistic: How it is decided.
        parts: It holds if all of them hold, fails if one fails, and is undecided otherwise.
    """

    id: str
    claim: str
    statistic: str
    parts: list[Part]
    verdict: Verdict

    @property
    def settings(self) -> str:
        return ", ".join(dict.fromkeys(part.setting for part in self.parts))

    @property
    def is_measured(self) -> bool:
        """Whether the runs say anything about it."""
        return any(part.estimate is not None for part in self.parts)


Claims = Callable[[Sequence[Group]], Sequence[Finding]]
"""Decides claims from the groups of a report."""


def headline(findings: Sequence[Finding]) -> str:
    """E.g. `20 claims: 9 hold, 6 fail, 5 are undecided.`"""
    count = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("holds", "fails", "undecided")}
    return f"{len(findings)} claims: {count['holds']} hold, {count['fails']} fail, {count['undecided']} are undecided."


STYLES: dict[Verdict, str] = {"holds": "green", "fails": "bold red", "undecided": "yellow"}


def table(findings: Sequence[Finding]) -> Table:
    """A row per claim with its verdict, and below it a row per part with its number."""
    made = Table(title=Text("Claims of the study"), title_justify="left", box=None, padding=(0, 1))
    made.add_column("id")
    made.add_column("verdict")
    made.add_column("setting")
    made.add_column("claim, and the numbers that decide it", ratio=1)
    made.add_column("estimate [95 %]", no_wrap=True)
    made.add_column("seeds", justify="right")
    for finding in findings:
        made.add_row(
            Text(finding.id, style="bold"),
            Text(finding.verdict, style=STYLES[finding.verdict]),
            "",
            Text(f"{finding.claim}: {finding.statistic}", style="bold"),
        )
        for part in finding.parts:
            words = Text(f"{part.statistic} {part.bound}")
            if part.reason:
                words.append(f"\n{part.reason}", style="dim")
            seeds = f"{len(part.seeds)}" + (f" (-{len(part.left_out)})" if part.left_out else "")
            verdict = Text(part.verdict, style=f"dim {STYLES[part.verdict]}")
            made.add_row("", verdict, Text(part.setting), words, part.number, seeds)
    return made
