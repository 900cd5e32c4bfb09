"""Out of memory, told apart from other failures, and what to lower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from selgen.spec import RunSpec

Stage = Literal["loading", "training", "gathering", "measuring"]
FLASH = ("flash_attention_2", "flash_attention_3")
NAME = "OutOfMemoryError"
"""What a record calls it, on whatever device."""
# Libraries raise plain RuntimeErrors for some of them.
_WORDS = (
    "cuda out of memory",
    "out of memory. tried to allocate",
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",
    "cublas_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that memory was too small, of a GPU or of the machine."""
    return any(
        isinstance(cause, MemoryError)
        or type(cause).__name__ == NAME
        or (isinstance(cause, RuntimeError) and any(words in str(cause).lower() for words in _WORDS))
        for cause in _chain(error)
    )


def advice(error: BaseException, spec: RunSpec, stage: Stage) -> str:
    """What happened and what to lower, with the values that are there.

    Args:
        stage: What the run was doing.
    """
    found = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"out of memory while {stage} ({found}). {_REMEDIES[stage](spec)}"


def _loading(spec: RunSpec) -> str:
    parts = ["set model.dtype=bfloat16"] if spec.model.dtype == "float32" else []
    parts += ["set model.quantization=nf4"] if spec.model.quantization is None and spec.lora is not None else []
    parts += ["give lora.r, since lora=null keeps a second copy of the model"] if spec.lora is None else []
    return _sentence([*parts, "choose a smaller model or a machine with more memory"])


def _training(spec: RunSpec) -> str:
    t = spec.training
    batch, steps = t.per_device_train_batch_size, t.gradient_accumulation_steps
    parts = []
    if t.padding_free and spec.model.attn_implementation not in FLASH:
        parts.append("set training.padding_free=false, or model.attn_implementation=flash_attention_2")
    if batch > 1:
        parts.append(
            f"lower training.per_device_train_batch_size ({batch}; raise gradient_accumulation_steps ({steps}) as much)"
        )
    parts.append(f"lower training.max_length ({'no limit' if t.max_length is None else t.max_length})")
    parts += [] if t.activation_checkpointing else ["set training.gradient_checkpointing=true"]
    parts += [] if spec.model.dtype == "bfloat16" else ["set model.dtype=bfloat16"]
    return _sentence(parts)


def _gathering(spec: RunSpec) -> str:
    return "The first process measures the whole model on its GPU: launch with DDP, or choose a smaller model."


def _measuring(spec: RunSpec) -> str:
    e = spec.evaluation
    return _sentence(
        [
            *([f"lower evaluation.batch_size ({e.batch_size})"] if e.batch_size > 1 else []),
            f"lower evaluation.max_new_tokens ({e.max_new_tokens})",
            *([] if spec.model.dtype == "bfloat16" else ["set model.dtype=bfloat16"]),
        ]
    )


_REMEDIES = {"loading": _loading, "training": _training, "gathering": _gathering, "measuring": _measuring}


def _sentence(parts: list[str]) -> str:
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
