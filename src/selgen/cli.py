"""The command line. Commands import what they need when they run: `--help`, `list` and `report` never load torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from selgen import config, record, registry
from selgen.config import ConfigError

app = typer.Typer(
    help="Selective generalization: learn a task, keep the alignment; the result is a trade-off curve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# Tables in a file or a pipe are not squeezed into the 80 columns of a missing terminal.
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True, soft_wrap=True, highlight=False)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides of the config, e.g. training.learning_rate=1e-3."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes at a time; default: one per core.")]
Retry = Annotated[int, typer.Option(min=0, help="Times that a run is tried again that failed or whose worker died.")]
BASE_HELP = "The untouched starting model: evaluated, not trained. Part of every sweep."
MODELS = {
    "miniature": "The setting's own small model, trained on this machine once and cached.",
    "DIR": "A local Hugging Face model or adapter directory.",
    "OWNER/NAME": "A model on the Hugging Face hub.",
}


class Failed(Exception):
    """The command did its work, and what it reports is a failure; the message says which."""


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What the user can mend is told without a traceback: exit code 2 for the config, 1 for the rest."""
    try:
        yield
    except ConfigError as error:
        err.print(f"[bold red]{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}[/]")
        for problem in error.problems:
            err.print(f"  - {problem}", markup=False)
        raise typer.Exit(2) from error
    except (Failed, record.RecordError, record.Busy, FileNotFoundError) as error:
        err.print("[bold red]error[/]", end=" ")
        err.print(str(error), markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        err.print("Stopped. What is finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from error


@app.command()
def demo(
    overrides: Overrides = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Output directory.")] = Path("runs/demo"),
    workers: Workers = None,
) -> None:
    """Train the sycophancy miniature, sweep the methods, and show the trade-off. Repeated, it trains nothing."""
    with _clear_errors():
        shipped = Path(str(files("selgen") / "configs" / "demo.yaml"))
        data = config.override(config.read_yaml(shipped), overrides or [])
        failure = _sweep(data, out_dir, workers, retry=0)
        _report(out_dir)
        if failure:
            raise Failed(failure)


@app.command()
def train(
    config_file: Annotated[Path, typer.Option("-c", "--config", help="YAML file of one run.")],
    overrides: Overrides = None,
    out_dir: Annotated[Path, typer.Option("--out", help="The run's directory is made inside.")] = Path("runs"),
) -> None:
    """Train and evaluate one run: one method at one strength with one seed."""
    with _clear_errors():
        from selgen import plan, progress

        spec = plan.parse_run(config.override(config.read_yaml(config_file), overrides or []))
        if (out_dir / "sweep.yaml").is_file():
            raise ConfigError([f"{out_dir} holds a sweep. Choose another --out for a single run."])
        with progress.Bar(err) as bar:
            job = plan.job(spec, plan.start(spec, bar.building))
            bar.begin([job], [])
            from transformers.utils.logging import disable_progress_bar

            from selgen.run import execute

            disable_progress_bar()  # bars for loading weights, beside ours
            result = execute(job, out_dir, bar.progress)
            bar.finished(job)
        out.print(_points(result))
        if result.error:
            raise Failed(f"run {result.run_id} failed: {result.error.message}")
        out.print(f"Run: {out_dir / result.run_id}", markup=False)


@app.command()
def sweep(
    out_dir: Annotated[Path, typer.Option("--out", help="Output directory; an unfinished sweep in it goes on.")],
    overrides: Overrides = None,
    config_file: Annotated[
        Path | None, typer.Option("-c", "--config", help="YAML file of the sweep; default: OUT/sweep.yaml.")
    ] = None,
    workers: Workers = None,
    retry: Retry = 0,
    dry_run: Annotated[bool, typer.Option(help="Print what would run; load no model, write nothing.")] = False,
) -> None:
    """Run methods x strengths x seeds under equal budgets. Interrupted, the same command resumes."""
    with _clear_errors():
        data = config.override(config.read_yaml(config_file or out_dir / "sweep.yaml"), overrides or [])
        if dry_run:
            out.print(_dry_run(data))
            return
        failure = _sweep(data, out_dir, workers, retry)
        out.print(f"Sweep: {out_dir}. Next: selgen report {out_dir}", markup=False)
        if failure:
            raise Failed(failure)


@app.command()
def report(out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Output directory of a sweep.")]) -> None:
    """Write OUT/report: a page with figures and tables, points.csv, summary.json."""
    with _clear_errors():
        _report(out_dir)


@app.command("list")
def list_names(what: Annotated[Literal["methods", "settings", "models"], typer.Argument(help="What to list.")]) -> None:
    """List the methods, settings or models that a config can name."""
    if what == "models":
        rows = dict(MODELS)
    else:
        rows = {name: registry.describe(what, name) for name in registry.names(what)}
        if what == "methods":
            rows = {"base": BASE_HELP, **rows}
    for name, text in rows.items():
        out.print(f"{name:<16} {text}", markup=False)


def _sweep(data: dict[str, Any], out_dir: Path, num_workers: int | None, retry: int) -> str | None:
    """Carry out a sweep; returns what failed in it, if anything."""
    from selgen import plan, progress, sweep
    from selgen.workers import WorkerDied

    spec = plan.parse_sweep(data)
    try:
        with progress.Bar(err) as bar:
            records = sweep.sweep(
                spec, out_dir, num_workers=num_workers or sweep.default_workers(), retry=retry, watcher=bar
            )
    except WorkerDied as error:
        return str(error)
    failed = [r for r in records if r.error]
    if not failed:
        return None
    lines = [f"  {r.run_id} {r.curve} {r.strength} seed {r.seed}: {r.error.message}" for r in failed if r.error]
    return "\n".join([f"{len(failed)} of {len(records)} runs failed:", *lines])


def _report(out_dir: Path) -> None:
    from selgen import report
    from selgen.report.runs import ReportError

    try:
        out.print(report.render_console(report.write(out_dir)))
    except ReportError as error:
        raise Failed(str(error)) from error


def _dry_run(data: dict[str, Any]) -> Table:
    from selgen import plan

    runs = plan.parse_sweep(data).expand()
    table = Table(title=f"{len(runs)} runs", box=None)
    for heading in ("curve", "strength", "seed", "steps", "sequences", "prompts"):
        table.add_column(heading, justify="left" if heading == "curve" else "right")
    sizes = [plan.size(run) for run in runs]
    for run, size in zip(runs, sizes, strict=True):
        values = run.epochs or ([] if run.strength is None else [run.strength])
        strength = f"{run.strength_name or ''} {', '.join(f'{v:g}' for v in values)}".strip()
        numbers = (run.training.seed, size.steps, size.sequences, size.prompts)
        table.add_row(run.curve, strength, *map(str, numbers))
    total = (sum(s.steps for s in sizes), sum(s.sequences for s in sizes), sum(s.prompts for s in sizes))
    table.add_row("total", "", "", *map(str, total), style="bold")
    return table


def _points(result: record.RunRecord) -> Table:
    table = Table(title=f"{result.method}, seed {result.seed}", box=None)
    axes = list(dict.fromkeys(axis for point in result.points for axis in point.axes))
    for heading in ("step", "split", *axes):
        table.add_column(heading, justify="right")
    for point in result.points:
        values = [point.axes[axis].value if axis in point.axes else None for axis in axes]
        shown = ["-" if value is None else f"{100 * value:.1f} %" for value in values]
        table.add_row(str(point.step), point.split, *shown)
    return table


def main() -> None:
    """Entry point of the `selgen` command."""
    app()
