"""Methods, settings, scorers and judges by name: the file name is the name. Nothing is imported before it is asked for.

Other packages add to a kind with an entry point of group `selgen.methods`, `selgen.settings`, `selgen.scorers` or
`selgen.judges` whose name is the name on the command line and whose value is `module:Class`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from selgen import core

Kind = Literal["methods", "settings", "scorers", "judges"]
_BASES: dict[Kind, type] = {
    "methods": core.Method,
    "settings": core.Setting,
    "scorers": core.Scorer,
    "judges": core.Judge,
}


class UnknownName(ValueError):
    """No such method, setting, scorer or judge; the message names the close ones."""


def names(kind: Kind) -> list[str]:
    """All names of a kind, sorted: own files and other packages' entry points. Imports none of them."""
    return sorted({*_own(kind), *_foreign(kind)})


def load(kind: Kind, name: str) -> type[Any]:
    """Import the class of that name: the one public class of the kind's base that the file defines.

    Raises:
        UnknownName: there is none; the message suggests close names.
        TypeError: the file (or entry point) does not provide exactly one such class.
    """
    base = _BASES[kind]
    if name in _own(kind):
        return _only_class(importlib.import_module(f"selgen.{kind}.{name}"), base)
    foreign = _foreign(kind)
    if name in foreign:
        found = foreign[name].load()
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise TypeError(
                f"Entry point {name!r} of group selgen.{kind} should be a class derived from {base.__name__}, found "
                f"{found!r}. Correct it in the package {foreign[name].value!r} comes from."
            )
        return found
    raise UnknownName(f"Unknown {kind.removesuffix('s')} {name!r}. {suggest(name, names(kind))}")


def describe(kind: Kind, name: str) -> str:
    """The first line of what a file says about itself, read without importing it; an entry point's value."""
    if name in _own(kind):
        found = find_spec(f"selgen.{kind}.{name}")
        assert found is not None and found.origin is not None
        text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8")))
        return (text or "").partition("\n")[0]
    return _foreign(kind)[name].value


def suggest(name: str, allowed: Iterable[str]) -> str:
    """A sentence that points from a wrong name to the right ones."""
    options = list(allowed)
    close = get_close_matches(name, options, n=1, cutoff=0.5)
    known = f"Known: {', '.join(options)}." if options else "None is known here."
    return f"Did you mean {close[0]!r}? {known}" if close else known


@lru_cache
def _own(kind: Kind) -> list[str]:
    package = importlib.import_module(f"selgen.{kind}")
    return [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]


def _foreign(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"selgen.{kind}")}


def _only_class(module: Any, base: type) -> type[Any]:
    classes = [
        cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and not inspect.isabstract(cls)
        and not name.startswith("_")
        and f"{cls.__module__}.".startswith(f"{module.__name__}.")
    ]
    if len(classes) != 1:
        raise TypeError(
            f"{module.__name__} should define one public {base.__name__}, found "
            f"{[cls.__name__ for cls in classes] or 'none'}. Move the others out, or prefix them with an underscore."
        )
    return classes[0]
