"""How this process was launched: alone, or as one of several by `torchrun` or `accelerate launch`. Never imports torch.

A launcher tells each process its place in environment variables, so that all of this is known before anything is
loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from selgen.core import Method, PostHoc


class FailedElsewhere(RuntimeError):
    """Another process of this run failed, and says why itself."""


def world(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that were launched together."""
    # Without a local rank nothing joins processes, whatever a scheduler says of their number.
    return int(environment.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in environment else 1


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process's number among them, from 0."""
    return int(environment.get("RANK", "0")) if world(environment) > 1 else 0


def local_rank(environment: Mapping[str, str] = os.environ) -> int:
    """This process's number among those on its machine, from 0."""
    return int(environment.get("LOCAL_RANK", "0"))


def sharding(environment: Mapping[str, str] = os.environ) -> str | None:
    """What spreads the weights over the processes; None if each holds all of them (DDP)."""

    def on(name: str) -> bool:
        return environment.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t")

    if on("ACCELERATE_USE_DEEPSPEED"):
        return "DeepSpeed"
    if on("ACCELERATE_USE_FSDP"):
        return "FSDP2" if environment.get("FSDP_VERSION", "1") == "2" else "FSDP1"
    return None


def config_problem(environment: Mapping[str, str] = os.environ) -> str | None:
    """What is wrong with how the weights are to be spread; None if nothing."""
    kind = sharding(environment)
    if kind == "FSDP1":
        return (
            "fsdp_version should be 2, found 1, whose flattened parameters cannot be frozen one by one. Set it in the "
            "accelerate config, e.g. selgen's fsdp2.yaml."
        )
    saved = environment.get("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    if kind == "FSDP2" and saved != "FULL_STATE_DICT":
        return (
            f"fsdp_state_dict_type should be FULL_STATE_DICT, found {saved}: the result is saved as one model. Set it "
            "in the accelerate config, e.g. selgen's fsdp2.yaml."
        )
    return None


def method_problem(method: Method, name: str, kind: str | None) -> str | None:
    """Why a method cannot train weights that are spread over processes; None if it can, or if they are not.

    Args:
        name: Of the method, for the message.
        kind: What `sharding` says.
    """
    if kind is None:
        return None
    reasons = {
        "changes the weights of a finished run": isinstance(method, PostHoc),
        "fits an adapter of its own first": bool(method.fits),
        "combines whole gradients": method.separate_gradients,
        "reads or freezes the weights themselves": method.acts_on_weights,
    }
    reason = next((reason for reason, found in reasons.items() if found), None)
    if reason is None:
        return None
    return (
        f"method {name} {reason}, of which {kind} leaves each process a part only. Launch it with DDP (selgen's "
        "ddp.yaml), where every process holds the whole model, or choose a method that only adds losses."
    )


def shares(micro_batch: int, accumulation: int, processes: int) -> tuple[int, int]:
    """A process's part of an optimizer step: rows of its micro-batches, and their number.

    The step's rows stay what they are with one process, so the run stays the same; micro-batches never grow.

    Args:
        micro_batch: Rows of a micro-batch of one process alone.
        accumulation: Its micro-batches per optimizer step.

    Raises:
        ValueError: the rows cannot be divided among the processes.
    """
    rows, rest = divmod(micro_batch * accumulation, processes)
    if rest:
        raise ValueError(
            "training.per_device_train_batch_size times training.gradient_accumulation_steps, the rows of an optimizer "
            f"step over all processes, should be a multiple of their number ({processes}), found {micro_batch} x "
            f"{accumulation}. Change one of them, or launch another number of processes."
        )
    size = next(size for size in range(min(micro_batch, rows), 0, -1) if rows % size == 0)
    return size, rows // size
