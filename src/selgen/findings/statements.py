"""A claim as statements about numbers, and the verdict: the interval against the bound. Arithmetic is done by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from selgen.findings.sources import BySeed, Missing, Reader, Source
from selgen.maths.stats import LEVEL, Estimate, estimate, holm, paired_t_p
from selgen.report.claims import Finding, Part, Verdict

Sources = Mapping[str, Sequence[Source]]
Side = Literal["above", "below"]

ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Outcome:
    """What a statement's number came to.

    Attributes:
        estimate: With a 95 % interval; None if it could not be measured.
        seeds: Seeds behind it.
        left_out: Seeds of the same source on which it could not be measured.
        reason: Why it must stay undecided, or None.
        notes: As in `report.claims.Part`.
        source: As there.
    """

    estimate: Estimate | None = None
    seeds: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    reason: str | None = None
    notes: list[str] = field(default_factory=list)
    source: str | None = None


@dataclass(frozen=True)
class Statement:
    """That a number lies above, or below, a threshold.

    Attributes:
        setting: Where it is measured, for the reader.
        words: The number, in words.
        side: On which side of the threshold it should lie.
        measure: Finds the number.
    """

    setting: str
    words: str
    side: Side
    threshold: float
    measure: Callable[[Sources], Outcome]

    @property
    def bound(self) -> str:
        return f"{'>' if self.side == 'above' else '<'} {self.threshold:g}"


@dataclass(frozen=True)
class Claim:
    """A claim of the study: a conjunction of statements.

    Attributes:
        id: F1 to F20.
        text: The claim, in words.
        statistic: The statistic, in words.
        corrected: Verdicts of the statements use Holm-adjusted p values (thresholds must be 0).
    """

    id: str
    text: str
    statistic: str
    statements: tuple[Statement, ...]
    corrected: bool = False

    def decide(self, sources: Sources) -> Finding:
        outcomes = [statement.measure(sources) for statement in self.statements]
        p_values = [None if o.estimate is None or not self.corrected else paired_t_p(o.estimate) for o in outcomes]
        adjusted = iter(holm([p for p in p_values if p is not None]))
        parts = [
            _part(statement, outcome, None if p is None else next(adjusted))
            for statement, outcome, p in zip(self.statements, outcomes, p_values, strict=True)
        ]
        return Finding(self.id, self.text, self.statistic, parts, conjunction([part.verdict for part in parts]))


def paired(setting: str, words: str, side: Side, threshold: float, by_seed: Callable[[Reader], BySeed]) -> Statement:
    """A statement about the mean over seeds of one number per seed, with its t interval.

    Args:
        by_seed: Reads the number of every seed from a source, or raises `Missing`. The first source that has what it
            needs is used; sources come with the most methods first.
    """

    def measure(sources: Sources) -> Outcome:
        reasons = []
        for source in sources.get(setting, ()):
            reader = Reader(source)
            try:
                values = by_seed(reader)
            except Missing as lack:
                reasons.append(f"{lack} ({source.name})" if len(sources[setting]) > 1 else str(lack))
                continue
            left_out = [seed for seed in source.seeds if seed not in values]
            reason = reader.doubt or (None if values else "no seed has all numbers that it needs")
            return Outcome(estimate(list(values.values())), sorted(values), left_out, reason, reader.notes, source.name)
        return Outcome(reason="; ".join(reasons) or f"no runs of setting {setting}")

    return Statement(setting, words, side, threshold, measure)


def judge(e: Estimate, side: Side, threshold: float) -> Verdict:
    """Where the whole 95 % interval lies; a single value has none and decides nothing."""
    if e.low is None or e.high is None:
        return "undecided"
    above, below = e.low > threshold, e.high < threshold
    holds, fails = (above, below) if side == "above" else (below, above)
    return "holds" if holds else "fails" if fails else "undecided"


def conjunction(verdicts: Sequence[Verdict]) -> Verdict:
    """Holds if all parts hold, fails if one fails."""
    if "fails" in verdicts:
        return "fails"
    return "undecided" if "undecided" in verdicts else "holds"


def _part(statement: Statement, outcome: Outcome, p_holm: float | None) -> Part:
    e, reason = outcome.estimate, outcome.reason
    verdict: Verdict = "undecided" if e is None or reason else judge(e, statement.side, statement.threshold)
    if reason is None and e is not None and e.low is None:
        reason = "one seed has no interval"
    if verdict != "undecided" and p_holm is not None and p_holm >= ALPHA:
        verdict, reason = "undecided", f"the interval excludes {statement.threshold:g}, but not after Holm"
    return Part(
        setting=statement.setting,
        statistic=statement.words,
        bound=statement.bound,
        estimate=e,
        p_holm=p_holm,
        seeds=outcome.seeds,
        left_out=outcome.left_out,
        verdict=verdict,
        reason=reason,
        notes=outcome.notes,
        source=outcome.source,
    )


def minus(a: BySeed, b: BySeed) -> BySeed:
    """a - b of the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def fold(how: Callable[[list[float]], float], parts: Iterable[BySeed]) -> BySeed:
    """`min`, `max` or a mean of several numbers inside each seed that has all of them."""
    parts = list(parts)
    seeds = set.intersection(*(set(part) for part in parts)) if parts else set()
    return {seed: how([part[seed] for part in parts]) for seed in sorted(seeds)}
