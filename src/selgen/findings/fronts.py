"""F4, F5, F6, F12, F13, F14: whose front lies further out."""

from __future__ import annotations

from collections.abc import Sequence

from selgen.core import BASE, TASK_ONLY
from selgen.findings.losses import ADVICE, BOTH, OVER_EPOCHS, STUDIED, SYCOPHANCY
from selgen.findings.sources import BySeed, Missing, Reader, values
from selgen.findings.statements import Claim, fold, minus, paired
from selgen.report.runs import Cell

SHRUNK = "rescale"
"""Control: task_only's update made smaller by one number."""


def lead(leaders: Sequence[str], others: Sequence[str]):
    """Worst area of some curves minus best area of others, inside each seed."""

    def by_seed(r: Reader) -> BySeed:
        r.require(*leaders, *others)
        worst, best = (fold(how, [r.area(c) for c in curves]) for how, curves in ((min, leaders), (max, others)))
        return minus(worst, best)

    return by_seed


def projection_stands_out(r: Reader) -> BySeed:
    """By how much projection's point escapes being matched by the other point that comes nearest to matching it.

    Other points: the untouched model, and every strength or checkpoint of task_only and of the study's methods.
    """
    r.require(*STUDIED)
    group, own = r.group(), r.curve("projection")
    studied = {*STUDIED, OVER_EPOCHS} - {"projection"}
    others = [c for c in group.cells if c.curve in studied or c.method in (BASE, TASK_ONLY)]
    if len(own) != 1:
        raise Missing(f"projection should be a single point, found {len(own)}")
    if group.base is None or group.task_only is None:
        raise Missing("no runs of base or task_only")
    r.note(f"{len(others)} other points")
    return fold(min, [_advantage(own[0], other) for other in others])


def _advantage(cell: Cell, other: Cell) -> BySeed:
    """The larger of its advantages on the two axes."""
    return fold(max, [minus(values(cell, axis), values(other, axis)) for axis in ("alignment", "score_y")])


CLAIMS = (
    Claim(
        "F4",
        "KL and DPO push the front out furthest",
        "min(HV kl, HV dpo) - max(HV of the study's other methods) > 0",
        (
            paired(
                ADVICE,
                "worse area of kl and dpo minus best area of the others",
                "above",
                0.0,
                lead(("kl", "dpo"), [c for c in STUDIED if c not in ("kl", "dpo")]),
            ),
        ),
    ),
    Claim(
        "F5",
        "SafeLoRA is behind, though post-hoc",
        "HV kl - HV safe_lora > 0",
        (paired(ADVICE, "area of kl over safe_lora", "above", 0.0, lead(("kl",), ("safe_lora",))),),
    ),
    Claim(
        "F6",
        "Longer training with KL improves the trade-off",
        "HV(kl over epochs) - HV(kl at one budget) > 0",
        (paired(ADVICE, "area of kl over epochs over kl", "above", 0.0, lead((OVER_EPOCHS,), ("kl",))),),
    ),
    Claim(
        "F12",
        "KL and the representation constraint lead",
        "min(HV kl, HV representation) - max(HV mixed, upweight, dpo) > 0",
        (
            paired(
                SYCOPHANCY,
                "worse area of kl and representation minus best area of mixed, upweight and dpo",
                "above",
                0.0,
                lead(("kl", "representation"), ("mixed", "upweight", "dpo")),
            ),
        ),
    ),
    Claim(
        "F13",
        "Projection is the best single point",
        "per seed, min over the other points q of max(alignment - alignment_q, score_y - score_y_q) > 0",
        (
            paired(
                SYCOPHANCY, "projection's larger advantage over its closest rival", "above", 0.0, projection_stands_out
            ),
        ),
    ),
    Claim(
        "F14",
        "SafeLoRA is poor in sycophancy; O-LoRA helps in neither setting",
        "HV safe_lora - HV rescale < 0 (sycophancy); HV o_lora - HV rescale < 0 (both)",
        (
            paired(SYCOPHANCY, "area of safe_lora over rescale", "below", 0.0, lead(("safe_lora",), (SHRUNK,))),
            *(
                paired(setting, "area of o_lora over rescale", "below", 0.0, lead(("o_lora",), (SHRUNK,)))
                for setting in BOTH
            ),
        ),
    ),
)
