"""Records -> tables, figures and a page. Never imports torch.

<out>/report/index.html              figures, tables, checks and provenance in one file that needs no network
             points.csv              one row per (run, step, split)
             summary.json            the same content as the page, for programs
             pareto_<setting>.png    and .svg: alignment against score_y
             bars_<setting>.png      and .svg: the bar chart that the setting declares
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selgen.core import Samples, Split
from selgen.record import RunRecord, read_all, read_samples, samples_path
from selgen.report.console import render_console
from selgen.report.fairness import budgets, fairness_notes
from selgen.report.figures import bar_figure, pareto_figure
from selgen.report.lookup import SettingOf, count_planned, declared_setting
from selgen.report.page import render_page
from selgen.report.pairs import METHOD, compare_pairs
from selgen.report.runs import Group, ReportError, group_runs, write_points
from selgen.report.samples import pick_samples
from selgen.report.summary import Comparison, Counts, FailedRun, ReportSummary, provenance
from selgen.report.tables import RULE, choose_all, hypervolumes, main_table
from selgen.report.tradeoff import check_tradeoff

__all__ = ["ReportSummary", "render_console", "write"]

INTERVALS = (
    "mean ± half-width of a 95 % Student t interval over seeds; differences are paired by seed. Below 20 seeds no "
    "bootstrap over seeds is used, because it would be too narrow."
)


def write(out_dir: Path, setting_of: SettingOf = declared_setting) -> ReportSummary:
    """Write `<out>/report/` from the records that are there, finished sweep or not.

    Args:
        out_dir: Output directory of a sweep, or one run's directory.
        setting_of: Finds the setting of a run: its titles, labels and checks.

    Returns:
        What the report says; `render_console` prints it.

    Raises:
        RecordError: `out_dir` is no directory, or a record cannot be read.
        ReportError: two runs claim the same curve, strength and seed.
    """
    out_dir = Path(out_dir)
    records = read_all(out_dir)
    if not records and not (out_dir / "sweep.yaml").is_file():
        raise ReportError(f"{out_dir} holds no finished run and no sweep. Name the output directory of a sweep or run.")
    target = out_dir / "report"
    target.mkdir(exist_ok=True)

    def samples(record: RunRecord, split: Split) -> Iterable[Mapping[str, Any]]:
        run_dir = out_dir / record.run_id if (out_dir / record.run_id).is_dir() else out_dir
        return read_samples(run_dir, split) if samples_path(run_dir, split).is_file() else ()

    groups = group_runs(records)
    comparisons = [_compare(group, setting_of, samples) for group in groups]
    summary = ReportSummary(
        command=f"selgen report {shlex.quote(str(out_dir))}",
        rule=RULE,
        intervals=INTERVALS,
        pairs_rule=METHOD,
        counts=_count(out_dir, records, comparisons),
        comparisons=comparisons,
        failed=[FailedRun.of(record) for record in records if record.status == "failed"],
        provenance=provenance(records),
        page=target / "index.html",
    )
    write_points(target / "points.csv", records)
    summary.write(target / "summary.json")
    figures = {}
    for name in dict.fromkeys(c.setting for c in comparisons):
        own = [c for c in comparisons if c.setting == name]
        stems = [(pareto_figure, target / f"pareto_{name}"), (bar_figure, target / f"bars_{name}")]
        figures[name] = [stem.with_suffix(".svg") for draw, stem in stems if draw(own, stem)]
    pairs = zip(comparisons, groups, strict=True)
    shown = [pick_samples(comparison.name, group, comparison.rows, samples) for comparison, group in pairs]
    summary.page.write_text(render_page(summary, figures, shown), encoding="utf-8")
    return summary


def _compare(group: Group, setting_of: SettingOf, samples: Samples) -> Comparison:
    setting = setting_of(group.records[0])
    finished = [record for record in group.records if record.status == "success"]
    chart = setting.bar_chart
    return Comparison(
        setting=group.setting,
        proxy=group.proxy,
        model=group.model,
        title=setting.title,
        axis_labels=dict(setting.axis_labels),
        seeds=list(group.seeds),
        bar_chart=chart,
        domains=[] if chart is None else group.domains(chart.eval),
        proxy_domains=sorted(setting.proxy_domains),
        rows=main_table(group),
        selections=[selection for _, selection in choose_all(group).values()],
        hypervolumes=hypervolumes(group),
        budgets=budgets(group),
        notes=fairness_notes(group),
        checks=[*setting.checks(finished, samples), *([check_tradeoff(group)] if group.can_trade else [])],
        pairs=compare_pairs(group),
    )


def _count(out_dir: Path, records: Sequence[RunRecord], comparisons: Sequence[Comparison]) -> Counts:
    finished = [record for record in records if record.status == "success"]
    rows = [row for c in comparisons for row in c.rows]
    planned = count_planned(out_dir)
    return Counts(
        planned=planned,
        finished=len(finished),
        failed=len(records) - len(finished),
        unfinished=sum(not (path.parent / "record.json").is_file() for path in out_dir.glob("*/spec.yaml")),
        missing=None if planned is None else max(0, planned - len(records)),
        items=sum(row.items for row in rows),
        unscored=sum(row.unscored for row in rows),
        flagged=sum(bool(record.flags) for record in finished),
    )
