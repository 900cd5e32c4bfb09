"""Numbers as text: shares are shown in percent (points), everything else as it is."""

from __future__ import annotations

from selgen.maths.stats import Estimate

MISSING = "–"
"""Shown where nothing was measured."""


def percent(e: Estimate | None, seeds: int | None = None) -> str:
    """`81.2 ± 3.4`: mean and half-width of the 95 % interval, in percent; without ± for a single seed.

    Args:
        e: A share in [0, 1].
        seeds: Seeds that should be in it; if it has fewer, the text says how many it has.
    """
    if e is None:
        return MISSING
    text = f"{100 * e.mean:.1f}" if e.half_width is None else f"{100 * e.mean:.1f} ± {100 * e.half_width:.1f}"
    return text if seeds is None or e.n == seeds else f"{text} ({e.n} of {seeds} seeds)"


def signed(e: Estimate) -> str:
    """`+0.214 [0.180, 0.248]`: a difference with its interval, if it has one."""
    return f"{e.mean:+.3f}" if e.low is None else f"{e.mean:+.3f} [{e.low:.3f}, {e.high:.3f}]"


def points(e: Estimate) -> str:
    """`+21.4 [+18.0, +24.8]`: a difference of shares in percentage points, with its interval if it has one."""
    if e.low is None or e.high is None:
        return f"{100 * e.mean:+.1f}"
    return f"{100 * e.mean:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"


def p_value(p: float | None) -> str:
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def strength(value: float | None) -> str:
    return MISSING if value is None else f"{value:g}"


def seconds(e: Estimate | None) -> str:
    if e is None:
        return MISSING
    return f"{e.mean:.1f}" if e.mean < 10 else f"{e.mean:.0f}"


def number(value: float | None) -> str:
    """A check's value with three decimals."""
    return MISSING if value is None else f"{value:.3f}"
