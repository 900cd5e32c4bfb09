"""What the commands share: the app, consoles, options, and errors that teach."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from selgen import config, launch, record
from selgen.config import ConfigError
from selgen.storage import Unusable

app = typer.Typer(
    help="Selective generalization: learn a task, keep the alignment; the result is a trade-off curve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# peft asks transformers by a name that transformers has deprecated.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
# Tables in a file or a pipe are not squeezed into the 80 columns of a missing terminal.
# Of processes that were launched together the first speaks, and of each other machine one says what is wrong there.
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 120, quiet=launch.rank() > 0)
err = Console(stderr=True, soft_wrap=True, highlight=False, quiet=launch.world() > 1 and launch.local_rank() > 0)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Dotted overrides of the config, e.g. training.learning_rate=1e-3."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; default: one per core; all that a cluster takes.")
]
Retry = Annotated[int, typer.Option(min=0, help="Times that a run is tried again that failed or whose worker died.")]
Model = Annotated[str | None, typer.Option("--model", help="Model or adapter directory, or hub id.")]
Task = Annotated[str | None, typer.Option("--task", help="Your task data: a file, directory or hub id.")]
Alignment = Annotated[str | None, typer.Option("--alignment", help="Your alignment data.")]
HeldOut = Annotated[
    list[str] | None,
    typer.Option("--held-out", metavar="NAME=SOURCE", help="Rows to measure and never train on; may be repeated."),
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out, counted, and go on.")]


@app.callback()
def _launched(context: typer.Context) -> None:
    if launch.world() > 1 and context.invoked_subcommand != "train":
        with clear_errors():
            raise ConfigError(
                [
                    f"selgen {context.invoked_subcommand} should be started once, found {launch.world()} processes of "
                    "torchrun or accelerate launch. Start it without them; several GPUs together carry out one run: "
                    "accelerate launch ... -m selgen train."
                ]
            )


class Failed(Exception):
    """The command did its work, and what it reports is a failure; the message says which."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user can mend is told without a traceback: exit code 2 for the config, 1 for the rest."""
    try:
        yield
    except ConfigError as error:
        err.print(f"[bold red]{len(error.problems)} problem{'s' if len(error.problems) > 1 else ''}[/]")
        for problem in error.problems:
            err.print(f"  - {problem}", markup=False)
        raise typer.Exit(2) from error
    except launch.FailedElsewhere as error:
        raise typer.Exit(1) from error
    except (Failed, record.RecordError, record.Busy, Unusable, FileNotFoundError) as error:
        err.print("[bold red]error[/]", end=" ")
        err.print(str(error), markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        err.print("Stopped. What is finished is kept; the same command goes on from there.")
        raise typer.Exit(130) from error


def check_out(out_dir: Path) -> None:
    """Make sure that an output directory can be made, before anything is loaded; makes none.

    Raises:
        ConfigError: something that is no directory is in its place, or it cannot be written.
    """
    nearest = next(path for path in (out_dir.absolute(), *out_dir.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ConfigError([f"--out should be a directory, found {out_dir}: {nearest} is a file. Name another."])
    if not os.access(nearest, os.W_OK):
        raise ConfigError([f"--out should be a directory that you may write, found {out_dir}. Name another."])


def shipped(name: str) -> dict[str, Any]:
    """A config that comes with selgen."""
    return config.read_yaml(Path(str(files("selgen") / "configs" / f"{name}.yaml")))


def compose(
    config_file: Path | None,
    model: str | None,
    task: str | None,
    alignment: str | None,
    held_out: list[str] | None,
    skip_bad_rows: bool,
) -> dict[str, Any]:
    """A config from a file, from the options for own data, or from both: the options win.

    Raises:
        ConfigError: neither names any data, or `--held-out` is not NAME=SOURCE with names that differ.
    """
    own = shipped("own_data")
    if config_file is None and task is None:
        raise ConfigError(["Say what to train on: -c FILE, or --model, --task and --alignment for your own data."])
    data = own if config_file is None else config.read_yaml(config_file)
    fields: dict[str, Any] = {}
    if task is not None:
        fields["task"] = task
    if alignment is not None:
        fields["alignment"] = alignment
    if held_out:
        pairs = [text.partition("=") for text in held_out]
        wrong = [
            f"--held-out should be NAME=SOURCE, found {a!r}. Name its domain." for a, equals, _ in pairs if not equals
        ]
        names = [name for name, _, _ in pairs]
        twice = {name for name in names if names.count(name) > 1}
        wrong += [f"--held-out names {name!r} more than once. Give each source its own name." for name in sorted(twice)]
        if wrong:
            raise ConfigError(wrong)
        fields["held_out"] = {name: source for name, _, source in pairs}
    if skip_bad_rows:
        fields["skip_bad_rows"] = True
    if fields:
        block = data.get("setting")
        same = isinstance(block, dict) and block.get("name") == own["setting"]["name"]
        data["setting"] = {**(block if same and block else own["setting"]), **fields}
    if model is not None:
        block = data.get("model")
        data["model"] = {**(block if isinstance(block, dict) else {}), "name": model}
    return data
