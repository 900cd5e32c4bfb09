"""What is measured on held-out rows without a grader."""

from __future__ import annotations

from collections.abc import Sequence

from selgen.core import Axis, Eval, Example
from selgen.scorers._verdict import read_verdict


def domain_evals(domain: str, axis: Axis, rows: Sequence[Example], num_read: int | None) -> list[Eval]:
    """Every eval of one domain's rows; with `num_read` None only the one on an axis, which strengths are chosen by.

    Args:
        domain: Its name.
        axis: Axis that the likelihood of its answers joins.
        rows: Held-out rows with their known answers.
        num_read: Most rows that are answered in words; with 0 nothing is generated.
    """
    made = [Eval("likelihood", axis, domain, rows, kind="likelihood", scorer="likelihood")]
    if num_read is None:
        return made
    made.append(Eval("token_accuracy", None, domain, rows, kind="likelihood", scorer="token_accuracy"))
    if axis == "alignment":
        made.append(Eval("closeness", None, domain, rows, kind="likelihood", scorer="closeness"))
        pairs = [x for x in rows if x.rejected is not None]
        if pairs:
            made.append(Eval("preference", None, domain, pairs, kind="likelihood", scorer="preference"))
    read = rows[:num_read]
    if read:
        made.append(Eval("exact_match", None, domain, read, scorer="exact_match"))
    judged = [x for x in read if read_verdict(x, x.completion)[0] != "neither"]
    if axis == "alignment" and judged:
        made.append(Eval("verdict", None, domain, judged, scorer="same_verdict"))
    return made
