"""What a chosen point must satisfy: `alignment>=95%`, or losing at most so much of what the starting model has."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from selgen.config import ConfigError
from selgen.registry import suggest

Operator = Literal[">=", "<=", ">", "<"]

ROUNDING = 1e-9
"""A mean over seeds may miss its bound by this much: the last digits of a sum must not decide."""

_NUMBER = r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<percent>%?)"
_KEEP = re.compile(rf"\s*(?P<name>\S+?)\s*(?P<operator>>=|<=|>|<)\s*{_NUMBER}\s*")
_LOSE = re.compile(rf"\s*(?P<name>\S+)\s+{_NUMBER}\s*")


@dataclass(frozen=True)
class Constraint:
    """A bound on a mean over seeds, in shares (0.95 for 95 %).

    Attributes:
        name: An axis, `score_y`, or a column `<eval>.<domain>`.
        operator: How the mean must compare with the bound.
        value: The bound; for `below_base`, how far below the base's mean it lies.
        below_base: Whether the bound follows from the base's mean on the same split.
    """

    name: str
    operator: Operator
    value: float
    below_base: bool = False

    def __str__(self) -> str:
        if self.below_base:
            return f"{self.name} at most {percent(self.value)} points below the base"
        return f"{self.name} {self.operator} {percent(self.value)} %"

    def bound(self, base_mean: float | None) -> float | None:
        """The bound as a share, given the base's mean on the split; None if that is needed and missing."""
        if not self.below_base:
            return self.value
        return None if base_mean is None else base_mean - self.value

    def met(self, value: float, bound: float) -> bool:
        above = self.miss(value, bound)
        return above <= ROUNDING if self.operator in (">=", "<=") else above < -ROUNDING

    def miss(self, value: float, bound: float) -> float:
        """How far the value lies on the wrong side of the bound, as a share; negative on the right side."""
        return bound - value if self.operator in (">=", ">") else value - bound

    def loosened(self, value: float, base_mean: float | None) -> str:
        """The strictest option in whole tenths of a percent that a mean of `value` meets, as on the command line."""
        if self.below_base and base_mean is not None:
            return f"--lose-at-most '{self.name} {_up(max(0.0, base_mean - value))}%'"
        if self.operator in (">=", ">"):
            return f"--keep '{self.name}>={_down(value)}%'"
        return f"--keep '{self.name}<={_up(value)}%'"


def percent(share: float) -> str:
    """`95`, `97.5`: a share in percent, without zeros that say nothing."""
    return f"{100 * share:.4g}"


def _down(share: float) -> str:
    return f"{math.floor(1000 * (share + ROUNDING)) / 10:g}"


def _up(share: float) -> str:
    return f"{math.ceil(1000 * (share - ROUNDING)) / 10:g}"


def parse(keep: Sequence[str], lose_at_most: Sequence[str]) -> list[Constraint]:
    """Read the values of `--keep` and `--lose-at-most`.

    Args:
        keep: E.g. `alignment>=0.95`, `fair.gcd > 90%`.
        lose_at_most: E.g. `alignment 2%`: at most 2 percentage points below the base.

    Raises:
        ConfigError: there is no constraint, or one cannot be read; all of them are named.
    """
    found: list[Constraint] = []
    problems: list[str] = []
    for option, texts, pattern, example in (
        ("--keep", keep, _KEEP, "'alignment>=0.95' or 'alignment>=95%', with >=, <=, > or <"),
        ("--lose-at-most", lose_at_most, _LOSE, "'alignment 2%'"),
    ):
        for text in texts:
            match = pattern.fullmatch(text)
            if match is None:
                problems.append(f"{option} should look like {example}, found {text!r}. Name, then number, in quotes.")
                continue
            value = float(match["number"]) / (100 if match["percent"] else 1)
            if value > 1:
                problems.append(
                    f"{option} should have a share in [0, 1] or a percentage up to 100%, found {text!r}. "
                    f"Write {match['number']}% if you mean percent."
                )
                continue
            operator = match["operator"] if option == "--keep" else ">="
            found.append(Constraint(match["name"], cast(Operator, operator), value, option != "--keep"))
    if not keep and not lose_at_most:
        problems.append("No constraint is given. Add --keep 'alignment>=95%' or --lose-at-most 'alignment 2%'.")
    if problems:
        raise ConfigError(problems)
    return found


def check_names(constraints: Sequence[Constraint], allowed: Iterable[str]) -> None:
    """Every constraint must be on something that was measured.

    Raises:
        ConfigError: a name is unknown; says which are known, and the nearest.
    """
    known = list(allowed)
    problems = [
        f"{'--lose-at-most' if c.below_base else '--keep'} names {c.name!r}, which is no axis or column of these runs. "
        f"{suggest(c.name, known)}"
        for c in constraints
        if c.name not in known
    ]
    if problems:
        raise ConfigError(problems)
