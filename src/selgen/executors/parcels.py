"""Run directories as bytes, for machines that share no path."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from selgen import record

RESULT = (record.RECORD, record.ADAPTER, record.EPOCH_ADAPTERS)
"""What a run that starts from another, or acts on it, reads of that one."""


def pack(directory: Path, only: tuple[str, ...] | None = None) -> bytes:
    """The files of a directory; `only` those in it of these names."""
    parcel = io.BytesIO()
    with tarfile.open(fileobj=parcel, mode="w") as archive:
        for path in sorted(directory.iterdir()):
            if only is None or path.name in only:
                archive.add(path, arcname=path.name)
    return parcel.getvalue()


def unpack(parcel: bytes, directory: Path) -> None:
    """Put a directory in place whole, or leave what is there: a reader never sees half of it."""
    draft = directory.with_name(f".{directory.name}.fetched")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(parcel), mode="r") as archive:
            archive.extractall(draft, filter="data")
        if directory.exists():  # what an earlier, interrupted try left
            shutil.rmtree(directory)
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
