"""The command line. Commands import what they need when they run: `--help`, `list` and `report` never load torch."""

from __future__ import annotations

# Importing a module of commands registers them.
from selgen.cli import claims as claims
from selgen.cli import judging as judging
from selgen.cli import runs as runs
from selgen.cli import sweeps as sweeps
from selgen.cli.common import app


def main() -> None:
    """Entry point of the `selgen` command."""
    app()
