"""How much memory a computation needs at its highest, counted by torch itself: no process size, no sampling."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(compute: Callable[[], Any]) -> int:
    """Highest number of bytes of CPU tensors, above those that exist before it is called.

    Args:
        compute: Called once. What it returns lives until the end and counts.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        kept = compute()
    del kept
    assert profiled.profiler is not None and profiled.profiler.kineto_results is not None
    events: list[Any] = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    # An allocation is a positive number of bytes, a release a negative one.
    changes = (e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    return max(accumulate(changes, initial=0))
