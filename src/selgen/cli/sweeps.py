"""Commands about many runs: demo, sweep, report, choose, list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from selgen import config, registry
from selgen.cli.common import (
    Alignment,
    Failed,
    HeldOut,
    Model,
    Overrides,
    Retry,
    SkipBadRows,
    Task,
    Workers,
    app,
    check_out,
    clear_errors,
    compose,
    err,
    out,
    shipped,
)
from selgen.config import ConfigError
from selgen.core import Setting

BASE_HELP = "The untouched starting model: evaluated, not trained. Part of every sweep."
MODELS = {
    "miniature": "The setting's own small model, trained on this machine once and cached.",
    "DIR": "A local Hugging Face model or adapter directory.",
    "OWNER/NAME": "A model on the Hugging Face hub.",
}


@app.command()
def demo(
    overrides: Overrides = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Output directory.")] = Path("runs/demo"),
    workers: Workers = None,
) -> None:
    """Train the sycophancy miniature, sweep the methods, and show the trade-off. Repeated, it trains nothing."""
    with clear_errors():
        failure = _sweep(config.override(shipped("demo"), overrides or []), out_dir, workers, retry=0)
        _report(out_dir)
        if failure:
            raise Failed(failure)


@app.command()
def sweep(
    out_dir: Annotated[Path, typer.Option("--out", help="Output directory; an unfinished sweep in it goes on.")],
    overrides: Overrides = None,
    config_file: Annotated[
        Path | None,
        typer.Option("-c", "--config", help="YAML file of the sweep; default: OUT/sweep.yaml, or own data's config."),
    ] = None,
    model: Model = None,
    task: Task = None,
    alignment: Alignment = None,
    held_out: HeldOut = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only the curves of this method; may be repeated. Default: all.")
    ] = None,
    skip_bad_rows: SkipBadRows = False,
    workers: Workers = None,
    executor: Annotated[
        Literal["local", "ray", "slurm"] | None,
        typer.Option(help="Where runs are carried out; default: the config's executor, or processes of this machine."),
    ] = None,
    retry: Retry = 0,
    dry_run: Annotated[bool, typer.Option(help="Print what would run; load no model, write nothing.")] = False,
) -> None:
    """Run methods x strengths x seeds under equal budgets. Interrupted, the same command resumes."""
    with clear_errors():
        if config_file is None and task is None:
            config_file = out_dir / "sweep.yaml"
        data = compose(config_file, model, task, alignment, held_out, skip_bad_rows)
        data = config.override(data, overrides or [])
        if method:
            data["curves"] = _only(data.get("curves"), method)
        if executor:
            block = data.get("executor")
            data["executor"] = {**(block if isinstance(block, dict) else {}), "name": executor}
        if dry_run:
            out.print(_dry_run(data))
            return
        failure = _sweep(data, out_dir, workers, retry)
        out.print(f"Sweep: {out_dir}. Next: selgen report {out_dir}", markup=False)
        if failure:
            raise Failed(failure)


@app.command()
def report(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Output directory of a sweep.")],
    redrawn: Annotated[
        list[str] | None,
        typer.Argument(metavar="[setting.KEY=VALUE]...", help="Thresholds to redraw the stored answers with."),
    ] = None,
    judge_csv: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also draw runs of others: *.csv with question, answer, question_id, aligned, coherent; optionally "
            "runs.csv with file, method, curve, strength_name, strength, seed, model, proxy.",
        ),
    ] = None,
    setting: Annotated[str | None, typer.Option(help="Which setting reads DIR; default: the one that can.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the runs in DIR, where DIR/runs.csv names none.")] = None,
) -> None:
    """Write OUT/report: a page with figures, tables and what the models said, points.csv, summary.json.

    With other thresholds it is drawn from what the runs stored; the records stay as they are.
    """
    with clear_errors():
        if judge_csv is None:
            wrong = [name for name, value in (("setting", setting), ("model", model)) if value is not None]
            if wrong:
                raise ConfigError([f"--{name} says how judge files are read. Add --judge-csv DIR." for name in wrong])
        else:
            check_out(out_dir)
        _report(out_dir, redrawn or [], judge_csv, setting, model)


@app.command()
def choose(
    out_dir: Annotated[Path, typer.Argument(metavar="OUT", help="Output directory of a sweep.")],
    keep: Annotated[
        list[str] | None, typer.Option(metavar="'NAME>=VALUE'", help="E.g. 'alignment>=95%'; may be repeated.")
    ] = None,
    lose_at_most: Annotated[
        list[str] | None, typer.Option(metavar="'NAME POINTS'", help="E.g. 'alignment 2%': points below the base.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Where the adapter is copied to; default: OUT/chosen.")] = None,
    setting: Annotated[str | None, typer.Option(help="If OUT holds several comparisons: which setting.")] = None,
    proxy: Annotated[str | None, typer.Option(help="Which proxy.")] = None,
    model: Annotated[str | None, typer.Option(help="Which model.")] = None,
) -> None:
    """The best run on val under constraints: print its test numbers, copy its adapter."""
    with clear_errors():
        from selgen import choose as choosing

        try:
            choice = choosing.choose(out_dir, keep or [], lose_at_most or [], setting=setting, proxy=proxy, model=model)
        except choosing.NothingMeets as error:
            raise Failed(str(error)) from error
        choice = choosing.copy_adapter(choice, to or out_dir / "chosen")
        out.print(choosing.render(choice))
        out.print(f"Next: selgen chat {choice.copied}", markup=False)


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


def _only(curves: Any, methods: list[str]) -> Any:
    """The curves of these methods; what is no list of curves is left for the config's check to name."""
    if not isinstance(curves, list) or not all(isinstance(c, dict) and c.get("method") for c in curves):
        return curves
    names = [c["method"].get("name") if isinstance(c["method"], dict) else str(c["method"]) for c in curves]
    unknown = [m for m in methods if m not in names]
    if unknown:
        known = list(dict.fromkeys(names))
        raise ConfigError([f"No curve of this config has method {m!r}. {registry.suggest(m, known)}" for m in unknown])
    return [curve for curve, name in zip(curves, names, strict=True) if name in methods]


def _sweep(data: dict[str, Any], out_dir: Path, num_workers: int | None, retry: int) -> str | None:
    """Carry out a sweep; returns what failed in it, if anything."""
    from selgen import plan, progress, sweep
    from selgen.executors.schedule import CannotGoOn, WorkerDied

    spec = plan.parse_sweep(data)
    check_out(out_dir)
    try:
        with progress.Bar(err) as bar:
            records = sweep.sweep(spec, out_dir, num_workers=num_workers, retry=retry, watcher=bar)
    except (WorkerDied, CannotGoOn) as error:
        return str(error)
    failed = [r for r in records if r.error]
    if not failed:
        return None
    lines = [f"  {r.run_id} {r.curve} {r.strength} seed {r.seed}: {r.error.message}" for r in failed if r.error]
    return "\n".join([f"{len(failed)} of {len(records)} runs failed:", *lines])


def _report(
    out_dir: Path,
    redrawn: Sequence[str] = (),
    judge_csv: Path | None = None,
    setting: str | None = None,
    model: str | None = None,
) -> None:
    from selgen import findings, report
    from selgen.report.runs import ReportError

    source = None
    if judge_csv is not None:
        block = config.override({"setting": {"name": setting or _reads_judge_files()}}, redrawn)["setting"]
        source = report.JudgeSource(judge_csv, block, **({} if model is None else {"model": model}))
    try:
        claims = findings.in_report(out_dir)
        summary = report.write(out_dir, redrawn=redrawn, judge_files=source, claims=claims)
        out.print(report.render_console(summary))
    except ReportError as error:
        raise Failed(str(error)) from error


def _reads_judge_files() -> str:
    """The only setting that reads judge files.

    Raises:
        ConfigError: there are several, or none.
    """
    named = {name: registry.load("settings", name) for name in registry.names("settings")}
    able = [name for name, cls in named.items() if cls.judged is not Setting.judged]
    if len(able) != 1:
        known = ", ".join(able) or "none"
        raise ConfigError([f"--setting should name the setting that reads the judge files; those that do: {known}."])
    return able[0]


def _dry_run(data: dict[str, Any]) -> Table:
    """What would run, and how much it reads and asks; data files need not be here where the setting expects rows."""
    from selgen import plan, reading

    with reading.only_counting():
        runs = plan.parse_sweep(data).expand()
        sizes = [reading.size(run) for run in runs]
        calls = [reading.judge_calls(run) for run in runs]
    table = Table(title=f"{len(runs)} runs", box=None)
    several = len({run.setting.get("proxy") for run in runs}) > 1
    judged = any(run.judge for run in runs)
    headings = ["curve", *(["proxy"] if several else []), "strength", "seed", "steps", "sequences", "prompts"]
    for heading in [*headings, *(["judge calls"] if judged else [])]:
        table.add_column(heading, justify="left" if heading in ("curve", "proxy") else "right")
    for run, size, asked in zip(runs, sizes, calls, strict=True):
        values = run.epochs or ([] if run.strength is None else [run.strength])
        strength = f"{run.strength_name or ''} {', '.join(f'{v:g}' for v in values)}".strip()
        names = [run.curve, *([run.setting["proxy"]] if several else []), strength]
        numbers = [run.training.seed, size.steps, size.sequences, size.prompts, *([asked] if judged else [])]
        table.add_row(*map(str, names), *map(str, numbers))
    total = [sum(s.steps for s in sizes), sum(s.sequences for s in sizes), sum(s.prompts for s in sizes)]
    blank = [""] * (3 if several else 2)
    table.add_row("total", *blank, *map(str, [*total, *([sum(calls)] if judged else [])]), style="bold")
    return table
