"""Which runs a claim is decided on: those of several directories, pooled where they were made under one condition."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selgen.core import Split
from selgen.maths.pareto import REFERENCE, hypervolume
from selgen.record import RecordError, RunRecord, read_all
from selgen.report.lookup import declared_setting, hypervolume_reference
from selgen.report.runs import Cell, Clash, Group, group_runs
from selgen.report.tables import KEEP, choose

DEFAULT_PROXY = {"sycophancy": "capitals", "emergent_misalignment": "hhh"}
"""Alignment data of every claim that names none."""
VARIES = ("setting", "method", "epochs", "curve", "strength_name", "budget")
"""Fields of a run's spec that runs of one comparison may differ in, besides seed and number of epochs."""

BySeed = dict[int, float]
Reference = tuple[float, float]


class FindingsError(RecordError):
    """The directories cannot be read together."""


class Missing(Exception):
    """A source lacks runs that a statement needs; the message says which."""


@dataclass(frozen=True)
class Placed:
    """A run, and the directory of its sweep; None in a report, which knows one directory."""

    record: RunRecord
    directory: str | None = None
    reference: Reference = REFERENCE


@dataclass(frozen=True)
class Source:
    """Runs that may be compared with one another: one setting and model under one condition, any proxies.

    Attributes:
        groups: By proxy.
        reference: Of hypervolumes, in (alignment, score_y).
        directories: Where the runs lie.
    """

    setting: str
    model: str
    groups: Mapping[str | None, Group]
    reference: Reference
    directories: tuple[str, ...]

    @property
    def name(self) -> str:
        return ", ".join(self.directories) or f"{self.setting} · {self.model}"

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for group in self.groups.values() for seed in group.seeds})

    @property
    def rank(self) -> tuple[int, int, str]:
        """Smallest first: the source with the most methods, then the most runs, in whatever order they are named."""
        records = [record for group in self.groups.values() for record in group.records]
        return -len({record.method for record in records}), -len(records), self.name


def read(directories: Sequence[Path]) -> list[Placed]:
    """The runs of several sweeps.

    Raises:
        FindingsError: a directory holds no finished run.
        RecordError: it is no directory, or a record in it cannot be read.
        ConfigError: its sweep.yaml cannot be read.
    """
    found = []
    for directory in directories:
        records = read_all(directory)
        if not records:
            raise FindingsError(f"{directory} holds no finished run. Name the output directory of a sweep.")
        reference = hypervolume_reference(directory)
        found += [Placed(record, str(directory), reference) for record in records]
    return found


def pool(runs: Sequence[Placed], settings: Sequence[str]) -> dict[str, list[Source]]:
    """Sources by setting, the richest first; runs of other settings are left out, a run met twice counts once.

    Raises:
        FindingsError: two runs claim the same place in a comparison, or directories fix different references.
    """
    pools: dict[tuple[str, str, str], dict[str, Placed]] = {}
    for run in runs:
        if run.record.setting in settings:
            key = (run.record.setting, run.record.model, _condition(run.record.spec))
            pools.setdefault(key, {}).setdefault(run.record.run_id, run)
    found: dict[str, list[Source]] = {setting: [] for setting in settings}
    for (setting, model, _), placed in pools.items():
        source = _source(setting, model, list(placed.values()))
        if source.groups:
            found[setting].append(source)
    return {setting: sorted(sources, key=lambda s: s.rank) for setting, sources in found.items()}


def _condition(spec: Mapping[str, Any]) -> str:
    """What runs of one comparison share: everything but the setting's options, the curve, the seed and the length."""
    shared = {key: value for key, value in spec.items() if key not in VARIES}
    training = {k: v for k, v in spec.get("training", {}).items() if k not in ("seed", "num_train_epochs")}
    return json.dumps({**shared, "training": training}, sort_keys=True)


def _source(setting: str, model: str, runs: Sequence[Placed]) -> Source:
    directories = tuple(dict.fromkeys(run.directory for run in runs if run.directory is not None))
    references = sorted({run.reference for run in runs})
    if len(references) > 1:
        raise FindingsError(
            f"reference should be the same in the sweep.yaml of {', '.join(directories)}, found "
            f"{', '.join(map(str, references))}. Name directories with one reference."
        )
    try:
        groups = {group.proxy: group for group in group_runs([run.record for run in runs]) if group.cells}
    except Clash as error:
        one, other = (run.spec for run in error.runs)
        keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
        differ = ", ".join(keys) if keys else "the data or the starting weights"
        raise FindingsError(
            f"{', '.join(directories)} cannot be read together: {error} They differ in {differ}. Name the directory of "
            "one of them."
        ) from error
    return Source(setting, model, groups, references[0], directories)


class Reader:
    """Reads numbers by seed, on test, from one source, and remembers what it used.

    Attributes:
        notes: Strengths that were used and how they were chosen.
        doubt: A reason to leave the statement undecided whatever its interval, or None.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.notes: list[str] = []
        self.doubt: str | None = None

    def group(self, proxy: str | None = None) -> Group:
        """The runs with that alignment data, by default the setting's default.

        Raises:
            Missing: there are none.
        """
        proxy = proxy or DEFAULT_PROXY.get(self.source.setting)
        if proxy not in self.source.groups:
            raise Missing(f"no runs with proxy {proxy}")
        return self.source.groups[proxy]

    def base(self, name: str, proxy: str | None = None) -> BySeed:
        return self._values(self.group(proxy).base, "base", name)

    def task_only(self, name: str, proxy: str | None = None) -> BySeed:
        """At the end of training."""
        return self._values(self.group(proxy).task_only, "task_only", name)

    def curve(self, name: str, proxy: str | None = None) -> list[Cell]:
        group = self.group(proxy)
        if name not in group.curves:
            raise Missing(f"no runs of curve {name!r}{'' if group.proxy is None else f' with proxy {group.proxy}'}")
        return group.curves[name]

    def require(self, *curves: str, proxy: str | None = None) -> None:
        """Raises Missing, naming all curves that lack runs."""
        absent = [name for name in curves if name not in self.group(proxy).curves]
        if absent:
            raise Missing(f"no runs of {', '.join(absent)}")

    def chosen_cell(self, curve: str, proxy: str | None = None) -> Cell:
        """The strength that val chooses: best alignment among those with 90 % of task_only's gain in score_y."""
        cells, group = self.curve(curve, proxy), self.group(proxy)
        if group.base is None or group.task_only is None:
            raise Missing("no runs of base or task_only")
        picked = choose(cells, group.base, group.task_only)
        if picked is None:
            raise Missing(f"no val points by which a strength of {curve!r} could be chosen")
        cell, how = picked
        short = "" if how.reached else f", below {KEEP:.0%}, nearest taken"
        self.note(f"{self._named(cell, group)}: {how.share:.0%} of the gain on val{short}")
        return cell

    def chosen(self, curve: str, name: str, proxy: str | None = None) -> BySeed:
        return self._values(self.chosen_cell(curve, proxy), curve, name)

    def best_aligned(self, curve: str, name: str, proxy: str | None = None) -> BySeed:
        """At the strength with the best mean alignment on val."""
        known = [(cell, e.mean) for cell in self.curve(curve, proxy) if (e := cell.estimate("val", "alignment"))]
        if not known:
            raise Missing(f"no val points by which a strength of {curve!r} could be chosen")
        cell = max(known, key=lambda entry: entry[1])[0]
        self.note(f"{self._named(cell, self.group(proxy))}: best alignment on val")
        return self._values(cell, curve, name)

    def area(self, curve: str) -> BySeed:
        """Hypervolume of the curve's test points, of the seeds that have every strength."""
        cells = self.curve(curve)
        xy = [(values(cell, "alignment"), values(cell, "score_y")) for cell in cells]
        seeds = set.intersection(*(x.keys() & y.keys() for x, y in xy))
        self.note(f"{curve}: {len(cells)} strength{'' if len(cells) == 1 else 's'}")
        return {s: hypervolume([(x[s], y[s]) for x, y in xy], self.source.reference) for s in sorted(seeds)}

    def own_domains(self, proxy: str) -> frozenset[str]:
        """Domains that the alignment data covers."""
        return declared_setting(self.group(proxy).records[0]).proxy_domains

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _values(self, cell: Cell | None, what: str, name: str) -> BySeed:
        if cell is None:
            raise Missing(f"no runs of {what}")
        return values(cell, name)

    @staticmethod
    def _named(cell: Cell, group: Group) -> str:
        return cell.label if group.proxy is None else f"{cell.label}, proxy {group.proxy}"


def values(cell: Cell, name: str, split: Split = "test") -> BySeed:
    """An axis, `score_y` or a column by seed, on test; seeds without a value are left out."""
    return cell.values(split, name)
