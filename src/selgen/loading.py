"""Weights as transformers loads them: attention, quantization, code beside the weights, revisions; nothing of PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from selgen import hub

COMMIT = "hub_commit"
"""Attribute of a loaded model: its commit on the hub, None for a directory."""


def weights(
    name: str,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> Any:
    """A causal language model; see `models.load`."""
    more: dict[str, Any] = {}
    if quantization is not None:
        if problem := quantization_problem():
            raise ValueError(problem)
        more = {
            "quantization_config": BitsAndBytesConfig(**quantization),
            "device_map": {"": torch.cuda.current_device()},
        }
    own, revision = hub.split(name)
    commit = hub.commit(name)
    with hub.explained(name), only_trusted(own), _attention(attn_implementation):
        model = AutoModelForCausalLM.from_pretrained(
            own,
            dtype=getattr(torch, dtype),
            revision=commit or revision,
            trust_remote_code=trust_remote_code,
            attn_implementation=attn_implementation,
            **more,
        )
    _keep_softcap(model, attn_implementation)
    setattr(model, COMMIT, commit)
    return model


def pinned(name: str, trust_remote_code: bool) -> str:
    """`id@commit` of a hub id, whose weights are downloaded if they are not there.

    Raises:
        ModelNotFound: it cannot be had.
        ValueError: it needs code that is not trusted.
    """
    own, revision = hub.split(name)
    commit = hub.commit(name)
    with hub.explained(name), only_trusted(own):
        AutoModelForCausalLM.from_pretrained(
            own, device_map="meta", revision=commit or revision, trust_remote_code=trust_remote_code
        )
    return f"{own}@{commit}"


def without_numbers(name: str, trust_remote_code: bool = False, attn_implementation: str | None = None) -> Any:
    """The modules of a model, on the meta device.

    Raises:
        ModelNotFound: a hub id that cannot be had.
        ValueError: see `models.load`.
    """
    own, revision = hub.split(name)
    with hub.explained(name), only_trusted(own), _attention(attn_implementation), torch.device("meta"):
        config = AutoConfig.from_pretrained(own, revision=revision, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_config(
            config, trust_remote_code=trust_remote_code, attn_implementation=attn_implementation
        )
    _keep_softcap(model, attn_implementation)
    return model


def quantization_problem() -> str | None:
    """Why quantized weights cannot be used on this machine, and what to do; None if they can."""
    missing = []
    if not torch.cuda.is_available():
        missing.append("a CUDA GPU, found none on this machine")
    if find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes, which is not installed: pip install -c constraints.txt '.[qlora]'")
    if not missing:
        return None
    return (
        f"model.quantization needs {' and '.join(missing)}. Run it where there are both, or set "
        "model.quantization=null (with model.dtype=bfloat16 a model takes four times the memory of nf4)."
    )


@contextmanager
def only_trusted(name: str) -> Iterator[None]:
    """Say which field lets a model run the code beside its weights."""
    try:
        yield
    except ValueError as error:
        if "trust_remote_code=True" not in str(error):
            raise
        raise ValueError(
            f"model.trust_remote_code should be true for {name!r}, whose architecture is Python code beside its "
            "weights, found false. Read that code first; if you trust it, set model.trust_remote_code=true (with "
            "model.revision, so that it stays what you read)."
        ) from error


@contextmanager
def _attention(asked: str | None) -> Iterator[None]:
    """Say which field chose an attention that the model or the machine does not have."""
    try:
        yield
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        unsupported = "attention implementation" in reason or "attn_implementation" in reason
        if asked is None or not (unsupported or isinstance(error, ImportError)):
            raise
        # What follows is advice on how to report it.
        reason = reason.split(" Please request")[0].rstrip(".")
        raise ValueError(
            f"model.attn_implementation={asked} cannot be used: {reason}. Leave it out for the best that the "
            "architecture has, or set model.attn_implementation=eager, which all have."
        ) from error


def _keep_softcap(model: Any, asked: str | None) -> None:
    """Compute attention eagerly where sdpa would leave out the architecture's soft-cap without a word.

    Raises:
        ValueError: sdpa was asked for.
    """
    cap = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    if cap is None or model.config._attn_implementation != "sdpa":
        return
    if asked is not None:
        raise ValueError(
            f"model.attn_implementation should not be sdpa, which leaves out the soft-cap ({cap:g}) of a "
            f"{model.config.model_type} model's attention. Leave it out, or set model.attn_implementation=eager."
        )
    model.set_attn_implementation("eager")
