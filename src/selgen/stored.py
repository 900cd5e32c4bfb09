"""Tensors on disk, each in a memory-mapped safetensors file whose name is a hash of everything that decides it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selgen import caches

VALUES = "values"


def path_for(kind: str, key: str) -> Path:
    """Where a tensor lies in the user's cache; files there may be deleted at any time."""
    return caches.home() / kind / f"{key}.safetensors"


def digest(parts: Iterable[bytes]) -> str:
    """32 hex digits over the parts, in order; where one ends counts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:32]


def weights(state: Mapping[str, Tensor]) -> str:
    """Digest of named tensors: names, types, shapes and bits; one tensor at a time is copied to the CPU."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:32]


def read(path: Path) -> Tensor | None:
    """The tensor, read from disk where it is used; None if there is none or the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(VALUES)
    except (OSError, SafetensorError):
        return None


def write(path: Path, values: Tensor) -> str | None:
    """Write a tensor, whole or not at all, whoever else writes or reads the same file.

    Returns:
        Why it could not be written; None if it was.
    """
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        os.close(handle)
        save_file({VALUES: values.contiguous()}, draft)
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        return str(error)
    finally:
        if draft is not None:  # still there only if something went wrong
            Path(draft).unlink(missing_ok=True)
    return None
