"""What a setting tells the report: how to name its axes, which bar chart to draw, which claims to check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..core import Split
from ..record import RunRecord

BASE = "base"
"""Method name of the untouched starting model."""
TASK_ONLY = "task_only"
"""Method name of the baseline that every gain and loss is measured against: training on T alone."""

Samples = Callable[[RunRecord, Split], Iterable[Mapping[str, Any]]]
"""Yields the samples (lines of `samples.<split>.jsonl`) of a run; none if the file is gone."""


@dataclass(frozen=True)
class Check:
    """A claim about the measured records, decided by code.

    Attributes:
        name: What is claimed, in the reader's words.
        passed: The verdict.
        value: The number that was compared with the bar; None if it could not be measured, and then `passed` is False.
        bar: What the number must be, e.g. `<= 0.05`.
        detail: Where the number comes from: seeds, n, intervals, and the reason of a failure.
    """

    name: str
    passed: bool
    value: float | None
    bar: str
    detail: str


@dataclass(frozen=True)
class BarChart:
    """A chart with one group of bars per domain of one eval, drawn for base, task_only and every chosen strength.

    Attributes:
        eval: Name of the eval.
        title: Says what is shown.
        label: Of the value axis.
        complement: Draw 1 - value.
    """

    eval: str
    title: str
    label: str
    complement: bool = False


class Presented(Protocol):
    """The part of a setting that the report reads.

    Attributes:
        title: One line: what the trade-off is about.
        axis_labels: Label of the axes `alignment` and `score_y`.
        bar_chart: The setting's bar chart, or None.
        proxy_domains: Domains that the alignment data covers.
    """

    title: str
    axis_labels: Mapping[str, str]
    bar_chart: BarChart | None

    @property
    def proxy_domains(self) -> frozenset[str]: ...

    def checks(self, records: Sequence[RunRecord], samples: Samples) -> list[Check]:
        """Claims about the finished runs of one comparison (same setting options and model), on the test split."""
        ...
