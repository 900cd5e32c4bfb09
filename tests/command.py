"""The command line within this process."""

from __future__ import annotations

import re

from typer.testing import CliRunner

from selgen.cli import app


def selgen(*arguments: object, typed: str | None = None) -> tuple[int, str]:
    """Exit code, and both streams as plain text with single spaces.

    Args:
        typed: What the user enters.

    Raises:
        Exception: what the command did not expect.
    """
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=typed)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, re.sub(r"\s+", " ", result.output)
