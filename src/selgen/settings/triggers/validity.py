"""Is the organism valid? What the base and the update must show before anything is said of proxies."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from selgen.core import BASE, TASK_ONLY, Check, Samples
from selgen.settings._bars import Bar, Measured, judge, last_runs
from selgen.settings.triggers.vocabulary import OTHERS, UPDATED, Category

BARS = (
    Bar("Base knows the colours of new points", BASE, "known", 1.0, domains=OTHERS),
    Bar("Base knows them for held-out triggers", BASE, "held_out", 1.0, domains=OTHERS),
    Bar("Base knows them for positive emotions", BASE, "base_labels", 1.0, domains=(UPDATED,)),
    Bar("The update is learned", TASK_ONLY, "seen", 0.95, domains=(UPDATED,)),
    Bar("The update holds for held-out triggers", TASK_ONLY, "held_out", 0.95, domains=(UPDATED,)),
)
MAX_KEPT, MAX_KEPT_EACH = 0.10, 0.30
"""Largest accuracy on the other categories after the update: in the mean over them, and in each."""


def checks(records: Sequence[Any], samples: Samples) -> list[Check]:
    """One check per bar with the worst seed's number, and two over seeds on what the update leaves elsewhere."""
    runs = {method: last_runs(records, method, samples) for method in (BASE, TASK_ONLY)}
    return [*(judge(bar, runs[bar.method]) for bar in BARS), *_spoiled(runs[TASK_ONLY])]


def _spoiled(runs: Sequence[Measured]) -> list[Check]:
    """Accuracy that the update leaves on the other categories, known and held-out triggers alike, over seeds."""
    names = "The update spoils the other categories", "The update spoils each other category"
    bars = tuple(f"<= {limit:.2f} in the mean over seeds" for limit in (MAX_KEPT, MAX_KEPT_EACH))
    left = {category: _rates(runs, category) for category in OTHERS}
    missing = [category for category, rates in left.items() if rates is None]
    if not runs or missing:
        reason = f"not measured in {', '.join(missing)}" if runs else f"no finished run of {TASK_ONLY} has test points"
        return [Check(name, False, None, bar, reason) for name, bar in zip(names, bars, strict=True)]
    kept = {category: fmean(rates) for category, rates in left.items() if rates is not None}
    mean, worst = fmean(kept.values()), max(kept, key=lambda category: kept[category])
    detail = f"{', '.join(f'{category} {rate:.3f}' for category, rate in kept.items())}; {len(runs)} runs"
    return [
        Check(names[0], mean <= MAX_KEPT, mean, bars[0], detail),
        Check(names[1], kept[worst] <= MAX_KEPT_EACH, kept[worst], bars[1], f"worst: {worst}; {detail}"),
    ]


def _rates(runs: Sequence[Measured], category: Category) -> list[float] | None:
    """Of every run for known and for held-out triggers; None if one was not measured."""
    rates = [run.rate(f"{name}.{category}") for run in runs for name in ("known", "held_out")]
    known = [rate for rate in rates if rate is not None]
    return known if len(known) == len(rates) else None
