"""What a report says, as typed data: the content of summary.json, of the page and of the console tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selgen.core import Anchor, BarChart, Check
from selgen.record import RunRecord
from selgen.report import claims, fronts
from selgen.report import pairs as paired
from selgen.report.claims import Finding
from selgen.report.fairness import CurveBudget
from selgen.report.fronts import Against, AtGain, Attained
from selgen.report.pairs import Pair
from selgen.report.protection import HeatTable
from selgen.report.proxies import ProxyPair
from selgen.report.tables import Hypervolume, Row, Selection


@dataclass(frozen=True)
class FailedRun:
    """A run that ended with an error."""

    run_id: str
    method: str
    curve: str
    strength: float | None
    seed: int
    error: str

    @classmethod
    def of(cls, record: RunRecord) -> FailedRun:
        error = record.error
        if error is None:
            text = "no reason recorded"
        else:
            where = "" if error.step is None else f" at step {error.step}"
            term = "" if error.term is None else f", term '{error.term}'"
            text = f"{error.type}{where}{term}: {error.message}"
        return cls(record.run_id, record.method, record.curve, record.strength, record.seed, text)


@dataclass(frozen=True)
class Counts:
    """How much of the sweep stands behind the numbers.

    Attributes:
        planned: Runs that the sweep asks for; None without a readable sweep.yaml.
        finished: Successful runs of the sweep.
        judged: Runs read from judge files that others made.
        failed: Runs that ended with an error.
        unfinished: Run directories without a record (running, or interrupted).
        missing: Runs that are neither finished nor failed; None if the plan is not known.
        items: Test items behind the numbers of all rows.
        unscored: Those among them that the scorer could not read.
        flagged: Successful runs that carry a remark.
    """

    planned: int | None
    finished: int
    judged: int
    failed: int
    unfinished: int
    missing: int | None
    items: int
    unscored: int
    flagged: int


@dataclass(frozen=True)
class Comparison:
    """All that is said about one setting, proxy and model.

    Attributes:
        title: What the trade-off is about.
        axis_labels: Of `alignment` and `score_y`.
        bar_chart: Declared by the setting, or None.
        domains: Domains of the bar chart.
        proxy_domains: Domains that the alignment data covers.
        rows: The main table.
        selections: The strength chosen on val, one entry per curve.
        reference: (alignment, score_y) from which areas are measured.
        hypervolumes: One entry per curve.
        at_gain: Alignment at 90 % of task_only's gain, one entry per curve.
        against: Every curve that trains something against every curve that only changes task_only's adapter.
        attained: How far out the fronts reach over seeds, one entry per curve of several strengths.
        budgets: One entry per curve.
        notes: What a reader must know before comparing the curves.
        checks: Claims and verdicts.
        pairs: Every two competing curves compared in alignment at matched score_y.
        anchors: Points that others published for this setting and model.
    """

    setting: str
    proxy: str | None
    model: str
    title: str
    axis_labels: dict[str, str]
    seeds: list[int]
    bar_chart: BarChart | None
    domains: list[str]
    proxy_domains: list[str]
    rows: list[Row]
    selections: list[Selection]
    reference: tuple[float, float]
    hypervolumes: list[Hypervolume]
    at_gain: list[AtGain]
    against: list[Against]
    attained: list[Attained]
    budgets: list[CurveBudget]
    notes: list[str]
    checks: list[Check]
    pairs: list[Pair]
    anchors: list[Anchor]

    @property
    def anchor_notes(self) -> list[str]:
        """What must be known of the published points, each note once."""
        return list(dict.fromkeys(note for anchor in self.anchors for note in anchor.notes))

    @property
    def anchor_sources(self) -> str:
        """Who published them, e.g. `Author et al. 2025`."""
        return ", ".join(dict.fromkeys(anchor.source for anchor in self.anchors))

    @property
    def name(self) -> str:
        """E.g. `sycophancy · proxy capitals · miniature`."""
        return comparison_name(self.setting, self.proxy, self.model)

    @property
    def pairs_headline(self) -> str:
        """One sentence on how many pairs differ."""
        return paired.headline(self.pairs)

    @property
    def pairs_remainder(self) -> str | None:
        """One sentence on the pairs that do not; None if all do."""
        return paired.remainder(self.pairs)

    @property
    def yardsticks(self) -> list[str]:
        """The curves that only change task_only's adapter, or stop it early."""
        return list(dict.fromkeys(pair.yardstick for pair in self.against))

    @property
    def strongest_yardstick(self) -> Attained | None:
        """The one with the largest mean area among those that have surfaces; None if none has."""
        areas = {entry.curve: entry.area.mean for entry in self.hypervolumes if entry.area is not None}
        known = [entry for entry in self.attained if entry.curve in self.yardsticks]
        return max(known, key=lambda entry: areas[entry.curve], default=None)

    @property
    def against_sentences(self) -> list[str]:
        """One per curve: whether it keeps more than task_only's adapter, made smaller, at the same task score."""
        return fronts.sentences(self.against, len(self.seeds))


@dataclass(frozen=True)
class ReportSummary:
    """Everything in a report.

    Attributes:
        command: Makes the report again.
        rule: How strengths are chosen.
        intervals: What the intervals are.
        pairs_rule: How two curves are compared.
        at_gain_rule: How alignment at a matched task score is read.
        tested_rule: How a curve is compared with one that only changes task_only's adapter.
        proxies: Every two proxies of one setting and model.
        proxies_rule: How two proxies are compared.
        findings: Claims of a study that these runs say something about, with verdicts.
        protection: What each proxy protects, by eval, curve and domain.
        protection_rule: What its numbers are.
        provenance: What the runs share, and what differs among them.
        page: Where the page is.
    """

    command: str
    rule: str
    intervals: str
    pairs_rule: str
    at_gain_rule: str
    tested_rule: str
    counts: Counts
    comparisons: list[Comparison]
    proxies: list[ProxyPair]
    proxies_rule: str
    findings: list[Finding]
    protection: list[HeatTable]
    protection_rule: str
    failed: list[FailedRun]
    provenance: dict[str, str]
    page: Path

    @property
    def findings_headline(self) -> str:
        """One sentence on how many claims hold."""
        return claims.headline(self.findings)

    def as_json(self) -> dict[str, Any]:
        """Plain data; the page's place is left out, so that equal results give equal files."""
        plain = asdict(self)
        del plain["page"]
        return plain

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.as_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def comparison_name(setting: str, proxy: str | None, model: str) -> str:
    parts = [setting, model] if proxy is None else [setting, f"proxy {proxy}", model]
    return " · ".join(parts)


def provenance(records: Sequence[RunRecord]) -> dict[str, str]:
    """Provenance over all runs: the value that all share, or up to three values, or how many there are."""
    values: dict[str, list[str]] = {}
    for record in records:
        for key, value in _flat(record.provenance):
            seen = values.setdefault(key, [])
            if value not in seen:
                seen.append(value)
    return {key: " | ".join(seen) if len(seen) <= 3 else f"{len(seen)} values" for key, seen in values.items()}


def _flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in tree.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", str(value))]
    return pairs
