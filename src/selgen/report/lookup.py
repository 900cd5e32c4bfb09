"""Looks up what the records refer to: the setting's declarations, and the runs that the sweep planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selgen.config import ConfigError, read_yaml
from selgen.core import REFERENCE, Setting
from selgen.grid import reference_problems
from selgen.record import RunRecord
from selgen.spec import canonical, make_setting

SettingOf = Callable[[RunRecord], Setting]


def declared_setting(record: RunRecord) -> Setting:
    """The setting that a run names, with the options that it ran with.

    Raises:
        ConfigError: this installation has no such setting, or it refuses the options.
    """
    return make_setting(record.spec["setting"])


def hypervolume_reference(out_dir: Path) -> tuple[float, float]:
    """(alignment, score_y) from which the areas under fronts are measured: `reference` of `<out>/sweep.yaml`.

    Raises:
        ConfigError: the file is not YAML, or names no such point.
    """
    path = out_dir / "sweep.yaml"
    found = read_yaml(path).get("reference", REFERENCE) if path.is_file() else REFERENCE
    try:
        reference = [float(x) for x in found]
    except (TypeError, ValueError) as error:
        raise ConfigError([f"{path}: reference should be two numbers, found {found!r}. Correct it there."]) from error
    if problems := reference_problems(reference):
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    alignment, score_y = reference
    return alignment, score_y


def count_planned(out_dir: Path) -> int | None:
    """Number of runs that `<out>/sweep.yaml` asks for; None if there is none (a single run).

    The file is resolved, so its numbers can be read off. `SweepSpec.expand` would load the methods and with them torch.

    Raises:
        ConfigError: the file is not YAML.
    """
    path = out_dir / "sweep.yaml"
    if not path.is_file():
        return None
    sweep = read_yaml(path)
    # One run of the base for each kind of alignment data, and per curve one run, or one for each value that it varies.
    own = [sweep.get("setting", {}).get("proxy")]
    proxies = [curve.get("proxies") or own for curve in sweep["curves"]]
    runs = [len(next(iter(curve["vary"].values()))) if curve["vary"] else 1 for curve in sweep["curves"]]
    used = {proxy for names in proxies for proxy in names}
    per_seed = len(used) + sum(len(names) * num for names, num in zip(proxies, runs, strict=True))
    return len(sweep["seeds"]) * (per_seed + _count_firsts(sweep, proxies))


def _count_firsts(sweep: Mapping[str, Any], proxies: Sequence[Sequence[str | None]]) -> int:
    """Runs that others start from, for each seed: one for each setting that remains where theirs are overridden."""
    if sweep.get("first") is None:
        return 0
    pairs = [
        (proxy, options)
        for names, curve in zip(proxies, sweep["curves"], strict=True)
        for proxy in names
        for options in ({}, curve.get("setting") or {})  # of the base, of the curve
    ]
    return len(
        {
            canonical({**sweep["setting"], "proxy": proxy, **options, **sweep["first"]["setting"]})
            for proxy, options in pairs
        }
    )
