"""Who may import whom (docs/design.md section 2), read from the import statements of every file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "selgen"

# room -> rooms of selgen that it may import; a room is a file or a folder of the package
ALLOWED = {
    "core": set(),
    "maths": {"core"},
    "data": {"core"},
    "launch": {"core"},
    "ranks": {"launch"},
    "lm": {"adapters", "core", "data", "maths"},
    "adapters": set(),
    "faster": {"core", "lm"},
    "stored": {"caches"},
    "reference": {"core", "data", "lm", "ranks", "stored"},
    "peak": set(),
    "hub": set(),
    "loading": {"hub"},
    "models": {"adapters", "core", "hub", "loading"},
    "intact": {"hub", "loading", "models"},
    "registry": {"core"},
    "methods": {"adapters", "core", "lm", "maths", "models"},
    # Of the scorers only what they share: how a text's verdict is read.
    "settings": {"core", "data", "maths", "record", "scorers", "texts"},
    "scorers": {"core"},
    "asking": set(),
    "judges": {"asking", "caches", "core", "data", "lm", "models"},
    "train": {"adapters", "core", "data", "faster", "launch", "lm", "models", "ranks", "reference"},
    "generate": {"adapters", "core", "data", "lm"},
    "vllm": {"asking", "blocks", "generate", "storage"},
    "served": {"asking", "blocks", "core", "generate", "models", "vllm"},
    "likelihood": {"core", "data", "lm", "maths"},
    "averages": {"core"},
    "caches": set(),
    "texts": set(),
    "judging": {"core"},
    "points": {"averages", "core", "record"},
    "evaluate": {"averages", "core", "generate", "judging", "likelihood", "registry", "texts"},
    "words": set(),
    "miniature": {"caches", "core", "data", "words"},
    "tiny": {"core"},
    "checks": {"averages", "texts", "core", "data", "lm", "registry", "tiny", "train"},
    "config": {"registry"},
    "blocks": {"config", "core"},
    "spec": {"blocks", "config", "core", "registry"},
    "identity": {"core", "spec"},
    "grid": {"blocks", "config", "core", "spec"},
    "reading": {"core", "data", "judging", "spec"},
    "plan": {"blocks", "config", "core", "data", "grid", "identity", "reading", "spec"},
    "refusals": {
        "adapters",
        "config",
        "core",
        "data",
        "generate",
        "launch",
        "models",
        "plan",
        "reading",
        "served",
        "spec",
        "vllm",
    },
    "starting": {"config", "core", "hub", "intact", "loading", "miniature", "models", "plan", "refusals", "spec"},
    "measure": {"core", "data", "evaluate", "generate", "lm", "maths", "points", "record", "spec"},
    "card": {"data", "hub", "intact", "models", "plan", "reading", "record"},
    "provenance": set(),
    "record": {"core"},
    "redraw": {"averages", "config", "core", "points", "record", "spec"},
    "rejudge": {"config", "core", "judging", "record", "redraw", "spec"},
    "work": {
        *("adapters", "card", "core", "launch", "measure", "models", "plan", "points", "ranks", "reading"),
        *("record", "reference", "served", "shortage", "spec", "starting", "train"),
    },
    "run": {
        "launch",
        "plan",
        "provenance",
        "ranks",
        "record",
        "shortage",
        "spec",
        "starting",
        "storage",
        "train",
        "work",
    },
    "executors": {"blocks", "config", "plan", "record", "run", "spec", "storage"},
    "shortage": {"spec"},
    "storage": set(),
    "sweep": {"blocks", "config", "core", "executors", "grid", "plan", "record", "starting", "storage"},
    "progress": {"plan"},
    "report": {"averages", "config", "core", "grid", "maths", "points", "record", "redraw", "spec"},
    "choose": {"config", "core", "maths", "record", "registry", "report"},
    "findings": {"config", "core", "maths", "record", "report"},
    "opened": {
        *("config", "core", "generate", "intact", "lm", "measure", "models", "plan", "record", "reference"),
        *("refusals", "served", "spec", "starting"),
    },
    "talk": {"core", "generate", "opened"},
    "cli": {
        *(
            "choose",
            "config",
            "core",
            "executors",
            "findings",
            "generate",
            "grid",
            "launch",
            "opened",
            "plan",
            "progress",
            "ranks",
            "reading",
            "record",
            "refusals",
            "registry",
            "rejudge",
        ),
        *("report", "run", "starting", "storage", "sweep", "talk"),
    },
    "__init__": {"checks", "core", "grid", "record", "spec", "train"},
    "__main__": {"cli"},
}
NEVER_TORCH = [
    "asking",
    "core",
    "maths/stats.py",
    "maths/pareto.py",
    "maths/curves.py",
    "maths/resampling.py",
    "choose",
    "findings",
    "blocks",
    "spec",
    "identity",
    "launch",
    "record",
    "redraw",
    "registry",
    "rejudge",
    "report",
    "settings",
    "scorers",
    "judges/endpoint.py",
    "judges/_asking.py",
    "judges/_cache.py",
    "judges/_chat.py",
    "judges/_reading.py",
    "vllm",
]
TORCH = {"torch", "transformers", "peft", "accelerate"}


def files():
    return sorted(SRC.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").parts[0]


def imported(path: Path, outside_type_checking: bool = False):
    """Dotted names of all modules that a file imports, functions included."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if outside_type_checking and isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = ["selgen", *path.relative_to(SRC).parts[:-1]]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_a_file_imports_only_from_rooms_below_it(path):
    own = room(path)
    assert own in ALLOWED, f"{own} has no place in the house: add it to ALLOWED and to docs/design.md"
    used = {name.split(".")[1] for name in imported(path) if name.startswith("selgen.")}
    used = {r for r in used if (SRC / r).is_dir() or (SRC / f"{r}.py").is_file()}
    assert used - {own} <= ALLOWED[own], f"{path.name} may not import {sorted(used - {own} - ALLOWED[own])}"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_leaves_do_not_import_each_other(path):
    parts = path.relative_to(SRC).with_suffix("").parts
    if parts[0] in {"methods", "settings", "scorers", "judges"} and parts[1] != "__init__":
        siblings = {n.split(".")[2] for n in imported(path) if n.startswith(f"selgen.{parts[0]}.")}
        shared = {s for s in siblings if s.startswith("_")}
        assert siblings - shared <= {parts[1]}, f"leaf {parts[1]} imports leaf {sorted(siblings - {parts[1]})}"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_torch_stays_out_of_the_light_rooms(path):
    name = str(path.relative_to(SRC))
    if any(name == light or name.startswith(f"{light}/") or name == f"{light}.py" for light in NEVER_TORCH):
        heavy = {n.split(".")[0] for n in imported(path, outside_type_checking=True)} & TORCH
        assert not heavy, f"{name} may not import {sorted(heavy)}"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_optimisation_lives_in_train_alone(path):
    if path.name != "train.py":
        text = path.read_text()
        assert ".backward(" not in text and "optimizer.step(" not in text


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_shared_code_names_no_concrete_method_or_setting(path):
    """Names of leaves may not occur as strings or attributes outside the leaves; a study's claims are about them."""
    if room(path) in {"methods", "settings", "scorers", "tiny", "findings"}:
        return
    leaves = {
        p.stem if p.is_file() else p.name
        for kind in ("methods", "settings")
        for p in (SRC / kind).iterdir()
        if not p.name.startswith("_")
    }
    strings = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
    named = {s for s in strings if isinstance(s, str) and s in leaves}
    assert named <= {"task_only"}, f"{path.name} names {sorted(named)}"


@pytest.mark.parametrize("module", ["selgen", "selgen.report", "selgen.record", "selgen.spec", "selgen.cli"])
def test_light_modules_do_not_load_torch(module):
    code = f"import sys, {module}; assert not {TORCH!r} & set(sys.modules), {TORCH!r} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
