"""Copy the chosen adapter to where the user wants it, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from selgen.choose.choice import Choice
from selgen.config import ConfigError
from selgen.record import CHOICE, RecordError, write_atomic


def copy_adapter(choice: Choice, target: Path) -> Choice:
    """Copy the chosen run's adapter to `target`, with a `choice.json` beside its files.

    The copy is made under another name and renamed at the end, so that a crash leaves no half of it at `target`.

    Args:
        choice: What `choose` found.
        target: Directory to make; an earlier choice in it is replaced.

    Returns:
        The choice, which knows its copy.

    Raises:
        ConfigError: `target` exists and is not an earlier choice.
        RecordError: the run's adapter is no longer on disk.
    """
    target = Path(target)
    if not choice.adapter.is_dir():
        raise RecordError(f"{choice.adapter} is not on disk. Run {choice.run_id} again, or choose again.")
    if target.is_symlink() or (target.exists() and not (target / CHOICE).is_file()):
        raise ConfigError(
            [f"--to is {target}, which exists and is no earlier choice of selgen ({CHOICE}). Name another, or move it."]
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, earlier = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    try:
        shutil.copytree(choice.adapter, draft)
        said = as_json(choice) | {"run": os.path.relpath(choice.home, target)}
        write_atomic(draft / CHOICE, json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        if target.exists():
            target.rename(earlier)
        try:
            draft.rename(target)
        except OSError:
            if earlier.exists():
                earlier.rename(target)
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(earlier, ignore_errors=True)
    return replace(choice, copied=target)


def as_json(choice: Choice) -> dict[str, object]:
    """Plain data; places on this machine are left out, the run id says where the adapter comes from."""
    return {key: value for key, value in asdict(choice).items() if key not in ("adapter", "home", "copied")}
