"""Bars that every seed of a method must meet, judged on the test points of finished runs; shared by settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selgen.core import Check, Samples, Split
from selgen.maths.stats import wilson

if TYPE_CHECKING:
    from selgen.record import Point, RunRecord

MIN_ASKED = 200
"""Prompts that a rate must ask before a bar may judge it."""


@dataclass(frozen=True)
class Bar:
    """What every seed of a method must show.

    Attributes:
        name: The claim.
        eval: The eval whose rates are judged.
        limit: Of the rate.
        at_most: Whether the limit is the largest allowed rate; else it is the smallest.
        domains: Judged domains; None for all that are measured.
        complement: Judge 1 - rate.
        averaged: Judge the mean over domains; else each domain alone.
    """

    name: str
    method: str
    eval: str
    limit: float
    at_most: bool = False
    domains: tuple[str, ...] | None = None
    complement: bool = False
    averaged: bool = False

    @property
    def text(self) -> str:
        where = "on every seed" if self.averaged else "in each domain on every seed"
        return f"{'<=' if self.at_most else '>='} {self.limit:.2f} {where}"


@dataclass(frozen=True)
class Measured:
    """The last test point of a run, with what was asked for it.

    Attributes:
        asked: Prompts by column, whether or not their condition passed.
        values: Score by column and pair id, unscored ones left out.
    """

    seed: int
    point: Point
    asked: Mapping[str, int]
    values: Mapping[str, Mapping[str, float]]

    def too_few(self, columns: Iterable[str]) -> list[str]:
        """Columns that asked fewer prompts than a bar needs, each with its number and the seed."""
        return [f"{c} asked {self.asked[c]} (seed {self.seed})" for c in columns if self.asked[c] < MIN_ASKED]

    def too_few_together(self, columns: Sequence[str]) -> list[str]:
        """The same for a rate that is a mean over columns."""
        asked = sum(self.asked[c] for c in columns)
        return [] if asked >= MIN_ASKED else [f"{', '.join(columns)} asked {asked} together (seed {self.seed})"]

    def rate(self, column: str) -> float | None:
        metric = self.point.metrics.get(column)
        return None if metric is None else metric.value


def last_point(record: RunRecord, split: Split) -> Point | None:
    return max((p for p in record.points if p.split == split), key=lambda p: p.order, default=None)


def last_runs(records: Iterable[RunRecord], method: str, samples: Samples) -> list[Measured]:
    found = [(r, last_point(r, "test")) for r in records if r.method == method]
    return sorted((read_run(r, point, samples) for r, point in found if point is not None), key=lambda run: run.seed)


def read_run(record: RunRecord, point: Point, samples: Samples) -> Measured:
    asked: Counter[str] = Counter()
    values: dict[str, dict[str, float]] = {}
    for sample in samples(record, "test"):
        if sample["step"] == point.step:
            column = f"{sample['eval']}.{sample['domain']}"
            asked[column] += 1
            if sample["value"] is not None:
                values.setdefault(column, {})[sample["pair"]] = sample["value"]
    return Measured(record.seed, point, asked, values)


def judge(bar: Bar, runs: Sequence[Measured]) -> Check:
    """Hold every seed to a bar; the check's value is the worst reading."""
    if not runs:
        return Check(bar.name, False, None, bar.text, f"no finished run of {bar.method} has test points")
    readings: list[tuple[float, str]] = []
    problems: list[str] = []
    met: list[int] = []
    for run in runs:
        columns = _columns(bar, run.point)
        too_few = run.too_few_together if bar.averaged else run.too_few
        problems += too_few(columns) if columns else [f"no {bar.eval} measured (seed {run.seed})"]
        rates = {column: run.rate(column) for column in columns}
        problems += [
            f"{c} not measured, too few met its condition (seed {run.seed})" for c, r in rates.items() if r is None
        ]
        known = {c: 1 - r if bar.complement else r for c, r in rates.items() if r is not None}
        met += [run.point.metrics[c].n for c in known]
        if bar.averaged and known:
            readings.append((sum(known.values()) / len(known), f"mean of {len(known)} domains on seed {run.seed}"))
        elif not bar.averaged:
            readings += [(value, _evidence(run, column, value)) for column, value in known.items()]
    if not readings:
        return Check(bar.name, False, None, bar.text, "; ".join(problems))
    value, where = max(readings) if bar.at_most else min(readings)
    holds = value <= bar.limit if bar.at_most else value >= bar.limit
    seeds = ", ".join(str(run.seed) for run in runs)
    counts = f"{min(met)}" if min(met) == max(met) else f"{min(met)} to {max(met)}"
    detail = f"worst: {where}; seeds {seeds}; n {counts} per rate"
    return Check(bar.name, holds and not problems, value, bar.text, "; ".join([detail, *problems]))


def _columns(bar: Bar, point: Point) -> list[str]:
    if bar.domains is not None:
        return [f"{bar.eval}.{domain}" for domain in bar.domains]
    return [column for column in point.metrics if column.startswith(f"{bar.eval}.")]


def _evidence(run: Measured, column: str, value: float) -> str:
    n = run.point.metrics[column].n
    low, high = wilson(value, n)
    return f"{column.partition('.')[2]} on seed {run.seed} (n {n}, 95 % Wilson interval {low:.3f} to {high:.3f})"
