"""Which rows join which optimizer step: a pure function of (seed, epoch, step), so that a resume is exact."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import Literal

from selgen.core import Example, Method, Stream, Tokens
from selgen.data.chat import Encoded, collate

Pairing = Literal["proportional", "cycle"]
Key = tuple[Stream, int]


@dataclass(frozen=True)
class Plan:
    """The rows of every optimizer step.

    Task rows are shuffled anew each epoch and depend on nothing but the seed, so every method sees the same ones.
    Step s (counted over all epochs) adds floor((s+1) r) - floor(s r) alignment rows, read from an endless sequence of
    shuffled passes over the alignment set; they never displace task rows.

    Args:
        num_task: Task rows, > 0.
        num_align: Alignment rows; 0 only if `align_rows_per_step` is 0.
        micro_batch: Task rows per forward and backward pass.
        accumulation: Micro-batches per optimizer step (times ranks).
        align_rows_per_step: r; None keeps the sets' ratio, so that an epoch is one pass over both.
        seed: Of the shuffles.
        sequences_per_align_row: 2 where a row is read with both its answers, the chosen and the rejected one.
    """

    num_task: int
    num_align: int
    micro_batch: int
    accumulation: int = 1
    align_rows_per_step: float | Fraction | None = None
    seed: int = 0
    sequences_per_align_row: int = 1

    def __post_init__(self) -> None:
        if self.num_task < 1:
            raise ValueError("train_dataset should have at least 1 row, found 0. Give the task data to learn.")
        if self.align_rows_per_step is not None and self.align_rows_per_step < 0:
            raise ValueError(
                f"align_rows_per_step should be >= 0, found {self.align_rows_per_step}. Use 0 for task-only training."
            )
        if self.rate > 0 and self.num_align < 1:
            raise ValueError(
                "alignment_dataset should have at least 1 row, found 0. "
                "Give alignment data, or choose a method that reads task data only."
            )

    @property
    def steps_per_epoch(self) -> int:
        return ceil(self.num_task / (self.micro_batch * self.accumulation))

    @property
    def rate(self) -> Fraction:
        """Alignment rows per optimizer step."""
        if self.align_rows_per_step is None:
            return Fraction(self.num_align, self.steps_per_epoch)
        return Fraction(self.align_rows_per_step).limit_denominator(10**6)

    def task_rows(self, epoch: int, step: int) -> list[int]:
        """Indices of the task rows of a step within an epoch; the epoch's last step may have fewer."""
        size = self.micro_batch * self.accumulation
        return list(_shuffled(self.num_task, f"{self.seed}:task:{epoch}")[step * size : (step + 1) * size])

    def align_rows(self, epoch: int, step: int) -> list[int]:
        """Indices of the alignment rows that join that step."""
        s = epoch * self.steps_per_epoch + step
        return [self._align_at(i) for i in range(floor(s * self.rate), floor((s + 1) * self.rate))]

    def micro_batches(self, epoch: int, length: Callable[[Key], int] = lambda key: 0) -> Iterator[list[Key]]:
        """The epoch's micro-batches in order; a step's alignment rows are spread evenly over its micro-batches.

        Args:
            epoch: From 0.
            length: Tokens of a row. Rows of about the same length share a micro-batch of their step, so that little is
                padded; which rows join the step does not depend on it, so neither does its gradient (up to rounding).
        """
        for step in range(self.steps_per_epoch):
            task, align = self.task_rows(epoch, step), self.align_rows(epoch, step)
            parts = ceil(len(task) / self.micro_batch)
            if parts > 1:
                task.sort(key=lambda i: length(("task", i)))
                align.sort(key=lambda i: length(("align", i)))
            for k in range(parts):
                yield [
                    *(("task", i) for i in task[k * self.micro_batch : (k + 1) * self.micro_batch]),
                    *(("align", i) for i in align[k * len(align) // parts : (k + 1) * len(align) // parts]),
                ]

    def num_sequences(self, steps: int) -> int:
        """Sequences seen in the first `steps` optimizer steps, over all epochs."""
        epochs, rest = divmod(steps, self.steps_per_epoch)
        task = epochs * self.num_task + min(rest * self.micro_batch * self.accumulation, self.num_task)
        return task + floor(steps * self.rate) * self.sequences_per_align_row

    def _align_at(self, position: int) -> int:
        cycle, i = divmod(position, self.num_align)
        return _shuffled(self.num_align, f"{self.seed}:align:{cycle}")[i]


def plan_for(
    method: Method,
    num_task: int,
    num_align: int,
    *,
    micro_batch: int,
    accumulation: int,
    pairing: str = "proportional",
    seed: int = 0,
) -> Plan:
    """The plan of a method's training.

    Args:
        method: Says whether it reads alignment rows and at which rate.
        num_task: Rows of the task set.
        num_align: Rows of the whole alignment set; the plan is over those that the method reads (`align_subset`).
        micro_batch: Task rows per forward and backward pass.
        accumulation: Micro-batches per optimizer step, times ranks.
        pairing: What a method without a rate of its own gets: `proportional`, an epoch is one pass over both sets;
            `cycle`, as many alignment rows as task rows (times the method's share).
        seed: Of the shuffles.

    Raises:
        ValueError: a set that the method reads is empty.
    """
    rate = method.align_rows_per_step
    answers = [stream for stream in ("align", "rejected") if stream in method.streams]
    if not answers:
        rate = 0.0
    if num_align < 1 and (answers or "align" in method.fits):
        raise ValueError(
            f"alignment_dataset should have at least 1 row for method {type(method).__name__}, found 0. "
            "Give alignment data, or choose a method that reads task data only."
        )
    if rate is None and pairing == "cycle":
        rate = micro_batch * accumulation * method.align_share
    read = len(align_subset(method, num_align, seed))
    return Plan(num_task, read, micro_batch, accumulation, rate, seed, sequences_per_align_row=len(answers))


def align_subset(method: Method, num_align: int, seed: int) -> list[int]:
    """Indices of the alignment rows that the method reads, rising: all of them, or its share.

    The share is drawn by the seed alone, whatever the rows are about: the same for all strengths of a method.
    """
    return sorted(random.Random(f"{seed}:share").sample(range(num_align), ceil(num_align * method.align_share)))


def streams_for(method: Method, task: list[Example], align: list[Example], seed: int) -> dict[Stream, list[Example]]:
    """The examples of each stream that the method reads, in its steps or before them (`Method.fits`).

    Raises:
        ValueError: the method reads `rejected` answers, and some alignment examples have none.
    """
    sets: dict[Stream, list[Example]] = {"task": task}
    read = [align[i] for i in align_subset(method, len(align), seed)]
    if "align" in (*method.streams, *method.fits):
        sets["align"] = read
    if "rejected" in method.streams:
        without = sum(e.rejected is None for e in align)
        if without:
            raise ValueError(
                f"method {type(method).__name__} needs a `rejected` answer in every alignment example, found {without} "
                f"of {len(align)} without one. Add `rejected` answers, or choose a method without preferences "
                "(selgen sweep --method NAME keeps the curves that you name)."
            )
        sets["rejected"] = [e.with_completion(str(e.rejected)) for e in read]
    return sets


class PlannedBatches:
    """Batch sampler over a plan, given the length of each row; accelerate's data loader calls `set_epoch`.

    Args:
        plan: The rows of every optimizer step, over all processes.
        length: Tokens of a row.
        rank: Process whose micro-batches these are: every `world`-th of each step. All processes get as many, so that
            an epoch's last ones may be empty.
        world: Processes.
    """

    def __init__(self, plan: Plan, length: Callable[[Key], int] = lambda key: 0, rank: int = 0, world: int = 1) -> None:
        if plan.accumulation % world:
            raise ValueError(f"accumulation should be a multiple of {world} processes, found {plan.accumulation}.")
        self.plan, self.length, self.rank, self.world = plan, length, rank, world
        self.epoch = 0
        # Read by accelerate's and transformers' data-loader code.
        self.batch_size = plan.micro_batch
        self.drop_last = False

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Key]]:
        # A step's micro-batches go round the processes; only the epoch's last step may not come out even.
        own: list[Key] = []
        index = -1
        for index, batch in enumerate(self.plan.micro_batches(self.epoch, self.length)):
            if index % self.world == self.rank:
                own = batch
            if index % self.world == self.world - 1:
                yield own
                own = []
        if (index + 1) % self.world:
            yield own

    def __len__(self) -> int:
        return ceil(ceil(self.plan.num_task / self.plan.micro_batch) / self.world)


class PairedRows:
    """Map-style dataset over several streams. An item is its own key; `collate` looks its token rows up.

    The key (align, i) stands for row i of the alignment set in every stream that is read of it: `align`, `rejected`.

    Args:
        streams: Token rows by stream.
        padding_free: What `collate` makes; see `Tokens`.
    """

    def __init__(self, streams: Mapping[Stream, Sequence[Encoded]], padding_free: bool = False) -> None:
        self.streams, self.padding_free = streams, padding_free

    def __len__(self) -> int:
        return len(self.streams["task"])

    def __getitem__(self, key: Key) -> Key:
        return key

    def length(self, key: Key) -> int:
        """Tokens of a row, summed over the streams that it stands for."""
        stream, i = key
        read = (rows for s, rows in self.streams.items() if (s == "task") == (stream == "task"))
        return sum(len(rows[i].input_ids) for rows in read)

    def collate(self, items: Sequence[Key], pad_id: int) -> dict[Stream, Tokens]:
        """A `Tokens` for every stream, with 0 rows where the micro-batch has none."""
        task, align = ([i for stream, i in items if stream == s] for s in ("task", "align"))
        chosen: dict[Stream, list[int]] = {s: task if s == "task" else align for s in self.streams}
        return {
            s: collate([self.streams[s][i] for i in rows], rows, pad_id, self.padding_free)
            for s, rows in chosen.items()
        }


@lru_cache(maxsize=256)
def _shuffled(n: int, seed: str) -> tuple[int, ...]:
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return tuple(order)
