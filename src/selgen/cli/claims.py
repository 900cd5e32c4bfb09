"""The command about a study's claims: findings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selgen.cli.common import app, clear_errors, out

USUAL_SEEDS = 5
"""Seeds that the claims were meant to be decided with; fewer are allowed, and told."""
READINGS = "_readings"


@app.command()
def findings(
    out_dirs: Annotated[list[Path], typer.Argument(metavar="OUT...", help="Output directories of sweeps.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the findings as JSON.")
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Write them as a page; FILE's neighbour NAME_readings.md, written by hand, is put at its end.",
        ),
    ] = None,
) -> None:
    """Decide the study's 20 claims from finished sweeps: statistic, interval, seeds, and holds, fails or undecided."""
    with clear_errors():
        from selgen import findings as study
        from selgen.findings import page
        from selgen.record import write_atomic
        from selgen.report import claims

        directories = list(dict.fromkeys(out_dirs))
        runs = study.read(directories)
        found = study.decide(study.sources(runs))
        out.print(claims.table(found))
        out.print(claims.headline(found), markup=False)
        seeds = sorted({run.record.seed for run in runs})
        if len(seeds) < USUAL_SEEDS:
            few = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"
            out.print(f"Decided from {few}; meant are {USUAL_SEEDS}, and fewer leave more undecided.", markup=False)
        if json_file is not None:
            write_atomic(json_file, page.as_json(found))
            out.print(f"JSON: {json_file}", markup=False)
        if markdown_file is not None:
            beside = markdown_file.with_name(f"{markdown_file.stem}{READINGS}{markdown_file.suffix}")
            readings = beside.read_text(encoding="utf-8") if beside.is_file() else None
            command = shlex.join(["selgen", "findings", *map(str, directories), "--markdown", str(markdown_file)])
            write_atomic(markdown_file, page.markdown(found, runs, directories, command, readings, _resolved))
            out.print(f"Page: {markdown_file}", markup=False)


def _resolved(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    from selgen.config import ConfigError
    from selgen.grid import SweepSpec
    from selgen.sweep import as_data

    try:
        return as_data(SweepSpec.parse(config))
    except ConfigError:
        return None
