"""Selective generalization: fine-tune a model to be better at something without changing what it is elsewhere.

Public names are imported when they are first used: `import selgen` alone loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import check_method, check_setting
    from .core import Batch, Context, Corpus, Eval, Example, Method, Metric, Reference, Score, Scorer, Setting, Term, Tokens
    from .grid import SweepSpec
    from .record import RunRecord
    from .run import run
    from .spec import RunSpec
    from .sweep import sweep
    from .train import NonFiniteError, SelectiveConfig, SelectiveTrainer

_HOME = {
    "checks": ["check_method", "check_setting"],
    "core": [
        *("Batch", "Context", "Corpus", "Eval", "Example", "Method", "Metric", "Reference", "Score", "Scorer", "Setting"),
        *("Term", "Tokens"),
    ],
    "grid": ["SweepSpec"],
    "record": ["RunRecord"],
    "run": ["run"],
    "spec": ["RunSpec"],
    "sweep": ["sweep"],
    "train": ["NonFiniteError", "SelectiveConfig", "SelectiveTrainer"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: F822 - found by __getattr__
    "Batch",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'selgen' has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_MODULE_OF)
