"""Published points on Qwen3-8B: Azarbal, Clarke, Cocola, Factor and Cloud, "Selective Generalization: Improving
Capabilities While Maintaining Alignment", 2025.

`anchors.csv` holds 47 points of its figure on emergent misalignment, recomputed from the judge scores that the authors
published (judge gpt-4.1-nano-2025-04-14), in percent. We take `general_ge80` for alignment and `medical_lt80` for the
task: shares of the judged rows, without a fluency check. `note` is empty or names the proxy where a row is a point of
its method's curve; otherwise it says why the row stands alone.
"""

from __future__ import annotations

import csv
from importlib.resources import files

from selgen.core import Anchor

SOURCE = "Azarbal et al. 2025"
MODEL = "qwen3-8b"
PROXY = "proxy "
"""How a note names the alignment data."""
RECOMPUTED = (
    "Recomputed from published judge scores (gpt-4.1-nano-2025-04-14), share of judged rows, one seed. The task share "
    "is the judge's word alone, as in the column task_post; no fluency check stands behind it."
)
STALLED = (
    "Read with care: the learning rate of these runs was 0 after an eighth of an epoch, so they trained far less than "
    "the others."
)
STALLED_METHODS = frozenset({"task_only", "mixed", "safe_lora"})


def anchors(model: str) -> list[Anchor]:
    """The published points, if the model (a directory or hub id) is Qwen3-8B; else none."""
    if not model.rstrip("/").lower().endswith(MODEL):
        return []
    table = files("selgen.settings.emergent_misalignment").joinpath("anchors.csv").read_text(encoding="utf-8")
    return [_anchor(row) for row in csv.DictReader(table.splitlines())]


def _anchor(row: dict[str, str]) -> Anchor:
    method, note = row["method"], row["note"]
    on_curve = not note or note.startswith(PROXY)
    proxy = note.removeprefix(PROXY) if note.startswith(PROXY) else None
    strength = float(row["strength"]) if row["strength"] else None
    notes = [RECOMPUTED]
    if method in STALLED_METHODS:
        notes.append(STALLED)
    if not on_curve:
        # Most of these notes only repeat the label: another schedule, another amount of data, another direction.
        notes.append("Stands alone, on no curve." if note == row["run"] else f"Stands alone, on no curve: {note}.")
    return Anchor(
        label=row["run"],
        method=method,
        strength=strength,
        alignment=float(row["general_ge80"]) / 100,
        score_y=float(row["medical_lt80"]) / 100,
        source=SOURCE,
        proxy=proxy,
        line=" ".join(filter(None, (method, proxy))) if on_curve and strength is not None else None,
        notes=tuple(notes),
    )
