"""What the processes of one run tell each other: gradients, failures, and who of them writes.

What may take long (the first process measures while the others wait) goes over a group of its own, on the CPU and with
a time limit of days: the one of GPU collectives would end a run whose evaluation takes half an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist

from selgen import launch

T = TypeVar("T")
PATIENCE = timedelta(days=7)
BUCKET = 1 << 24
"""Numbers that are summed over processes at a time."""


def start() -> None:
    """Join the processes that were launched together; nothing for one alone, or if they are joined."""
    if launch.world() > 1 and not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def stop() -> None:
    """Part from the others, when all is done."""
    if count() > 1:
        dist.destroy_process_group()


def count() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """This process's, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this process measures and writes."""
    return number() == 0


@lru_cache
def _patient(group: object) -> Any:
    return dist.new_group(backend="gloo", timeout=PATIENCE)


def gather(value: T) -> list[T]:
    """The value of each process, in order, on all of them; values are pickled.

    Raises:
        launch.FailedElsewhere: another process is at its end already (`at_the_end`).
    """
    if count() == 1:
        return [value]
    said = _exchange((False, value))
    if any(ended for ended, _ in said):
        raise launch.FailedElsewhere("another process ended before this one.")
    return [one for _, one in said]


def at_the_end(value: T) -> list[T]:
    """`gather`, waiting until all are here: one that failed comes first, the others from where they next talk."""
    if count() == 1:
        return [value]
    said = _exchange((True, value))
    while not all(ended for ended, _ in said):
        said = _exchange((True, value))
    return [one for _, one in said]


def _exchange(value: tuple[bool, T]) -> list[tuple[bool, T]]:
    values: list[Any] = [None] * count()
    # Keyed by the group of all, so that one made anew (in tests) gets its own.
    dist.all_gather_object(values, value, group=_patient(dist.group.WORLD))
    return values


def share_failure(error: Exception | None) -> None:
    """Raise here if any process has failed: its own error where it has one. All processes call it together.

    Raises:
        launch.FailedElsewhere: only others failed.
    """
    if count() > 1:
        said = gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is None and any(said):
            number, text = next((i, text) for i, text in enumerate(said) if text)
            raise launch.FailedElsewhere(f"process {number} of {count()} failed. {text}")
    if error is not None:
        raise error


def together(act: Callable[[], T]) -> T:
    """Let every process do something, and go on only if none has failed.

    Raises:
        Exception: what `act` raised here; `launch.FailedElsewhere` where it only did on others.
    """
    result, error = None, None
    try:
        result = act()
    except Exception as raised:
        error = raised
    share_failure(error)
    return cast(T, result)


def first(act: Callable[[], T]) -> T:
    """Let the first process do something while the others wait; all get its result, which is pickled.

    Raises:
        Exception: what `act` raised, on the first process; `launch.FailedElsewhere` on the others.
    """
    result = together(lambda: act() if is_first() else None)
    return cast(T, gather(result)[0])


@contextmanager
def local_first() -> Iterator[None]:
    """Let one process of each machine do something, and then the others, which find on disk what it left."""
    if count() == 1:
        yield
        return
    leads = launch.local_rank() == 0
    if not leads:
        gather(None)
    try:
        yield
    finally:
        if leads:
            gather(None)


def equalise(parameters: Sequence[Tensor]) -> None:
    """Give all processes the first one's values."""
    if count() > 1:
        for parameter in parameters:
            dist.broadcast(parameter.data, src=0)


def sum_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Sum each parameter's gradient over processes; all get equal bits.

    Args:
        parameters: In the same order on every process.
        gradients: Of each; None counts as zero where another process has one, and stays None where none has. Changed
            in place.
    """
    if count() == 1:
        return list(gradients)
    there = torch.tensor([g is not None for g in gradients], dtype=torch.int32, device=parameters[0].device)
    dist.all_reduce(there)
    found = [
        None if not holders else torch.zeros_like(p) if g is None else g
        for p, g, holders in zip(parameters, gradients, there.tolist(), strict=True)
    ]
    for bucket in _buckets([g for g in found if g is not None]):
        flat = torch.cat([g.flatten() for g in bucket])
        dist.all_reduce(flat)
        for g, total in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            g.copy_(total.view_as(g))
    return found


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, at most `BUCKET` numbers (or one tensor) together: one message each."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
