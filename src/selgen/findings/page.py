"""The findings as a page in Markdown and as JSON: table, commands, parts with numbers, counts, and readings by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from selgen.config import read_yaml
from selgen.findings.sources import Placed
from selgen.report.claims import Finding, Part, headline

RULES = (
    "One number per seed, on test; minima, maxima and means over methods or domains are taken inside the seed. A part "
    "holds if its 95 % interval (Student t over seeds, unless the claim names another) lies wholly on the claimed side "
    "of the bound, and fails if it lies wholly on the other. A claim holds if all parts hold, and fails if one fails. "
    "A method's strength is chosen on val: best alignment among those with at least 90 % of task_only's gain in "
    "score_y, unless the claim says otherwise. Statistics, bounds and directions were fixed before the runs; what the "
    "specification leaves open is in `docs/decisions/0013-how-the-claims-are-decided.md`. Prompts are not resampled."
)


Resolve = Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
"""Fills in what a sweep's config leaves out; None if it is no such config."""


def as_json(findings: Sequence[Finding]) -> str:
    """All findings as JSON text."""
    return json.dumps([asdict(f) for f in findings], indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def markdown(
    findings: Sequence[Finding],
    runs: Sequence[Placed],
    directories: Sequence[Path],
    command: str,
    readings: str | None,
    resolve: Resolve,
) -> str:
    """The page.

    Args:
        runs: What was read.
        directories: Where from.
        command: Makes the page again.
        readings: Text by hand, put at the end as it is; None for none.
        resolve: Tells which shipped config a sweep was made with.
    """
    lines = ["# The study's claims", "", headline(findings), "", RULES, "", "```"]
    configs = shipped(resolve)
    lines += [sweep_command(directory, resolve, configs) for directory in directories]
    lines += [
        command,
        "```",
        "",
        "| id | setting | claim | verdict | numbers [95 %] | seeds |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(finding) for finding in findings]
    lines += [
        "",
        "## Runs",
        "",
        "| directory | finished | failed | seeds | test items unscored |",
        "|---|---|---|---|---|",
    ]
    lines += [_counts(runs, directory) for directory in directories]
    lines += ["", "## The claims one by one"]
    for finding in findings:
        lines += ["", f"### {finding.id}: {finding.claim} ({finding.verdict})", "", f"{_text(finding.statistic)}.", ""]
        lines += [line for part in finding.parts for line in _detail(part)]
    if readings:
        lines += ["", "## Readings", "", readings.strip()]
    return "\n".join(lines) + "\n"


def shipped(resolve: Resolve) -> dict[str, Mapping[str, Any]]:
    """The sweeps that come with selgen: path of the config, from `configs/` on -> what it says in full."""
    root = Path(str(files("selgen") / "configs"))
    found = {f"configs/{path.relative_to(root)}": resolve(read_yaml(path)) for path in sorted(root.rglob("*.yaml"))}
    return {name: config for name, config in found.items() if config is not None}


def sweep_command(directory: Path, resolve: Resolve, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """The command that makes a sweep: with the shipped config that says the same as its sweep.yaml, else with that."""
    out, path = shlex.quote(str(directory)), directory / "sweep.yaml"
    swept = resolve(read_yaml(path)) if path.is_file() else None
    for name, config in configs.items():
        if config == swept:
            return f"selgen sweep -c {name} --out {out}"
    return f"selgen sweep --out {out}    # by its own sweep.yaml"


def _row(finding: Finding) -> str:
    numbers = "<br>".join(f"{_text(part.setting)}: {part.number} {_text(part.bound)}" for part in finding.parts)
    seeds = sorted({len(part.seeds) for part in finding.parts})
    shown = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        f"| {finding.id} | {finding.settings} | {_text(finding.claim)} | **{finding.verdict}** | {numbers} | {shown} |"
    )


def _detail(part: Part) -> list[str]:
    seeds = f"seeds {', '.join(map(str, part.seeds))}" if part.seeds else "no seed"
    left_out = f", left out {', '.join(map(str, part.left_out))}" if part.left_out else ""
    holm = "" if part.p_holm is None else f", p (Holm) {part.p_holm:.2g}"
    number = f"{_text(part.statistic)} {_text(part.bound)}: {part.number}{holm}"
    reason = f" ({_text(part.reason)})" if part.reason else ""
    lines = [f"* {_text(part.setting)}, {number}, {seeds}{left_out}: **{part.verdict}**{reason}"]
    evidence = [*part.notes, *([f"runs in {part.source}"] if part.source else [])]
    return [*lines, *([f"  {_text('; '.join(evidence))}."] if evidence else [])]


def _counts(runs: Sequence[Placed], directory: Path) -> str:
    own = [run.record for run in runs if run.directory == str(directory)]
    finished = [record for record in own if record.status == "success"]
    metrics = [m for r in finished for p in r.points if p.split == "test" for m in p.metrics.values()]
    unscored, items = sum(m.unscored for m in metrics), sum(m.n + m.unscored for m in metrics)
    seeds = ", ".join(map(str, sorted({record.seed for record in own})))
    return f"| `{directory}` | {len(finished)} | {len(own) - len(finished)} | {seeds} | {unscored} of {items} |"


def _text(text: str) -> str:
    """Plain text inside a Markdown table or list."""
    for mark in ("\\", "|", "<", ">", "*", "`"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
