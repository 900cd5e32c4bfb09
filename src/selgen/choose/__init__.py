"""Choose a point of the trade-off on val under constraints, report it on test, and take its adapter home.

Val chooses, test only reports: nothing in this room compares two candidates by a test number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selgen.choose.choice import Choice, kept_of, number_of, render
from selgen.choose.constraints import check_names, parse
from selgen.choose.rule import NothingMeets, adapter_of, find_candidates, make_rule, nearest_text, pick_run, run_dir
from selgen.choose.take import copy_adapter
from selgen.config import ConfigError
from selgen.record import RecordError, read_all
from selgen.registry import suggest
from selgen.report.runs import AXES, Group, group_runs
from selgen.report.summary import comparison_name

__all__ = ["Choice", "NothingMeets", "choose", "copy_adapter", "render"]


def choose(
    out_dir: Path,
    keep: Sequence[str] = (),
    lose_at_most: Sequence[str] = (),
    *,
    setting: str | None = None,
    proxy: str | None = None,
    model: str | None = None,
) -> Choice:
    """The best point of a sweep that meets the constraints on val.

    A point is a curve at one strength. It is a candidate if it was trained, has a val point on every seed of its
    comparison, and left its adapter on disk (a run with an adapter leaves one for each epoch measured). Among those
    that meet the constraints on their means over seeds the one with the highest mean score_y wins, or with the highest
    alignment if the constraints are on score_y, task or capability alone; of equals the one better on the other, then
    by name.

    Args:
        out_dir: Output directory of a sweep.
        keep: Constraints such as `alignment>=95%`; all must be met.
        lose_at_most: Constraints such as `alignment 2%`: the mean at most 2 percentage points below the base's mean.
        setting: Needed, as are `proxy` and `model`, only to tell several comparisons in one directory apart.

    Raises:
        ConfigError: a constraint cannot be read or names nothing measured, or the comparison is not clear.
        RecordError: there are no records, or none of their points can be chosen.
        NothingMeets: no candidate meets the constraints.
    """
    constraints = parse(keep, lose_at_most)
    group = _one_group(Path(out_dir), setting, proxy, model)
    check_names(constraints, [*AXES, *group.columns])
    rule = make_rule(constraints, group.base)
    names = list(dict.fromkeys(["score_y", "alignment", *(c.name for c in constraints)]))
    candidates, left_out = find_candidates(group, Path(out_dir), names)
    good = [candidate for candidate in candidates if rule.met(candidate.means)]
    if not good:
        raise NothingMeets(nearest_text(rule, candidates))
    best = min(good, key=lambda c: (-c.means[rule.objective], -c.means[rule.second], c.cell.label))
    run_id, seed, note = pick_run(best.cell, rule, names)
    return Choice(
        comparison=comparison_name(group.setting, group.proxy, group.model),
        label=best.cell.label,
        rule=rule.text + ("; every point meets that, so nothing is excluded" if len(good) == len(candidates) else ""),
        candidates=len(candidates),
        left_out=left_out,
        seeds=sorted(best.cell.points["val"]),
        numbers=[number_of(best.cell, seed, name) for name in dict.fromkeys([*AXES, *names])],
        kept=[kept_of(c, bound, best.cell, seed, group.base) for c, bound in rule.bounded],
        run_id=run_id,
        seed=seed,
        run_note=note,
        home=run_dir(Path(out_dir), run_id),
        adapter=adapter_of(best.cell, seed, Path(out_dir)),
    )


def _one_group(out_dir: Path, setting: str | None, proxy: str | None, model: str | None) -> Group:
    groups = group_runs(read_all(out_dir))
    if not groups:
        raise RecordError(f"{out_dir} has no finished runs. Name the output directory of a sweep.")
    problems = []
    for field, wanted in (("setting", setting), ("proxy", proxy), ("model", model)):
        known = list(dict.fromkeys(str(getattr(group, field)) for group in groups))
        if wanted is not None and wanted not in known:
            problems.append(f"--{field} is {wanted!r}, but no run in {out_dir} has it. {suggest(wanted, known)}")
        elif wanted is not None:
            groups = [group for group in groups if str(getattr(group, field)) == wanted]
    if not problems and len(groups) > 1:
        which = "; ".join(f"--setting {g.setting} --proxy {g.proxy} --model {g.model}" for g in groups)
        problems.append(f"{out_dir} holds {len(groups)} comparisons, and a choice is made in one. Add one of: {which}.")
    if problems:
        raise ConfigError(problems)
    return groups[0]
