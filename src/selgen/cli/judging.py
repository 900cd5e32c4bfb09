"""The command about judges: ask again for what finished runs lack."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from selgen.cli.common import app, clear_errors, out
from selgen.config import ConfigError
from selgen.record import RunRecord

if TYPE_CHECKING:
    from selgen import rejudge


@app.command()
def judge(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Output directory of a sweep, or a run's.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[judge.KEY=VALUE]...", help="How to reach the judge, e.g. judge.concurrency=2."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print how many judgements are missing; ask and write nothing.")
    ] = False,
) -> None:
    """Ask the judge for every score that finished runs lack, and bring their points up to date."""
    with clear_errors():
        from selgen import rejudge

        runs, without = rejudge.judged_runs(out_dir)
        if without:
            out.print(f"Left as they are, having no judge: {without} of {without + len(runs)} finished runs.")
        judges = rejudge.judges_of([r for _, r in runs], overrides or [])
        if dry_run:
            counts = [rejudge.count_missing(run_dir) for run_dir, _ in runs]
            out.print(_table(["missing"], [r for _, r in runs], [(n,) for n in counts]))
            out.print(f"{sum(counts)} judgements are missing; equal prompts are asked once, known verdicts are free.")
            return
        try:
            for one in dict(zip(map(id, judges), judges, strict=True)).values():
                one.check()
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        found = []
        for i, ((run_dir, r), one) in enumerate(zip(runs, judges, strict=True), 1):
            found.append(rejudge.judge_again(run_dir, one))
            came = f"{found[-1].scored} of {found[-1].missing} missing judgements came"
            out.print(f"{i} of {len(runs)}: run {r.run_id}: {came}")
        out.print(_table(["missing", "came", "remain"], [x.record for x in found], [_counts(x) for x in found]))
        missing, scored, remaining = (sum(numbers) for numbers in zip(*map(_counts, found), strict=True))
        unread = sum(x.unread for x in found)
        silent = f" ({unread} of them replied to without a score)" if unread else ""
        out.print(f"{missing} judgements were missing, {scored} came, {remaining} remain unscored{silent}.")
        usage: Counter[str] = Counter()
        for x in found:
            usage.update(x.usage)
        if usage:
            out.print(f"Judge: {', '.join(f'{name} {value:,.6g}' for name, value in usage.items())}.", markup=False)
        out.print(f"Next: selgen report {out_dir}", markup=False)


def _counts(x: rejudge.Rejudged) -> tuple[int, int, int]:
    return x.missing, x.scored, x.remaining


def _table(headings: list[str], records: list[RunRecord], numbers: list[tuple[int, ...]]) -> Table:
    """One row per run."""
    table = Table(box=None)
    for heading in ("run", "curve", "strength", "seed", *headings):
        table.add_column(heading, justify="left" if heading in ("run", "curve") else "right")
    for r, row in zip(records, numbers, strict=True):
        strength = "" if r.strength is None else f"{r.strength_name} {r.strength:g}"
        table.add_row(r.run_id, Text(r.curve), strength, str(r.seed), *map(str, row))
    return table
