"""Selective generalization: fine-tune a model to be better at something without changing what it is elsewhere.

Public names are imported when they are first used: `import selgen` alone loads neither torch nor transformers.
Runs and sweeps from Python: `selgen.run.run(RunSpec, out_dir)` and `selgen.sweep.sweep(SweepSpec, out_dir, ...)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selgen.checks import check_method, check_setting
    from selgen.core import (
        Batch,
        Context,
        Corpus,
        Eval,
        Example,
        Method,
        Metric,
        Reference,
        Score,
        Scorer,
        Setting,
        Term,
        Tokens,
    )
    from selgen.grid import SweepSpec
    from selgen.record import RunRecord
    from selgen.spec import RunSpec
    from selgen.train import NonFiniteError, SelectiveConfig, SelectiveTrainer

__all__ = [
    "Batch",
    "Context",
    "Corpus",
    "Eval",
    "Example",
    "Method",
    "Metric",
    "NonFiniteError",
    "Reference",
    "RunRecord",
    "RunSpec",
    "Score",
    "Scorer",
    "SelectiveConfig",
    "SelectiveTrainer",
    "Setting",
    "SweepSpec",
    "Term",
    "Tokens",
    "check_method",
    "check_setting",
]
_ELSEWHERE = {
    "NonFiniteError": "train",
    "RunRecord": "record",
    "RunSpec": "spec",
    "SelectiveConfig": "train",
    "SelectiveTrainer": "train",
    "SweepSpec": "grid",
    "check_method": "checks",
    "check_setting": "checks",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'selgen' has no attribute {name!r}")
    return getattr(import_module(f".{_ELSEWHERE.get(name, 'core')}", __name__), name)
