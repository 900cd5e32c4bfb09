"""Records -> tables, figures and a page. Never imports torch.

<out>/report/index.html              figures, tables, checks and provenance in one file that needs no network
             points.csv              one row per (run, step, split)
             summary.json            the same content as the page, for programs
             pareto_<setting>.png    and .svg: alignment against score_y
             attainment_<setting>.png  and .svg: how far out each curve reaches over seeds
             bars_<setting>.png      and .svg: the bar chart that the setting declares
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selgen.core import Samples, Split
from selgen.record import RunRecord, read_all, read_samples, samples_path
from selgen.redraw import redraw_all
from selgen.report.attainment import attainment_figure
from selgen.report.claims import Claims
from selgen.report.console import render_console
from selgen.report.fairness import budgets, fairness_notes
from selgen.report.figures import bar_figure, pareto_figure
from selgen.report.fronts import AT_GAIN, TESTED, against, at_gain, attained
from selgen.report.heatmaps import distance_figure, heat_figures
from selgen.report.judge_files import JudgeSource, options
from selgen.report.judged import read_judged
from selgen.report.lookup import SettingOf, count_planned, declared_setting, hypervolume_reference
from selgen.report.page import render_page
from selgen.report.pairs import METHOD, compare_pairs
from selgen.report.protection import METHOD as PROTECTION_METHOD
from selgen.report.protection import heat_tables
from selgen.report.proxies import METHOD as PROXIES_METHOD
from selgen.report.proxies import compare_proxies
from selgen.report.runs import Group, ReportError, group_runs, write_points
from selgen.report.samples import pick_samples
from selgen.report.summary import Comparison, Counts, FailedRun, ReportSummary, provenance
from selgen.report.tables import RULE, choose_all, hypervolumes, main_table
from selgen.report.tradeoff import check_tradeoff

__all__ = ["JudgeSource", "ReportSummary", "render_console", "write"]

INTERVALS = (
    "mean ± half-width of a 95 % Student t interval over seeds; differences are paired by seed. A bootstrap over seeds "
    "is not used instead, because over few seeds it is too narrow (five: its 95 % interval covers about 85 %)."
)


def write(
    out_dir: Path,
    setting_of: SettingOf = declared_setting,
    redrawn: Sequence[str] = (),
    judge_files: JudgeSource | None = None,
    claims: Claims | None = None,
) -> ReportSummary:
    """Write `<out>/report/` from the records that are there, finished sweep or not.

    Args:
        out_dir: Output directory of a sweep, or one run's directory; with `judge_files` it may be a new one.
        setting_of: Finds the setting of a run: its titles, labels and checks.
        redrawn: `setting.KEY=VALUE`, options such as thresholds to redraw the stored answers with.
        judge_files: Runs of others to put beside the ones that are there.
        claims: Decides a study's claims from the groups of runs; runs that others made are not among them.

    Returns:
        What the report says; `render_console` prints it.

    Raises:
        ConfigError: an option cannot be redrawn from what is stored, or `sweep.yaml` has no valid reference point.
        RecordError: `out_dir` is no directory, or a record, or samples that are to be redrawn, cannot be read.
        ReportError: two runs claim the same curve, strength and seed.
    """
    out_dir = Path(out_dir)
    records = [] if judge_files is not None and not out_dir.exists() else read_all(out_dir)
    if not records and judge_files is None and not (out_dir / "sweep.yaml").is_file():
        raise ReportError(f"{out_dir} holds no finished run and no sweep. Name the output directory of a sweep or run.")
    target = out_dir / "report"

    def stored(record: RunRecord, split: Split) -> Iterable[Mapping[str, Any]]:
        run_dir = out_dir / record.run_id if (out_dir / record.run_id).is_dir() else out_dir
        return read_samples(run_dir, split) if samples_path(run_dir, split).is_file() else ()

    samples: Samples = stored
    notes: list[str] = []
    if redrawn:
        again = redraw_all(records, samples, redrawn)
        records, samples, notes = again.records, again.samples, again.notes
    foreign: dict[str, str] = {}
    if judge_files is not None:
        judged, samples, note = _judged(judge_files, records, samples)
        records, foreign = [*records, *judged], {record.run_id: note for record in judged}
    target.mkdir(parents=True, exist_ok=True)
    groups = group_runs(records)
    reference = hypervolume_reference(out_dir)
    comparisons = [_compare(group, setting_of, samples, notes, foreign, reference) for group in groups]
    summary = ReportSummary(
        command=shlex.join(
            ["selgen", "report", str(out_dir), *redrawn, *(options(judge_files) if judge_files else [])]
        ),
        rule=RULE,
        intervals=INTERVALS,
        pairs_rule=METHOD,
        at_gain_rule=AT_GAIN,
        tested_rule=TESTED,
        counts=_count(out_dir, records, foreign, comparisons),
        comparisons=comparisons,
        proxies=compare_proxies(groups, setting_of),
        proxies_rule=PROXIES_METHOD,
        findings=[] if claims is None else list(claims(_own_groups(groups, foreign))),
        protection=heat_tables(groups, setting_of),
        protection_rule=PROTECTION_METHOD,
        failed=[FailedRun.of(record) for record in records if record.status == "failed"],
        provenance=provenance(records),
        page=target / "index.html",
    )
    write_points(target / "points.csv", records)
    summary.write(target / "summary.json")
    figures = {}
    for name in dict.fromkeys(c.setting for c in comparisons):
        own = [c for c in comparisons if c.setting == name]
        draws = {"pareto": pareto_figure, "attainment": attainment_figure, "bars": bar_figure}
        stems = {target / f"{kind}_{name}": draw for kind, draw in draws.items()}
        figures[name] = [stem.with_suffix(".svg") for stem, draw in stems.items() if draw(own, stem)]
        tables = [t for t in summary.protection if t.setting == name]
        figures[name] += heat_figures(tables, target, name)
        if distance_figure(tables, target / f"distance_{name}"):
            figures[name].append(target / f"distance_{name}.svg")
    pairs = zip(comparisons, groups, strict=True)
    shown = [pick_samples(comparison.name, group, comparison.rows, samples) for comparison, group in pairs]
    summary.page.write_text(render_page(summary, figures, shown), encoding="utf-8")
    return summary


def _own_groups(groups: Sequence[Group], foreign: Collection[str]) -> list[Group]:
    if not foreign:
        return list(groups)
    return group_runs([record for group in groups for record in group.records if record.run_id not in foreign])


def _judged(
    source: JudgeSource, records: Sequence[RunRecord], samples: Samples
) -> tuple[list[RunRecord], Samples, str]:
    """The records of judge files, samples that know theirs too, and a sentence on what was read."""
    own = [record for record in records if record.setting == source.setting["name"]]
    # In a sweep's report the alignment axis is the sweep's, so that both lie on the same one.
    judged, note = read_judged(source, {domain for record in own for domain in record.spec.get("covered", ())})
    said = {run.record.run_id: run.samples for run in judged}

    def both(record: RunRecord, split: Split) -> Iterable[Mapping[str, Any]]:
        if record.run_id not in said:
            return samples(record, split)
        return said[record.run_id] if split == "test" else ()

    return [run.record for run in judged], both, note


def _compare(
    group: Group,
    setting_of: SettingOf,
    samples: Samples,
    notes: Sequence[str],
    foreign: Mapping[str, str],
    reference: tuple[float, float],
) -> Comparison:
    """What is said of one group.

    Args:
        notes: What holds for all runs.
        foreign: Run id -> note, of runs that others made: no claim of the setting is checked on them.
        reference: Of the hypervolumes.
    """
    setting = setting_of(group.records[0])
    own = [record for record in group.records if record.run_id not in foreign]
    finished = [record for record in own if record.status == "success"]
    checks = setting.checks(finished, samples) if own else []
    if own and group.can_trade:
        checks = [*checks, check_tradeoff(group)]
    chart = setting.bar_chart
    read = at_gain(group)
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
        reference=reference,
        hypervolumes=hypervolumes(group, reference),
        at_gain=read,
        against=against(group, read, reference),
        attained=attained(group),
        budgets=budgets(group),
        notes=[
            *notes,
            *dict.fromkeys(foreign[record.run_id] for record in group.records if record.run_id in foreign),
            *fairness_notes(group),
        ],
        checks=checks,
        pairs=compare_pairs(group),
        anchors=setting.anchors(group.model),
    )


def _count(
    out_dir: Path, records: Sequence[RunRecord], foreign: Collection[str], comparisons: Sequence[Comparison]
) -> Counts:
    own = [record for record in records if record.run_id not in foreign]
    finished = [record for record in own if record.status == "success"]
    rows = [row for c in comparisons for row in c.rows]
    planned = count_planned(out_dir)
    return Counts(
        planned=planned,
        finished=len(finished),
        judged=len(records) - len(own),
        failed=len(own) - len(finished),
        unfinished=sum(not (path.parent / "record.json").is_file() for path in out_dir.glob("*/spec.yaml")),
        missing=None if planned is None else max(0, planned - len(own)),
        items=sum(row.items for row in rows),
        unscored=sum(row.unscored for row in rows),
        flagged=sum(bool(record.flags) for record in records if record.status == "success"),
    )
