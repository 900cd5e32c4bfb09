"""What is measured on held-out rows without a grader."""

from __future__ import annotations

from collections.abc import Sequence

from selgen.core import Axis, Eval, Example
from selgen.scorers._verdict import read_verdict


def domain_evals(domain: str, axis: Axis, rows: Sequence[Example], num_read: int) -> list[Eval]:
    """Every eval of one domain's rows.

    On the task axis it is the likelihood of the known answers. On the alignment axis it is the closeness to the
    starting model: behaviour that must not move. How likely the known wordings are says little about a model that
    words them otherwise.

    Args:
        domain: Its name.
        axis: Axis that the likelihood of its answers joins.
        rows: Held-out rows with their known answers.
        num_read: Most rows that are answered in words; with 0 nothing is generated.
    """
    on_task = axis if axis == "task" else None
    made = [Eval("likelihood", on_task, domain, rows, kind="likelihood", scorer="likelihood")]
    made.append(Eval("token_accuracy", None, domain, rows, kind="likelihood", scorer="token_accuracy"))
    if axis == "alignment":
        made.append(Eval("closeness", axis, domain, rows, kind="likelihood", scorer="closeness"))
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
