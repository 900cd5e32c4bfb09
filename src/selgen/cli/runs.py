"""Commands about single models: train, eval, chat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from selgen import config, record
from selgen.cli.common import (
    Alignment,
    Failed,
    HeldOut,
    Model,
    Overrides,
    SkipBadRows,
    Task,
    app,
    check_out,
    clear_errors,
    compose,
    err,
    out,
)
from selgen.config import ConfigError
from selgen.record import Measured, Point


@app.command()
def train(
    overrides: Overrides = None,
    config_file: Annotated[Path | None, typer.Option("-c", "--config", help="YAML file of one run.")] = None,
    model: Model = None,
    task: Task = None,
    alignment: Alignment = None,
    held_out: HeldOut = None,
    method: Annotated[str | None, typer.Option(help="How to train; its fields are method.FIELD=VALUE.")] = None,
    skip_bad_rows: SkipBadRows = False,
    out_dir: Annotated[Path, typer.Option("--out", help="The run's directory is made inside.")] = Path("runs"),
) -> None:
    """Train and evaluate one run: one method at one strength with one seed, on a setting or on your own data."""
    with clear_errors():
        from selgen import plan, progress, ranks, refusals, starting

        data = compose(config_file, model, task, alignment, held_out, skip_bad_rows)
        if config_file is None:
            data = {key: value for key, value in data.items() if key not in ("seeds", "curves")}
        chosen = [f"method={method}"] if method else []
        spec = plan.parse_run(config.override(data, [*chosen, *(overrides or [])]))
        if (out_dir / "sweep.yaml").is_file():
            raise ConfigError([f"{out_dir} holds a sweep. Choose another --out for a single run."])
        check_out(out_dir)
        starting.check_machine(spec)
        refusals.check_launch(spec.lineage())
        ranks.start()
        with progress.Bar(err) as bar:
            with ranks.local_first():  # a miniature is built once
                jobs = starting.jobs(spec.lineage(), bar.building)
            done = [job for job in jobs[:-1] if record.is_finished(out_dir / job.run_id)]
            bar.begin(jobs, done)
            from transformers.utils.logging import disable_progress_bar

            from selgen.run import execute

            disable_progress_bar()  # bars for loading weights, beside ours
            for job in jobs:
                result = execute(job, out_dir, bar.progress)
                if job not in done:
                    bar.finished(job)
        ranks.stop()
        points = [(f"{p.split}, step {p.step}", p) for p in result.points]
        if points:
            out.print(_points(f"{result.method}, seed {result.seed}", points))
        for flag in result.flags:
            out.print(f"Note: {flag.removesuffix('.')}.", markup=False)
        if result.error:
            raise Failed(f"run {result.run_id} failed: {result.error.message}")
        if result.first:
            out.print(f"Starts from: {out_dir / result.first}", markup=False)
        if result.parent:
            out.print(f"Changed from: {out_dir / result.parent}", markup=False)
        out.print(
            f"Run: {out_dir / result.run_id}. Beside its base: selgen eval {out_dir / result.run_id}", markup=False
        )
        if result.sequences:
            out.print(f"Model: {out_dir / result.run_id / record.ADAPTER}", markup=False)


@app.command("eval")
def evaluate(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN|KEY=VALUE]...", help="Run directories, and overrides.")
    ] = None,
    config_file: Annotated[Path | None, typer.Option("-c", "--config", help="YAML file that names a setting.")] = None,
    model: Model = None,
    setting: Annotated[str | None, typer.Option(help="Setting to measure --model on.")] = None,
    task: Task = None,
    alignment: Alignment = None,
    held_out: HeldOut = None,
    skip_bad_rows: SkipBadRows = False,
    split: Annotated[Literal["val", "test"], typer.Option(help="Which prompts.")] = "test",
    samples: Annotated[Path | None, typer.Option(help="Write every prompt and answer to this JSONL file.")] = None,
) -> None:
    """Measure finished runs on their own setting, or any model or adapter on a setting or on your data."""
    with clear_errors():
        from transformers.utils.logging import disable_progress_bar

        from selgen import opened

        disable_progress_bar()
        overrides = [text for text in runs or [] if "=" in text and not Path(text).is_dir()]
        run_dirs = [Path(text) for text in runs or [] if text not in overrides]
        named = [config_file, task, alignment, held_out, skip_bad_rows]
        problems = _eval_problems(len(run_dirs), model, setting, any(named), config_file or task, samples)
        if problems:
            raise ConfigError(problems)
        if model:
            data = (
                {"setting": setting}
                if setting
                else compose(config_file, None, task, alignment, held_out, skip_bad_rows)
            )
            found = iter([(model, opened.open_model(data, model, overrides))])
        else:
            for path in run_dirs:  # before the first of them is measured, which can take long
                opened.read_run(path)
            found = ((str(path), opened.open_run(path, overrides)) for path in run_dirs)
        for name, one in found:
            if model:
                seed = one.spec.training.seed
                out.print(f"Rows held out by seed {seed}: a model trained with another seed has seen some of them.")
            sides = {"base": one.measure_start(split)} if one.is_tuned else {}
            sides["tuned" if one.is_tuned else "model"] = one.measure(split)
            out.print(_points(f"{name}, {split}", [(side, point) for side, (point, _) in sides.items()]))
            if samples is not None:
                for side, (_, said) in sides.items():
                    record.append_jsonl(samples, [{"model": name, "side": side, **row} for row in said])
        if samples is not None:
            out.print(f"Samples: {samples}", markup=False)


@app.command()
def chat(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a finished run.")],
    system: Annotated[str | None, typer.Option(help="System prompt of both conversations.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 answers greedily.")] = 0.0,
) -> None:
    """Talk to the starting and the tuned model side by side; each keeps its own conversation."""
    with clear_errors():
        from transformers.utils.logging import disable_progress_bar

        from selgen import opened
        from selgen.generate import Generation
        from selgen.report.safe import visible
        from selgen.talk import Talk

        disable_progress_bar()
        # Nothing is judged in a conversation, so the judge need not be there either.
        run = opened.open_run(run_dir, ["judge=null"], with_data=False)
        talk = Talk(run, Generation(max_new_tokens, temperature=temperature), system)
        out.print("Both models answer each message. /new starts again, /quit ends.")
        while (said := _message()) is not None:
            if said == "/new":
                talk.restart()
            elif said.startswith("/"):
                out.print(f"Unknown command {said.split()[0]}. Commands: /new, /quit.", markup=False)
            elif said:
                try:
                    base, tuned = talk.say(said)
                except ValueError as error:
                    raise Failed(str(error)) from error
                table = Table(expand=True)
                for heading in ("base", f"tuned: {talk.name}"):
                    table.add_column(Text(heading), ratio=1)
                table.add_row(Text(visible(base)), Text(visible(tuned)))
                out.print(table)


def _eval_problems(
    num_runs: int, model: str | None, setting: str | None, has_data: bool, source: object, samples: Path | None
) -> list[str]:
    """What is wrong with the options of `eval` together.

    Args:
        has_data: Whether any option names a config or data.
        source: The config file or task data, if one is named.
    """
    problems = []
    if num_runs and (model or setting or has_data):
        problems.append("RUN directories are measured on their own setting. Give them, or --model, not both.")
    elif not num_runs and not model:
        problems.append("Say what to measure: RUN directories, or --model with --setting, -c or --task.")
    elif model and setting and has_data:
        problems.append(f"--setting {setting} and -c or your own data exclude each other. Give one of them.")
    elif model and not (setting or source):
        problems.append(f"Say what to measure {model} on: --setting, -c, or --task with your own data.")
    if samples is not None and samples.exists():
        problems.append(f"--samples should name a new file, found {samples}. Remove it, or name another.")
    elif samples is not None and not samples.absolute().parent.is_dir():
        problems.append(f"--samples should lie in a directory that exists, found {samples}. Make it, or name another.")
    return problems


def _message() -> str | None:
    """What the user types; None to end."""
    try:
        said = out.input("[bold]you>[/] ").strip()
    except EOFError:
        return None
    return None if said == "/quit" else said


def _points(title: str, points: Sequence[tuple[str, Point]]) -> Group:
    """Every axis that the setting has, then every measured column, one row a point.

    Args:
        points: What each is, and its numbers.
    """
    axes_table = Table(title=Text(title), title_justify="left", box=None)
    axes = list(dict.fromkeys(axis for _, point in points for axis, m in point.axes.items() if m.n))
    for heading in ("", *axes):
        axes_table.add_column(heading, justify="right")
    for label, point in points:
        axes_table.add_row(Text(label), *(_percent(point.axes.get(axis)) for axis in axes))
    columns = Table(title="By column", title_justify="left", box=None)
    for heading in ("column", "", "value", "n", "unscored", "mean"):
        columns.add_column(heading, justify="right" if heading in ("value", "n", "unscored") else "left")
    for column in dict.fromkeys(column for _, point in points for column in point.metrics):
        for label, point in points:
            m = point.metrics.get(column)
            if m is not None:
                raw = ", ".join(f"{name} {number:.3f}" for name, number in m.raw.items())
                columns.add_row(Text(column), Text(label), _percent(m), str(m.n), str(m.unscored), raw)
    return Group(axes_table, columns)


def _percent(m: Measured | None) -> str:
    return "-" if m is None or m.value is None else f"{100 * m.value:.1f} %"
