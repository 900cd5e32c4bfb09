"""The study's 20 claims, decided from records: statistics, thresholds and directions are fixed here, before any run.

The study: Azarbal, Clarke, Cocola, Factor and Cloud, *Selective Generalization: Improving Capabilities While
Maintaining Alignment*, LessWrong, July 2025. The seed is the unit: minima, maxima and means over methods or domains are
taken inside each seed, on test, and the 95 % t interval is over seeds. Never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selgen.findings import domains, fronts, losses, toy
from selgen.findings.sources import FindingsError, Placed, Source, pool, read
from selgen.report.claims import Claims, Finding
from selgen.report.lookup import hypervolume_reference
from selgen.report.runs import Group

__all__ = ["CLAIMS", "SETTINGS", "FindingsError", "decide", "in_report", "read", "sources"]

CLAIMS = tuple(
    sorted((*losses.CLAIMS, *fronts.CLAIMS, *domains.CLAIMS, *toy.CLAIMS), key=lambda claim: int(claim.id[1:]))
)
SETTINGS = (*losses.BOTH, toy.TOY)
"""Settings that claims are about."""


def sources(runs: Sequence[Placed]) -> dict[str, list[Source]]:
    """Where claims can be decided, by setting.

    Raises:
        FindingsError: no run is of a setting that has claims, or one setting comes with several models.
    """
    found = pool(runs, SETTINGS)
    if not any(found.values()):
        names = ", ".join(sorted({run.record.setting for run in runs})) or "none"
        raise FindingsError(
            f"No claim is about these runs: their settings are {names}, claims are about {', '.join(SETTINGS)}. Name "
            "the output directories of sweeps over these."
        )
    for setting, own in found.items():
        models = sorted({source.model for source in own})
        if len(models) > 1:
            raise FindingsError(
                f"Findings are about one model per setting, found {', '.join(models)} for {setting}. Name the "
                "directories of one of them."
            )
    return found


def decide(found: dict[str, list[Source]]) -> list[Finding]:
    """Every claim with its verdict, F1 to F20."""
    return [claim.decide(found) for claim in CLAIMS]


def in_report(out_dir: Path) -> Claims:
    """For a report on that directory: decides the claims about which its runs say something."""

    def claims(groups: Sequence[Group]) -> list[Finding]:
        records = [record for group in groups for record in group.records]
        reference = hypervolume_reference(out_dir)
        found = pool([Placed(record, None, reference) for record in records], SETTINGS)
        return [finding for finding in decide(found) if finding.is_measured]

    return claims
